"""The figures of ``docs/flow.md``: flow beside the truth, and speed against error."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from data_modules.cache.store import whole_file  # noqa: E402
from experiments.benchmarks.flow_pairs import film  # noqa: E402
from experiments.gallery import colours, shades, wheel  # noqa: E402
from mer.flow import METHODS, optical_flow, strain  # noqa: E402
from mer.flow.tvl1 import tvl1  # noqa: E402

if TYPE_CHECKING:
    from experiments.benchmarks.flow import Row

CLIPS = ((1, 0.8), (4, 1.8))  # number and largest displacement in px
COLOURS = {
    "TV-L1, OpenCV": "#1f5fa8",
    "TV-L1, mer": "#c8402f",
    "Farneback, OpenCV": "#7a7a7a",
    "DIS, OpenCV": "#3c8a4e",
}


def example(path: Path, size: int) -> None:
    """Two clips: the faces, the true flow and its strain, and what each method makes of them."""
    titles = ("onset, apex", "truth", "TV-L1, OpenCV", "TV-L1, mer", "Farneback", "DIS")
    figure, axes = plt.subplots(2 * len(CLIPS), len(titles), figsize=(12.4, 8.9), layout="constrained")
    for clip, (number, peak) in enumerate(CLIPS):
        pair, truth = film(number, size, peak)
        first, second = torch.from_numpy(pair)[:, None, None]
        reference, farneback, dis = (optical_flow(pair[0], pair[1], method) for method in METHODS)
        flows = [truth, reference, tvl1(first, second)[0].numpy(), farneback, dis]
        full = float(np.quantile(np.hypot(*truth), 0.998))
        strains = [strain(flow) for flow in flows]
        strongest = float(np.quantile(strains[0], 0.998))
        upper, lower = axes[2 * clip], axes[2 * clip + 1]
        for axis, frame in ((upper[0], pair[0]), (lower[0], pair[1])):
            axis.imshow(frame, cmap="gray", vmin=0, vmax=255)
        for axis, flow in zip(upper[1:], flows):
            axis.imshow(colours(flow, full))
        for axis, one in zip(lower[1:], strains):
            axis.imshow(shades(one, strongest))
        upper[0].set_ylabel(f"flow, full colour {full:.1f} px")
        lower[0].set_ylabel(f"strain, white {strongest:.2f}")
        for axis, flow in zip(upper[2:], flows[1:]):
            axis.set_xlabel(f"off by {np.hypot(*(flow - truth)).mean():.3f} px")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    legend = axes[0, 0].inset_axes((0.7, 0.0, 0.3, 0.3))
    legend.imshow(wheel())
    legend.set_axis_off()
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=11)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="jpg", dpi=100, pil_kwargs={"quality": 85})
    plt.close(figure)


def bench(rows: Sequence["Row"], errors: Sequence[float], path: Path) -> None:
    """Pairs per second against endpoint error, a point per method and device."""
    figure, axis = plt.subplots(figsize=(7.5, 3.8), layout="constrained")
    for method in dict.fromkeys(row.method for row in rows):
        of_method = [(row, off) for row, off in zip(rows, errors) if row.method == method]
        speeds, offs = [row.speed for row, _ in of_method], [off for _, off in of_method]
        axis.plot(speeds, offs, "o-", color=COLOURS[method], markersize=6, linewidth=1)
        above = method == "TV-L1, mer"
        for place, (row, off) in enumerate(of_method):
            shift = (0, 9 if above else -15)
            axis.annotate(
                row.where, (row.speed, off), shift, textcoords="offset points", fontsize=8, ha="center",
                color=COLOURS[method],
            )  # fmt: skip
            if place == 0:
                axis.annotate(
                    method, (row.speed, off), (0, 22 if above else -28), textcoords="offset points", fontsize=9,
                    ha="left", color=COLOURS[method],
                )  # fmt: skip
    axis.set(xscale="log", xlabel="pairs per second", ylabel="mean endpoint error, px", ylim=(0, 1.15 * max(errors)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.margins(x=0.15)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    plt.close(figure)

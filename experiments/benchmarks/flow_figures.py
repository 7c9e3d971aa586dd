"""The figures of ``docs/flow.md``: flow beside the truth, and speed against error."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from data_modules.cache.store import whole_file
from experiments.benchmarks.flow_pairs import film
from experiments.report.drawing import draw_flow, draw_strain, draw_wheel
from mer.flow import METHODS, optical_flow, strain
from mer.flow.tvl1 import tvl1

CLIPS = ((1, 0.8), (4, 1.8))  # number and largest displacement in px
COLOURS = {
    "TV-L1, OpenCV": "#1f5fa8",
    "TV-L1, mer": "#c8402f",
    "Farneback, OpenCV": "#7a7a7a",
    "DIS, OpenCV": "#3c8a4e",
}


def example(path: Path, size: int) -> None:
    """Two clips: the faces, the true flow and its strain, and the flow and strain of each method."""
    titles = ("onset, apex", "truth", "TV-L1, OpenCV", "TV-L1, mer", "Farneback", "DIS")
    figure = Figure(figsize=(12.4, 8.9), layout="constrained")
    axes = figure.subplots(2 * len(CLIPS), len(titles))
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
            axis.imshow(draw_flow(flow, full))
        for axis, magnitude in zip(lower[1:], strains):
            axis.imshow(draw_strain(magnitude, strongest))
        upper[0].set_ylabel(f"flow, full colour {full:.1f} px")
        lower[0].set_ylabel(f"strain, white {strongest:.2f}")
        for axis, flow in zip(upper[2:], flows[1:]):
            axis.set_xlabel(f"off by {np.hypot(*(flow - truth)).mean():.3f} px")
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    legend = axes[0, 0].inset_axes((0.7, 0.0, 0.3, 0.3))
    legend.imshow(draw_wheel())
    legend.set_axis_off()
    for axis, title in zip(axes[0], titles):
        axis.set_title(title, fontsize=11)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="jpg", dpi=100, pil_kwargs={"quality": 85})


def speed_and_error(points: Sequence[tuple[str, str, float, float]], path: Path) -> None:
    """Pairs per second against endpoint error in px, a point per method and device.

    Args:
        points: Method, device, pairs per second and error.
        path: The SVG to write.
    """
    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    axis = figure.subplots()
    for method, colour in COLOURS.items():
        devices, speeds, errors = zip(*[point[1:] for point in points if point[0] == method])
        axis.plot(speeds, errors, "o-", color=colour, markersize=6, linewidth=1)
        above = method == "TV-L1, mer"
        labels = [((0, 22 if above else -28), speeds[0], errors[0], method, "left", 9)]
        labels += [((0, 9 if above else -15), *point, "center", 8) for point in zip(speeds, errors, devices)]
        for shift, speed, error, text, align, size in labels:
            style = {"fontsize": size, "ha": align, "color": colour}
            axis.annotate(text, (speed, error), shift, textcoords="offset points", **style)
    axis.set(
        xscale="log",
        xlabel="pairs per second",
        ylabel="mean endpoint error, px",
        ylim=(0, 1.15 * max(point[3] for point in points)),
    )
    axis.xaxis.set_major_formatter("{x:g}")
    axis.margins(x=0.15)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})

"""`make bench-flow`: speed and error of optical flow.

Every method computes the same synthetic pairs, whose true flow is known. Methods take turns, and the fastest turn of
each counts, so that other work on the machine disturbs all alike.
"""

import argparse
import platform
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_modules.cache.store import write_text
from data_modules.processes.pool import cores
from experiments.benchmarks import flow_figures
from experiments.benchmarks.flow_pairs import film
from experiments.benchmarks.page import fill
from mer.flow import METHODS, optical_flow
from mer.flow.tvl1 import tvl1
from mer.preprocessing.opencv import cv2

NAMES = {"tvl1": "TV-L1, OpenCV", "farneback": "Farneback, OpenCV", "dis": "DIS, OpenCV"}
OURS = "TV-L1, mer"


@dataclass
class Row:
    """A method on a device, with its measurements.

    Attributes:
        method: Name of the method.
        where: ``one core``, ``2 cores`` or the name of a GPU.
        estimate: Computes all pairs and returns the flow (N, 2, H, W) of those with a known flow, in px.
        pairs: Number of pairs per turn, N or more.
        seconds: Time of the fastest turn.
        memory: MB per pair on a GPU, else None.
        flow: Flow of the last turn.
    """

    method: str
    where: str
    estimate: Callable[[], NDArray[np.float32]]
    pairs: int
    seconds: float = float("inf")
    memory: float | None = None
    flow: NDArray[np.float32] = field(init=False)

    @property
    def speed(self) -> float:
        """Pairs per second."""
        return self.pairs / self.seconds

    def turn(self) -> None:
        """Compute all pairs once, and time it."""
        start = time.perf_counter()
        self.flow = self.estimate()
        self.seconds = min(self.seconds, time.perf_counter() - start)


def main() -> None:
    """Measure, and write the table and the figures into ``docs``."""
    parser = argparse.ArgumentParser(prog="make bench-flow", description=__doc__)
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of flow.md and its figures")
    parser.add_argument("--pairs", type=int, default=24, help="pairs that the CPU computes (default 24)")
    parser.add_argument("--batch", type=int, default=128, help="pairs of a batch on a GPU (default 128)")
    parser.add_argument("--size", type=int, default=224, help="side of the frames in px (default 224)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each method (default 3)")
    parser.add_argument("--many", type=int, default=0, help="instead: run so many pairs and print the memory")
    options = parser.parse_args()
    if options.many:
        print(many(options.many, options.batch, options.size))
        return
    flow_figures.example(options.docs / "flow-example.jpg", options.size)
    rows, truth = measure(options.pairs, options.batch, options.size, options.turns)
    text = table(rows, truth)
    print(text)
    page = options.docs / "flow.md"
    write_text(page, fill(page, "make bench-flow", text))
    points = [(row.method, row.where, row.speed, error(row, truth)) for row in rows]
    flow_figures.speed_and_error(points, options.docs / "flow-bench.svg")


def measure(pairs: int, batch: int, size: int, turns: int) -> tuple[list[Row], NDArray[np.float32]]:
    """Time every method on every device.

    Returns:
        The rows, and the true flow (pairs, 2, size, size) in px.
    """
    frames, truth = (np.stack(part) for part in zip(*[film(number, size) for number in range(pairs)]))
    count = cores()
    with ProcessPoolExecutor(count, get_context("forkserver"), cv2.setNumThreads, (1,)) as pool:
        rows = []
        for method in METHODS:
            task = partial(_estimate, method)
            rows.append(Row(NAMES[method], "one core", partial(_one_by_one, task, frames), pairs))
            rows.append(Row(NAMES[method], f"{count} cores", partial(_one_by_one, task, frames, pool), pairs))
        for threads, where in ((1, "one core"), (count, f"{count} cores")):
            rows.append(Row(OURS, where, partial(_batch, torch.from_numpy(frames), threads), pairs))
        if torch.cuda.is_available():
            name = torch.cuda.get_device_name()
            on_gpu = torch.from_numpy(np.resize(frames, (max(batch, pairs), *frames.shape[1:]))).cuda()
            rows.append(row := Row(OURS, name, lambda: _batch(on_gpu, 1)[:pairs], len(on_gpu)))
            row.estimate()  # compiles
            torch.cuda.reset_peak_memory_stats()
            row.estimate()
            row.memory = torch.cuda.max_memory_allocated() / 1e6 / row.pairs
        cv2.setNumThreads(1)
        list(pool.map(partial(_estimate, "tvl1"), frames[: 2 * count]))  # starts the processes
        for _ in range(turns):
            for row in rows:
                row.turn()
    return rows, truth


def error(row: Row, truth: NDArray[np.float32]) -> float:
    """Mean endpoint error in px."""
    return float(_length(row.flow - truth).mean())


def table(rows: list[Row], truth: NDArray[np.float32]) -> str:
    """The rows as Markdown, under a line about the machine."""
    first = rows[0]
    versions = f"OpenCV {cv2.__version__}, PyTorch {torch.__version__.split('+')[0]}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU, so no figure of one"
    lines = [
        f"{len(truth)} pairs of {truth.shape[-1]} x {truth.shape[-2]} px; {_processor()}, "
        f"{cores()} cores; {gpu}; {versions}.",
        "",
        "| method | on | pairs per second | to OpenCV's TV-L1 on one core | mean endpoint error, px "
        "| from OpenCV's TV-L1: mean, px | 95 %, px |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        apart = _length(row.flow - first.flow)
        lines.append(
            f"| {row.method} | {row.where} | {row.speed:.3g} | {row.speed / first.speed:.3g} "
            f"| {error(row, truth):.4f} | {apart.mean():.4f} | {np.quantile(apart, 0.95):.4f} |"
        )
    lines += [f"\n{row.memory:.1f} MB of memory a pair on {row.where}." for row in rows if row.memory is not None]
    return "\n".join(lines)


def many(pairs: int, batch: int, size: int) -> str:
    """Compute many pairs on one device, from and to the host's memory.

    Returns:
        A line with the pairs per second and the memory held after the second batch and after the last.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    films = np.stack([film(number, size)[0] for number in range(8)])
    frames = torch.from_numpy(np.resize(films, (batch, 2, size, size)))
    held: list[float] = []
    batches = -(-pairs // batch)
    for number in range(batches):
        if number == 1:
            start = time.perf_counter()
        on_device = frames.to(device)
        tvl1(on_device[:, :1], on_device[:, 1:]).cpu()
        held.append(_held_memory(device))
    if batches < 3:
        return f"{batches} batches tell nothing: take more pairs or a smaller batch"
    speed = (batches - 1) * batch / (time.perf_counter() - start)
    return (
        f"{batches * batch} pairs of {size} px on {device} in batches of {batch}: {speed:.3g} pairs per second "
        f"after the first batch; {held[1]:.0f} MB held after the second batch, {held[-1]:.0f} MB after the last"
    )


def _held_memory(device: str) -> float:
    """MB: on a GPU those the allocator has reserved, on the CPU the peak of the process."""
    if device == "cuda":
        return torch.cuda.memory_reserved() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _estimate(method: str, pair: NDArray[np.uint8]) -> NDArray[np.float32]:
    return optical_flow(pair[0], pair[1], method)  # pyright: ignore


def _one_by_one(
    task: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    frames: NDArray[np.uint8],
    pool: ProcessPoolExecutor | None = None,
) -> NDArray[np.float32]:
    return np.stack(list(pool.map(task, frames) if pool else map(task, frames)))


def _batch(frames: torch.Tensor, threads: int) -> NDArray[np.float32]:
    torch.set_num_threads(threads)
    return tvl1(frames[:, :1], frames[:, 1:]).cpu().numpy()


def _length(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.hypot(flow[:, 0], flow[:, 1])


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else ()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()

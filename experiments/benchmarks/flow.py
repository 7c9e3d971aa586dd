"""Speed and error of optical flow, in one run: ``make bench-flow``.

Every method sees the same synthetic pairs, whose true flow is known. Methods take turns, and each counts by its fastest
turn, so that what else runs on the machine disturbs all alike.
"""

import argparse
import os
import platform
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_modules.cache.store import write_text
from experiments.benchmarks import flow_pictures
from experiments.benchmarks.flow_pairs import film
from mer.flow import METHODS, optical_flow
from mer.flow.tvl1 import tvl1
from mer.preprocessing.opencv import cv2

NAMES = {"tvl1": "TV-L1, OpenCV", "farneback": "Farneback, OpenCV", "dis": "DIS, OpenCV"}
OURS = "TV-L1, mer"
BEGIN, END = "<!-- written by make bench-flow -->\n", "<!-- end -->\n"


@dataclass
class Row:
    """A method on a device, and how it did.

    Attributes:
        where: ``one core``, ``all cores`` or the name of a GPU.
        estimate: Flow (N, 2, H, W) of all pairs.
        pairs: How many it computes per turn.
        seconds: Of the fastest turn.
        memory: MB per pair on a GPU, else None.
    """

    method: str
    where: str
    estimate: Callable[[], NDArray[np.float32]]
    pairs: int
    seconds: float = float("inf")
    memory: float | None = None
    flow: NDArray[np.float32] | None = None

    @property
    def speed(self) -> float:
        """Pairs per second."""
        return self.pairs / self.seconds

    def turn(self) -> None:
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
    parser.add_argument("--many", type=int, default=0, help="instead: run so many pairs, watching the memory")
    parser.add_argument("--pictures", action="store_true", help="instead: only draw the example")
    options = parser.parse_args()
    if options.many:
        print(many(options.many, options.batch, options.size))
        return
    flow_pictures.example(options.docs / "flow-example.jpg", options.size)
    if options.pictures:
        return
    rows, truth = measure(options.pairs, options.batch, options.size, options.turns)
    text = table(rows, truth)
    print(text)
    page = options.docs / "flow.md"
    before, rest = page.read_text().split(BEGIN)
    write_text(page, before + BEGIN + text + END + rest.split(END)[1])
    errors = [error(row, truth) for row in rows]
    flow_pictures.bench(rows, errors, options.docs / "flow-bench.svg")


def measure(pairs: int, batch: int, size: int, turns: int) -> tuple[list[Row], NDArray[np.float32]]:
    """Time every method.

    Returns:
        A row each; the true flow (pairs, 2, size, size).
    """
    frames, truth = (np.stack(part) for part in zip(*[film(number, size) for number in range(pairs)]))
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, get_context("forkserver"), cv2.setNumThreads, (1,)) as pool:
        rows = []
        for method in METHODS:
            task = partial(_estimate, method)
            rows.append(Row(NAMES[method], "one core", partial(_one_by_one, task, frames), pairs))
            rows.append(Row(NAMES[method], f"{cores} cores", partial(_one_by_one, task, frames, pool), pairs))
        for threads, where in ((1, "one core"), (cores, f"{cores} cores")):
            rows.append(Row(OURS, where, partial(_batch, torch.from_numpy(frames), threads), pairs))
        if torch.cuda.is_available():
            on_gpu = torch.from_numpy(np.resize(frames, (max(batch, pairs), *frames.shape[1:]))).cuda()
            rows.append(Row(OURS, torch.cuda.get_device_name(), partial(_batch, on_gpu, 1), len(on_gpu)))
        cv2.setNumThreads(1)
        list(pool.map(partial(_estimate, "tvl1"), frames[: 2 * cores]))  # starts the processes
        for row in rows[-1:] if torch.cuda.is_available() else ():
            row.estimate()  # compiles
            torch.cuda.reset_peak_memory_stats()
            row.estimate()
            row.memory = torch.cuda.max_memory_allocated() / 1e6 / row.pairs
        for _ in range(turns):
            for row in rows:
                row.turn()
    return rows, truth


def error(row: Row, truth: NDArray[np.float32]) -> float:
    """Mean endpoint error in px."""
    return float(_length(_flow(row, truth) - truth).mean())


def table(rows: list[Row], truth: NDArray[np.float32]) -> str:
    """The rows as Markdown, with where they were taken."""
    first = rows[0]
    versions = f"OpenCV {cv2.__version__}, PyTorch {torch.__version__.split('+')[0]}"
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU, so no figure of one"
    lines = [
        f"{len(truth)} pairs of {truth.shape[-1]} x {truth.shape[-2]} px; {_processor()}, "
        f"{len(os.sched_getaffinity(0))} cores; {gpu}; {versions}.",
        "",
        "| method | on | pairs per second | to OpenCV's TV-L1 on one core | mean endpoint error, px "
        "| from OpenCV's TV-L1: mean, px | 95 %, px |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        apart = _length(_flow(row, truth) - _flow(first, truth))
        lines.append(
            f"| {row.method} | {row.where} | {row.speed:.3g} | {row.speed / first.speed:.3g} "
            f"| {error(row, truth):.4f} | {apart.mean():.4f} | {np.quantile(apart, 0.95):.4f} |"
        )
    lines += [f"\n{row.memory:.1f} MB of memory a pair on {row.where}." for row in rows if row.memory is not None]
    return "\n".join(lines) + "\n"


def many(pairs: int, batch: int, size: int) -> str:
    """Run many pairs through one device, from and to the host's memory.

    Returns:
        Pairs per second, and the memory that is held after the second batch and after the last.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    frames = torch.from_numpy(
        np.resize(np.stack([film(number, size)[0] for number in range(8)]), (batch, 2, size, size))
    )
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
    """MB: on a GPU what the allocator has reserved, on the CPU the most that the process ever had."""
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


def _flow(row: Row, truth: NDArray[np.float32]) -> NDArray[np.float32]:
    assert row.flow is not None
    return row.flow[: len(truth)]


def _length(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.hypot(flow[:, 0], flow[:, 1])


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()

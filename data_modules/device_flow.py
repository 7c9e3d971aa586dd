"""Flow of many clips on GPUs, while processes go on decoding and aligning the next ones."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from queue import SimpleQueue
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from data_modules import frames
from data_modules.cache import write
from data_modules.frames import Preparation
from mer import InputError
from mer.flow import with_strain
from mer.tvl1 import tvl1

BATCH = 128
"""Clips of one batch. Enough that a launch of a kernel costs less than its work; at 224 px about 1.5 GB."""

Computed = tuple[Preparation, dict[str, NDArray] | str]  # a clip and its tensors, or why it cannot be used


def resolve(
    backend: Literal["auto", "opencv", "torch"], method: Literal["tvl1", "farneback", "dis"], gpu: bool
) -> Literal["opencv", "torch"]:
    """What ``auto`` means, with or without a GPU."""
    if backend != "auto":
        return backend
    return "torch" if gpu and method == "tvl1" else "opencv"


def devices() -> list[str]:
    """All GPUs that this process may use; the CPU where there is none."""
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] or ["cpu"]


def run(preparations: Sequence[Preparation], workers: int) -> Iterator[str | None]:
    """Run preparations as ``frames.run`` does, with the flow of those that leave it open computed on ``devices``.

    Processes decode, find faces and align; whole batches of crops go to the devices, one to each at a time, while the
    next are gathered. At most one batch per device and two more are held.

    Args:
        preparations: In any order.
        workers: Processes. What is computed does not depend on their number, nor on that of the devices.

    Yields:
        The outcome of each, in order: why its clip cannot be used, or None.

    Raises:
        InputError: If the cache cannot be written, a process dies, or the memory of a device does not suffice.
    """
    with closing(frames.spread(Preparation.tensors, preparations, workers)) as computed:
        yield from finish_all(zip(preparations, computed), devices())


def finish_all(computed: Iterable[Computed], names: Sequence[str]) -> Iterator[str | None]:
    """Compute what flow is missing, in batches that the devices share, and write every clip's file.

    Args:
        computed: Clips, in any order.
        names: Devices, as torch names them; a thread each.

    Yields:
        The outcome of each, in order, as ``run``.
    """
    free: SimpleQueue[str] = SimpleQueue()
    for name in names:
        free.put(name)

    def on_free_device(batch: Sequence[Computed]) -> list[str | None]:
        name = free.get()
        try:
            return finish(batch, name)
        finally:
            free.put(name)

    source, waiting = iter(computed), deque[Future[list[str | None]]]()
    pool = ThreadPoolExecutor(len(names))
    try:
        while batch := list(islice(source, BATCH)):
            waiting.append(pool.submit(on_free_device, batch))
            if len(waiting) > len(names):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def finish(batch: Sequence[Computed], device: str) -> list[str | None]:
    """Compute the flow of a batch of clips on one device, and write their files.

    Args:
        batch: Clips; those whose tensors hold ``pair`` get ``flow`` in its place, see ``frames.FlowPreparation``.
        device: As torch names it.

    Returns:
        The outcome of each, as ``run``.

    Raises:
        InputError: If the cache cannot be written, or the memory of the device does not suffice.
    """
    open_ones = [tensors for _, tensors in batch if isinstance(tensors, dict) and "pair" in tensors]
    if open_ones:
        pairs = torch.from_numpy(np.stack([tensors["pair"] for tensors in open_ones]))
        for tensors, flow in zip(open_ones, _flow(pairs, device)):
            del tensors["pair"]
            tensors["flow"] = with_strain(flow)
    outcomes: list[str | None] = []
    for one, tensors in batch:
        if isinstance(tensors, dict):
            write(one.target, tensors)
        outcomes.append(tensors if isinstance(tensors, str) else None)
    return outcomes


def _flow(pairs: torch.Tensor, device: str) -> NDArray[np.float32]:
    """Flow (B, 2, H, W) of pairs of grey faces (B, 2, H, W)."""
    try:
        on_device = pairs.to(device)
        return tvl1(on_device[:, :1], on_device[:, 1:]).cpu().numpy()
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"the memory of {device} does not suffice for the flow of {len(pairs)} clips: end what else runs on it, or "
            "choose --data.backend=opencv; what is prepared is kept"
        ) from error

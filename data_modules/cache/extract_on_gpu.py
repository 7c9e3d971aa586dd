"""Flow of many clips on GPUs, while processes go on decoding and aligning the next ones."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from queue import SimpleQueue
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from data_modules.cache import extract
from data_modules.cache.extract import Entry
from data_modules.cache.store import write
from mer import InputError
from mer.flow import with_strain
from mer.flow.tvl1 import tvl1

BATCH = 128
"""Clips of one batch. One multiprocessor computes one clip, and a large GPU has about as many."""

BATCHES_AT_ONCE = 2
"""On one GPU: while one is copied, or waits for its slowest clip, the other keeps the GPU busy."""

Computed = tuple[Entry, dict[str, NDArray] | str]  # a clip and its tensors, or why it cannot be used


class Device:
    """A GPU, or the CPU.

    Attributes:
        name: As torch names it.
        at_once: Batches that it computes at once. On a GPU each has a stream of its own, so that copies and kernels of
            different batches overlap.
    """

    def __init__(self, name: str, at_once: int | None = None) -> None:
        self.name = name
        self._is_gpu = torch.device(name).type == "cuda"
        self.at_once = at_once or (BATCHES_AT_ONCE if self._is_gpu else 1)
        self._streams: SimpleQueue[torch.cuda.Stream | None] = SimpleQueue()
        for _ in range(self.at_once):
            self._streams.put(None)  # made when it is needed: a stream takes memory on its GPU
        self._gathering = Lock()

    def flow(self, pairs: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Flow of a batch; waits while the device computes ``at_once`` others.

        A batch that does not fit into the memory beside the others is computed alone, in halves, quarters and so on if
        need be. The flow has the same bits.

        Args:
            pairs: Grey faces, shape (B, 2, H, W).

        Returns:
            Shape (B, 2, H, W).

        Raises:
            InputError: If the memory does not suffice for one pair.
        """
        stream = self._free_stream()
        try:
            return self._compute(pairs, stream)
        except torch.OutOfMemoryError:
            pass
        finally:
            self._streams.put(stream)
        with self._gathering:  # two that wait for each other's stream would wait for ever
            streams = [self._free_stream() for _ in range(self.at_once)]
        try:
            return self._in_parts(pairs, streams[0])
        finally:
            for stream in streams:
                self._streams.put(stream)

    def _free_stream(self) -> torch.cuda.Stream | None:
        """A stream that no batch uses, as soon as there is one; None on the CPU."""
        stream = self._streams.get()
        return torch.cuda.Stream(self.name) if self._is_gpu and stream is None else stream

    def _in_parts(self, pairs: NDArray[np.uint8], stream: torch.cuda.Stream | None) -> NDArray[np.float32]:
        try:
            return self._compute(pairs, stream)
        except torch.OutOfMemoryError as error:
            if len(pairs) == 1:
                raise InputError(
                    f"the memory of {self.name} does not suffice for the flow of one clip: end what else runs on it, "
                    "or choose --data.backend=opencv; what is prepared is kept"
                ) from error
        middle = len(pairs) // 2  # only here, where the error no longer holds what was on the device
        return np.concatenate([self._in_parts(part, stream) for part in (pairs[:middle], pairs[middle:])])

    def _compute(self, pairs: NDArray[np.uint8], stream: torch.cuda.Stream | None) -> NDArray[np.float32]:
        faces = torch.from_numpy(pairs)
        if self._is_gpu:
            faces = faces.pin_memory()  # what is not pinned is copied slowly, and nothing overlaps
        with torch.cuda.stream(stream):
            faces = faces.to(self.name, non_blocking=True)
            flow = tvl1(faces[:, :1], faces[:, 1:])
            on_host = torch.empty(flow.shape, pin_memory=self._is_gpu).copy_(flow, non_blocking=True)
        if stream is not None:
            stream.synchronize()
        return on_host.numpy()


def devices() -> list[Device]:
    """All GPUs that this process may use; the CPU where there is none."""
    return [Device(f"cuda:{number}") for number in range(torch.cuda.device_count())] or [Device("cpu")]


def run(entries: Sequence[Entry], workers: int) -> Iterator[str | None]:
    """Write entries as ``extract.run`` does, but compute the flow that they leave out on ``devices``.

    Processes decode, find faces and align; whole batches of crops go to the devices, as many to each as it computes at
    once, while the next are gathered. At most these batches and two more are held.

    Args:
        entries: In any order.
        workers: Processes. What is computed does not depend on their number, nor on that of the devices.

    Yields:
        The outcome of each, in order: why its clip cannot be used, or None.

    Raises:
        InputError: If the cache cannot be written, a process dies, or the memory of a device does not suffice.
    """
    with closing(extract.spread(Entry.tensors, entries, workers)) as computed:
        yield from finish_all(zip(entries, computed), devices())


def finish_all(computed: Iterable[Computed], devices: Sequence[Device]) -> Iterator[str | None]:
    """Compute the flow that is missing, in batches shared out among the devices, and write every clip's file.

    Args:
        computed: Clips, in any order.
        devices: With a thread for each batch that they compute at once.

    Yields:
        The outcome of each, in order, as ``run``.
    """
    turns = max(device.at_once for device in devices)
    slots = [device for turn in range(turns) for device in devices if turn < device.at_once]
    free: SimpleQueue[Device] = SimpleQueue()
    for device in slots:
        free.put(device)

    def on_free_device(batch: Sequence[Computed]) -> list[str | None]:
        device = free.get()
        try:
            return finish(batch, device)
        finally:
            free.put(device)

    source, waiting = iter(computed), deque[Future[list[str | None]]]()
    pool = ThreadPoolExecutor(len(slots))
    try:
        while batch := list(islice(source, BATCH)):
            waiting.append(pool.submit(on_free_device, batch))
            if len(waiting) > len(slots):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def finish(batch: Sequence[Computed], device: Device) -> list[str | None]:
    """Compute the flow of a batch of clips on one device, and write their files.

    Args:
        batch: Clips; those whose tensors hold ``pairs`` get ``flow`` in its place, see ``FlowPreparation``.
        device: It waits for its turn there.

    Returns:
        The outcome of each, as ``run``.

    Raises:
        InputError: If the cache cannot be written, or the memory of the device does not suffice.
    """
    without_flow = [tensors for _, tensors in batch if isinstance(tensors, dict) and "pairs" in tensors]
    if without_flow:
        flows = iter(device.flow(np.concatenate([tensors["pairs"] for tensors in without_flow])))
        for tensors in without_flow:
            tensors["flow"] = np.concatenate([with_strain(next(flows)) for _ in tensors.pop("pairs")])
    outcomes: list[str | None] = []
    for entry, tensors in batch:
        if isinstance(tensors, dict):
            write(entry.target, tensors)
        outcomes.append(tensors if isinstance(tensors, str) else None)
    return outcomes

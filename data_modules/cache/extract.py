"""The files of the cache, one for each clip, written in parallel processes. No torch: these processes start fast."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from numpy.typing import NDArray

from data_modules.cache import store
from data_modules.processes import pool as processes
from data_modules.processes.pool import Failure
from mer import InputError
from mer.preprocessing.clip import Preparation
from mer.preprocessing.opencv import cv2

Outcome = TypeVar("Outcome")


@dataclass(frozen=True)
class Entry:
    """A file of the cache.

    Attributes:
        preparation: What its content is made by.
        target: The file.
    """

    preparation: Preparation
    target: Path

    def tensors(self) -> dict[str, NDArray] | str:
        """Its content, or why the clip cannot be used."""
        try:
            return self.preparation.tensors()
        except InputError as error:
            return str(error)

    def write(self) -> str | None:
        """Write the file.

        Returns:
            Why the clip cannot be used, or None.

        Raises:
            InputError: If the cache cannot be written.
        """
        tensors = self.tensors()
        if isinstance(tensors, str):
            return tensors
        store.write(self.target, tensors)
        return None


def run(entries: Sequence[Entry], workers: int) -> Iterator[str | None]:
    """Write entries in parallel processes.

    Args:
        entries: In any order.
        workers: Processes; one thread of OpenCV each. What is computed does not depend on their number.

    Returns:
        The outcome of each, in order: why its clip cannot be used, or None.

    Raises:
        InputError: As ``spread``.
    """
    return spread(Entry.write, entries, workers)


def spread(function: Callable[[Entry], Outcome], entries: Sequence[Entry], workers: int) -> Iterator[Outcome]:
    """Call a function with each of many entries in parallel processes.

    Args:
        function: A method of ``Entry``.
        entries: In any order.
        workers: Processes; one thread of OpenCV each.

    Yields:
        What it returned, in order.

    Raises:
        InputError: If the cache cannot be written, or a process dies twice over one clip.
    """
    count = max(1, min(workers, len(entries)))
    done: dict[int, Outcome] = {}
    following = 0
    jobs = [(entry,) for entry in entries]
    with closing(processes.run(function, jobs, [(_begin, ())] * count)) as ended:
        for index, outcome in ended:
            if isinstance(outcome, Failure):
                raise _lost(entries[index], outcome, count)
            done[index] = outcome
            while following in done:
                yield done.pop(following)
                following += 1


def _lost(entry: Entry, failure: Failure, count: int) -> Exception:
    """What to raise for a clip whose preparation failed in ``count`` processes."""
    if not failure.expected:
        return failure.error()
    frames = entry.preparation.frames
    clip = frames[0][1] if frames else entry.target
    clip = clip.parent if frames and isinstance(clip, Path) else clip
    return InputError(
        f"{clip}: preparing this clip failed twice: {failure.reason}. If {count} processes use up the memory, run it "
        "again with fewer --workers; what is prepared is kept"
    )


def _begin() -> None:
    cv2.setNumThreads(1)

"""From the frames of a clip to what is cached of it. No torch: these processes start fast."""

import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from data_modules.cache import write
from data_modules.clips import read_image
from mer import InputError
from mer.faces import FaceFinder, alignment, crop
from mer.flow import flow_map

REVISION = 1
"""Part of every cache's digest: raised by hand when a change to alignment or cropping changes what is cached."""


@dataclass(frozen=True)
class Preparation:
    """What to compute of one clip, and where it goes.

    Attributes:
        onset: The onset frame's file.
        apex: The apex frame's file.
        target: The file in the cache.
        size: Side of the aligned crop in pixels.
        method: Optical flow, see ``mer.flow``.
    """

    onset: Path
    apex: Path
    target: Path
    size: int
    method: Literal["tvl1", "farneback", "dis"]

    def run(self) -> str | None:
        """Write the flow map of the clip.

        Returns:
            Why the clip cannot be used, or None.

        Raises:
            InputError: If the cache cannot be written.
        """
        try:
            onset, apex = read_image(self.onset), read_image(self.apex)
        except InputError as error:
            return str(error)
        landmarks = _finder().landmarks(onset)
        if landmarks is None:
            return f"{self.onset}: no face is found in the onset frame"
        transform = alignment(landmarks, self.size)
        first, second = (crop(frame, transform, self.size) for frame in (onset, apex))
        write(self.target, {"flow": flow_map(first, second, self.method)})
        return None


def run(preparations: Sequence[Preparation], workers: int) -> Iterator[str | None]:
    """Run preparations in parallel processes; yields their outcomes in order."""
    context = multiprocessing.get_context("forkserver")
    with ProcessPoolExecutor(max(1, min(workers, len(preparations))), mp_context=context) as pool:
        try:
            yield from pool.map(Preparation.run, preparations)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


@cache
def _finder() -> FaceFinder:
    return FaceFinder().__enter__()

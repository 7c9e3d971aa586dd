"""From the frames of a clip to what is cached of it. No torch: these processes start fast."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_modules.cache.store import write
from data_modules.processes import pool as processes
from data_modules.processes.pool import Failure
from data_modules.release.frame_files import read_image
from mer import InputError
from mer.flow import flow_map, grey
from mer.preprocessing import apex as apexes
from mer.preprocessing.faces import FaceFinder, alignment, centre_square, crop
from mer.preprocessing.head_motion import align_to_onset
from mer.preprocessing.opencv import cv2

REVISION = 3
"""Part of every cache's digest: raised by hand when a change to alignment, cropping, spotting or head motion changes
what is cached."""

TRIES = 5
"""Frames from the onset on in which a face is looked for."""

Outcome = TypeVar("Outcome")


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The work that puts one clip into the cache.

    Attributes:
        frames: Number and file of every frame from onset to offset, in order; the first one is the onset.
        target: The file in the cache.
        size: Side of the aligned crop in pixels.
        registered: The frames are crops of registered faces: no face is looked for, the middle square is used.
        remove_head_motion: Take the rigid motion of the head out, see ``mer.preprocessing.head_motion``.
    """

    frames: tuple[tuple[int, Path], ...]
    target: Path
    size: int
    registered: bool = False
    remove_head_motion: bool = False

    def run(self) -> str | None:
        """Write the file.

        Returns:
            Why the clip cannot be used, or None.

        Raises:
            InputError: If the cache cannot be written.
        """
        tensors = self.tensors()
        if isinstance(tensors, str):
            return tensors
        write(self.target, tensors)
        return None

    def tensors(self) -> dict[str, NDArray] | str:
        """What is cached of the clip, or why it cannot be used."""
        try:
            if len(self.frames) < 2:
                raise InputError(f"there are {len(self.frames)} frames from onset to offset; flow needs two")
            onset = read_image(self.frames[0][1])
            return self.compute(onset, None if self.registered else self._landmarks(onset))
        except InputError as error:
            return str(error)

    def compute(self, onset: NDArray[np.uint8], landmarks: NDArray[np.float32] | None) -> dict[str, NDArray]:
        """What is cached of the clip.

        Args:
            onset: The onset frame, RGB.
            landmarks: Of the face in it; None where faces are registered.

        Raises:
            InputError: If the clip cannot be used.
        """
        raise NotImplementedError

    def _landmarks(self, onset: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Landmarks in the onset frame or, where no face is seen there, in the next frame that shows one.

        The head moves little within a few frames, and an onset may be blurred.

        Raises:
            InputError: If there is no face in any of them.
        """
        for index, (_, path) in enumerate(self.frames[:TRIES]):
            try:
                image = onset if index == 0 else _read_like(onset, path)
            except InputError:
                continue  # it may not be needed
            landmarks = _finder().landmarks(image)
            if landmarks is not None:
                return landmarks
        tried = min(TRIES, len(self.frames))
        raise InputError(f"{self.frames[0][1]}: no face is found in the onset frame, nor in the {tried - 1} after it")

    def _alignment(
        self, onset: NDArray[np.uint8], landmarks: NDArray[np.float32] | None, size: int
    ) -> NDArray[np.float64]:
        if landmarks is None:
            return centre_square(onset.shape[1], onset.shape[0], size)
        return alignment(landmarks, size)

    def _follow(
        self, onset: NDArray[np.uint8], image: NDArray[np.uint8], first: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Alignment of a later frame: that of the onset, less the motion of the head if that is to be removed."""
        if not self.remove_head_motion:
            return first
        face = None if self.registered else _finder().landmarks(image)
        guesses = [] if face is None else [alignment(face, self.size)]
        return align_to_onset(grey(onset), grey(image), first, self.size, guesses=guesses)


@dataclass(frozen=True, kw_only=True)
class FlowPreparation(Preparation):
    """The flow from onset to apex, and the two frames.

    Cached are ``flow``, float32 (3, size, size); ``onset`` and ``apex``, uint8 RGB (3, size, size), the aligned faces;
    ``apex_frame``, int64 (1,), the number of the frame used. At most three frames are held at a time.

    Attributes:
        apex: Number of the apex frame, or of the nearest one that exists after the onset; None to spot it.
        method: Optical flow, see ``mer.flow``; None if ``extract_on_gpu`` computes it: then ``pair``, uint8
            (2, size, size), the two faces in grey, is in the place of ``flow``.
    """

    apex: int | None
    method: Literal["tvl1", "farneback", "dis"] | None

    def compute(self, onset: NDArray[np.uint8], landmarks: NDArray[np.float32] | None) -> dict[str, NDArray]:
        first = self._alignment(onset, landmarks, self.size)
        wanted = self.apex
        if wanted is None:
            wanted = self._spot(onset, self._alignment(onset, landmarks, apexes.SIZE))
        number, path = min(self.frames[1:], key=lambda frame: abs(frame[0] - wanted))
        apex = _read_like(onset, path)
        second = self._follow(onset, apex, first)
        crops = crop(grey(onset), first, self.size), crop(grey(apex), second, self.size, like=first)
        return {
            **({"flow": flow_map(*crops, self.method)} if self.method else {"pair": np.stack(crops)}),
            "onset": crop(onset, first, self.size).transpose(2, 0, 1),
            "apex": crop(apex, second, self.size, like=first).transpose(2, 0, 1),
            "apex_frame": np.array([number]),
        }

    def _spot(self, onset: NDArray[np.uint8], transform: NDArray[np.float64]) -> int:
        """Number of the apex frame; frames that do not open are passed over, if they are less than half.

        Raises:
            InputError: If they are half or more.
        """
        numbers, crops, faults = [self.frames[0][0]], [crop(grey(onset), transform, apexes.SIZE)], []
        for number, path in self.frames[1:]:
            try:
                crops.append(crop(grey(_read_like(onset, path)), transform, apexes.SIZE))
                numbers.append(number)
            except InputError as error:
                faults.append(error)
        if faults and 2 * len(faults) >= len(self.frames) - 1:
            raise InputError(
                f"the apex cannot be spotted: {len(faults)} of {len(self.frames)} frames do not open, as {faults[0]}"
            )
        return numbers[apexes.spot(crops)]


@dataclass(frozen=True, kw_only=True)
class FramesPreparation(Preparation):
    """Frames spread evenly from onset to offset: ``frames``, uint8 RGB (count, 3, size, size), aligned faces.

    A frame that does not open is replaced by the nearest that does, so that the clips are those that have a flow.

    Attributes:
        count: Frames to take; the first is the onset, the last the offset.
    """

    count: int

    def compute(self, onset: NDArray[np.uint8], landmarks: NDArray[np.float32] | None) -> dict[str, NDArray]:
        first = self._alignment(onset, landmarks, self.size)
        crops: dict[Path, NDArray[np.uint8]] = {self.frames[0][1]: crop(onset, first, self.size)}
        taken = []
        for wanted in np.linspace(self.frames[0][0], self.frames[-1][0], self.count):
            for _, path in sorted(self.frames, key=lambda frame: abs(frame[0] - wanted)):
                try:
                    if path not in crops:
                        image = _read_like(onset, path)
                        crops[path] = crop(image, self._follow(onset, image, first), self.size, like=first)
                except InputError:
                    continue
                taken.append(crops[path])
                break
        return {"frames": np.stack(taken).transpose(0, 3, 1, 2)}


def run(preparations: Sequence[Preparation], workers: int) -> Iterator[str | None]:
    """Run preparations in parallel processes.

    Args:
        preparations: In any order.
        workers: Processes; one thread of OpenCV each. What is computed does not depend on their number.

    Returns:
        The outcome of each, in order: why its clip cannot be used, or None.

    Raises:
        InputError: As ``spread``.
    """
    return spread(Preparation.run, preparations, workers)


def spread(
    function: Callable[[Preparation], Outcome], preparations: Sequence[Preparation], workers: int
) -> Iterator[Outcome]:
    """Call a function with each of many preparations in parallel processes.

    Args:
        function: A method of ``Preparation``.
        preparations: In any order.
        workers: Processes; one thread of OpenCV each.

    Yields:
        What it returned, in order.

    Raises:
        InputError: If the cache cannot be written, or a process dies twice over one clip.
    """
    count = max(1, min(workers, len(preparations)))
    done: dict[int, Outcome] = {}
    following = 0
    jobs = [(preparation,) for preparation in preparations]
    with closing(processes.run(function, jobs, [(_begin, ())] * count)) as ended:
        for index, outcome in ended:
            if isinstance(outcome, Failure):
                raise _lost(preparations[index], outcome, count)
            done[index] = outcome
            while following in done:
                yield done.pop(following)
                following += 1


def _lost(preparation: Preparation, failure: Failure, count: int) -> Exception:
    """What to raise for a clip whose preparation failed in ``count`` processes."""
    if not failure.expected:
        return failure.error()
    clip = preparation.frames[0][1].parent if preparation.frames else preparation.target
    return InputError(
        f"{clip}: preparing this clip failed twice: {failure.reason}. If {count} processes use up the memory, run it "
        "again with fewer --workers; what is prepared is kept"
    )


def _begin() -> None:
    cv2.setNumThreads(1)


def _read_like(onset: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """Read another frame of a clip, RGB.

    Raises:
        InputError: If it does not open or is not as large as the onset frame.
    """
    image = read_image(path)
    if image.shape[:2] != onset.shape[:2]:
        here, there = (f"{shape[1]} x {shape[0]}" for shape in (image.shape, onset.shape))
        raise InputError(f"{path}: has {here} pixels, the onset frame {there}")
    return image


@cache
def _finder() -> FaceFinder:
    return FaceFinder().__enter__()

"""From the frames of a clip to what the networks read of it. No torch: processes that only do this start fast."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from mer import InputError
from mer.flow import flow_map, grey
from mer.preprocessing import apex as apexes
from mer.preprocessing.faces import FaceFinder, alignment, centre_square, crop
from mer.preprocessing.frame_files import read_image
from mer.preprocessing.head_motion import align_to_onset
from mer.preprocessing.motion import Motion, pairs

REVISION = 3
"""Part of every cache's digest: raised by hand when a change to alignment, cropping, spotting or head motion changes
the tensors."""

TRIES = 5
"""Frames from the onset on in which a face is looked for."""


class Picture(Protocol):
    """A frame that is no file of its own."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """RGB, shape (H, W, 3)."""
        ...


Source = Path | Picture
"""Where a frame is read from: an image file, or what decodes it."""


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """A frame of a video, decoded.

    Attributes:
        video: The file.
        number: Of the frame, from 0.
        image: RGB, uint8 (H, W, 3).
    """

    video: Path
    number: int
    image: NDArray[np.uint8]

    def __str__(self) -> str:
        return f"{self.video}, frame {self.number}"


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The frames of a clip, and how tensors are made of them.

    Attributes:
        frames: Number and source of every frame from onset to offset, in order; the first one is the onset.
        size: Side of the aligned crop in pixels.
        registered: The frames are crops of registered faces: no face is looked for, the middle square is used.
        remove_head_motion: Take the rigid motion of the head out, see ``mer.preprocessing.head_motion``.
    """

    frames: tuple[tuple[int, Source], ...]
    size: int
    registered: bool = False
    remove_head_motion: bool = False

    def tensors(self) -> dict[str, NDArray]:
        """The tensors of the clip.

        Raises:
            InputError: If the clip cannot be used.
        """
        if len(self.frames) < 2:
            raise InputError(f"there are {len(self.frames)} frames from onset to offset; flow needs two")
        onset = read_frame(self.frames[0][1])
        return self.compute(onset, None if self.registered else self.landmarks(onset))

    def compute(self, onset: NDArray[np.uint8], landmarks: NDArray[np.float32] | None) -> dict[str, NDArray]:
        """The tensors of the clip.

        Args:
            onset: The onset frame, RGB.
            landmarks: Of the face in it; None where faces are registered.

        Raises:
            InputError: If the clip cannot be used.
        """
        raise NotImplementedError

    def landmarks(self, onset: NDArray[np.uint8]) -> NDArray[np.float32]:
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
            landmarks = finder().landmarks(image)
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
        face = None if self.registered else finder().landmarks(image)
        guesses = [] if face is None else [alignment(face, self.size)]
        return align_to_onset(grey(onset), grey(image), first, self.size, guesses=guesses)


@dataclass(frozen=True, kw_only=True)
class FlowPreparation(Preparation):
    """The flow from onset to apex, or between more frames, and the two frames.

    Its tensors: ``flow``, float32 (3 maps, size, size); ``onset`` and ``apex``, uint8 RGB (3, size, size), the aligned
    faces; ``apex_frame``, int64 (1,), the number of the frame used. At most three frames are held at a time.

    Attributes:
        apex: Number of the apex frame, or of the nearest one that exists after the onset; None to spot it.
        method: Optical flow, see ``mer.flow``; None if the caller computes it, in batches: then ``pairs``, uint8
            (maps, 2, size, size), two faces in grey for each map, is in the place of ``flow``.
        motion: The maps, see ``mer.preprocessing.motion``.
    """

    apex: int | None
    method: Literal["tvl1", "farneback", "dis"] | None
    motion: Motion = "apex"

    def compute(self, onset: NDArray[np.uint8], landmarks: NDArray[np.float32] | None) -> dict[str, NDArray]:
        first = self._alignment(onset, landmarks, self.size)
        place, apex = self._apex_frame(onset, landmarks)
        second = self._follow(onset, apex, first)
        crops = {0: crop(grey(onset), first, self.size), place: crop(grey(apex), second, self.size, like=first)}

        def face(frame: int, *others: int) -> NDArray[np.uint8]:
            if frame not in crops:
                try:
                    image = _read_like(onset, self.frames[frame][1])
                except InputError:
                    return face(*others)
                crops[frame] = crop(grey(image), self._follow(onset, image, first), self.size, like=first)
            return crops[frame]

        faces = [(face(*start), face(*end)) for start, end in pairs(self.motion, place, len(self.frames) - 1)]
        maps = [flow_map(start, end, self.method) for start, end in faces] if self.method else []
        return {
            **({"flow": np.concatenate(maps)} if maps else {"pairs": np.array(faces)}),
            "onset": crop(onset, first, self.size).transpose(2, 0, 1),
            "apex": crop(apex, second, self.size, like=first).transpose(2, 0, 1),
            "apex_frame": np.array([self.frames[place][0]]),
        }

    def _apex_frame(
        self, onset: NDArray[np.uint8], landmarks: NDArray[np.float32] | None
    ) -> tuple[int, NDArray[np.uint8]]:
        """Place and picture of the frame that the flow leads to."""
        wanted = self.apex
        if wanted is None:
            numbers, moved, _ = self.watch(onset, landmarks)
            wanted = numbers[apexes.spot(moved)]
        place = min(range(1, len(self.frames)), key=lambda place: abs(self.frames[place][0] - wanted))
        return place, _read_like(onset, self.frames[place][1])

    def watch(
        self, onset: NDArray[np.uint8], landmarks: NDArray[np.float32] | None, most: int | None = None
    ) -> tuple[list[int], NDArray[np.float64], list[NDArray[np.uint8]]]:
        """How far the face has moved since the onset, see ``mer.preprocessing.apex.movement``.

        Frames that do not open are passed over, if they are less than half.

        Args:
            onset: The onset frame, RGB.
            landmarks: Of the face in it; None where faces are registered.
            most: Frames to look at; the others are passed over evenly. None for all.

        Returns:
            Numbers of the n frames, the movement (n,) in pixels of a face of 128, and these faces, uint8 grey.

        Raises:
            InputError: If half of the frames or more do not open.
        """
        transform = self._alignment(onset, landmarks, apexes.SIZE)
        numbers, crops, faults = [self.frames[0][0]], [crop(grey(onset), transform, apexes.SIZE)], []
        later = self.frames[1:]
        if most is not None and len(later) > most:
            later = [later[index] for index in np.linspace(0, len(later) - 1, most).round().astype(int)]
        for number, path in later:
            try:
                crops.append(crop(grey(_read_like(onset, path)), transform, apexes.SIZE))
                numbers.append(number)
            except InputError as error:
                faults.append(error)
        if faults and 2 * len(faults) >= len(later):
            raise InputError(
                f"the apex cannot be spotted: {len(faults)} of {len(self.frames)} frames do not open, as {faults[0]}"
            )
        return numbers, apexes.movement(crops), crops


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
        crops: dict[Source, NDArray[np.uint8]] = {self.frames[0][1]: crop(onset, first, self.size)}
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


def align(frame: NDArray[np.uint8], size: int = 128, *, like: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """The face of a picture, level and at a fixed size, see ``mer.preprocessing.faces``.

    Args:
        frame: RGB (H, W, 3) or grey (H, W), uint8.
        size: Side of the aligned face in pixels.
        like: The onset frame of the clip, if this is a later one: the face is looked for there, so that only what moves
            in between differs.

    Returns:
        uint8, shape (size, size, 3) or (size, size).

    Raises:
        InputError: If there is no face.
    """
    landmarks = finder().landmarks(frame if like is None else like)
    if landmarks is None:
        raise InputError(f"no face is found in the picture of {frame.shape[1]} x {frame.shape[0]} pixels")
    return crop(frame, alignment(landmarks, size), size)


def read_frame(source: Source) -> NDArray[np.uint8]:
    """A frame of a clip, RGB.

    Raises:
        InputError: If it does not open.
    """
    return read_image(source) if isinstance(source, Path) else source.image


def _read_like(onset: NDArray[np.uint8], source: Source) -> NDArray[np.uint8]:
    """Read another frame of a clip, RGB.

    Raises:
        InputError: If it does not open or is not as large as the onset frame.
    """
    image = read_frame(source)
    if image.shape[:2] != onset.shape[:2]:
        here, there = (f"{shape[1]} x {shape[0]}" for shape in (image.shape, onset.shape))
        raise InputError(f"{source}: has {here} pixels, the onset frame {there}")
    return image


@cache
def finder() -> FaceFinder:
    """The face finder of this process, opened once."""
    return FaceFinder().__enter__()

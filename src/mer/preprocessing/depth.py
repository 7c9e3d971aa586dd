"""Depth frames beside the colour frames of a clip, and the input ``depth`` that is made of them. No torch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mer import InputError
from mer.preprocessing.clip import FlowPreparation, Source
from mer.preprocessing.faces import crop
from mer.preprocessing.frame_files import read_depth
from mer.preprocessing.opencv import cv2

MEASURED = 0.25
"""Least part of the crop that both frames have to have measured."""

FARTHEST = 4.0
"""Largest value of the input: a wall behind the head counts no more than that."""

FAINTEST = 0.05
"""Least change to divide by, in units of the relief: less is noise of the camera."""


@dataclass(frozen=True, kw_only=True)
class DepthPreparation(FlowPreparation):
    """The depth of the face at the onset, and at the apex that the flow leads to.

    Its tensor: ``depth``, float32 (3, size, size), see ``normalise``. The depth frames are aligned with the colour
    frames; both are cropped with one transform, which the colour frames give.
    """

    method: None = None

    def compute(self, onset: NDArray[np.uint8], landmarks: NDArray[np.float32] | None) -> dict[str, NDArray]:
        first = self._alignment(onset, landmarks, self.size)
        place, apex = self._apex_frame(onset, landmarks)
        second = self._follow(onset, apex, first)
        crops = [
            crop_depth(_read_beside(self.frames[frame][1], onset), transform, self.size, first)
            for frame, transform in ((0, first), (place, second))
        ]
        if np.isfinite(crops[0] + crops[1]).mean() < MEASURED:
            raise InputError(
                f"{self.frames[place][1]}: less than {MEASURED:.0%} of the face has a depth, here and at the onset"
            )
        return {"depth": normalise(*crops)}


def find_depth(colour: Path) -> Path | None:
    """The depth frame of a colour frame: of the same name, in a folder ``depth`` beside; None if there is none.

    It is ``a/depth/355.png`` for ``a/color/355.jpg``, ``depth/clip/355.png`` for ``frame/clip/355.jpg``.
    """
    folder, name = colour.parent, f"{colour.stem}.png"
    places = folder.parent / "depth" / name, folder.parent.parent / "depth" / folder.name / name
    return next((place for place in places if place.is_file()), None)


def crop_depth(
    depth: NDArray[np.uint16], transform: NDArray[np.float64], size: int, like: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Resample a depth frame as ``crop`` does a picture, in the camera's unit; nan where it is mostly not measured."""
    maps = (depth.astype(np.float32), (depth > 0).astype(np.float32))
    distance, measured = (crop(m, transform, size, like=like, interpolation=cv2.INTER_LINEAR) for m in maps)
    return np.where(measured > 0.5, distance / np.maximum(measured, 0.5), np.nan).astype(np.float32)


def normalise(onset: NDArray[np.float32], apex: NDArray[np.float32]) -> NDArray[np.float32]:
    """The input ``depth`` from two crops (S, S) of one clip; no unit, and nothing of other clips.

    The relief at the onset and at the apex: distances from the onset's median, divided by the median of their sizes.
    Then the change between them, less its own median, as the head moves, divided by the 95th percentile of its size.

    Returns:
        float32 (3, S, S), at most ``FARTHEST`` on either side of 0; 0 where a crop is nan.
    """
    distance = np.stack([onset, apex]) - np.nanmedian(onset)
    distance = distance / max(np.nanmedian(np.abs(distance[0])), 1)
    change = distance[1] - distance[0]
    change = change - np.nanmedian(change)
    change = change / max(np.nanpercentile(np.abs(change), 95), FAINTEST)
    maps = np.nan_to_num(np.concatenate([distance, change[None]]))
    return maps.clip(-FARTHEST, FARTHEST).astype(np.float32)


def _read_beside(source: Source, colour: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Read the depth frame of a colour frame.

    Raises:
        InputError: If there is none, or it is not as large as the colour frame.
    """
    file = find_depth(source) if isinstance(source, Path) else None
    if file is None:
        raise InputError(f"{source}: has no depth frame, of the same name in a folder depth/ beside that of the frames")
    depth = read_depth(file)
    if depth.shape != colour.shape[:2]:
        here, there = (f"{shape[1]} x {shape[0]}" for shape in (depth.shape, colour.shape))
        raise InputError(f"{file}: has {here} pixels, the colour frame {there}")
    return depth

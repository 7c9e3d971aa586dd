"""Spotting the apex: the frame of a clip in which the face has moved furthest from what it was at the onset.

It sees nothing but the frames, so it can stand in where a database has no apex (SMIC) or a sheet's apex cannot be.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mer.flow import optical_flow
from mer.preprocessing.faces import crop
from mer.preprocessing.head_motion import ROUNDS, compose, displacement, fit, inverse, reach, still_parts

SIZE = 128
"""Side in pixels of the crops to look at, whatever the size that flow is stored at."""

SMOOTHING = 0.03
"""Standard deviation of the smoothing over time, as a part of the number of frames."""


def spot(crops: Sequence[NDArray[np.uint8]]) -> int:
    """Finds the frame with the strongest motion of the face against the first one, smoothed over time.

    Args:
        crops: Aligned crops of a clip in order, the onset first: uint8 grey, each of shape (S, S).

    Returns:
        Index of the apex, 1 or more: the onset is never its own apex. The earliest one where several are equal.

    Raises:
        ValueError: If there are fewer than two crops.
    """
    if len(crops) < 2:
        raise ValueError(f"an apex is spotted among at least two frames, not {len(crops)}")
    return 1 + int(np.argmax(_smooth(movement(crops)[1:], SMOOTHING * len(crops))))


def movement(crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """How far the face has moved since the first frame, apart from the head as a whole.

    Farnebäck's flow from the first frame to each of the others, less the similarity that the still parts of the face
    follow, as its mean magnitude around brows, nose, cheeks and mouth. The eyes themselves are left out, because a
    blink moves further than any micro-expression.

    Args:
        crops: As for ``spot``.

    Returns:
        Pixels of the crop, shape (len(crops),), the first 0.
    """
    size = crops[0].shape[0]
    still, speaking = still_parts(size), _speaking_parts(size)
    moved = np.zeros(len(crops))
    head = np.eye(2, 3)
    for index, later in enumerate(crops[1:], start=1):
        # The head is now about where it was a frame ago; where it has jumped, it is followed first.
        for _ in range(ROUNDS):
            flow = optical_flow(crops[0], crop(later, inverse(head), size, like=np.eye(2, 3)), "farneback")
            step = fit(flow, still)
            head = compose(head, step)
            apart = np.hypot(*(flow - displacement(step, size)))
            if reach(step, size) < 0.5:
                break
        moved[index] = apart[speaking].mean()
    return moved


@lru_cache(maxsize=4)
def _speaking_parts(size: int) -> NDArray[np.bool_]:
    """The parts of an aligned crop that expressions move: brows, nose, cheeks and mouth, without the eyes."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    side = np.abs(x - 0.5)
    face = (side / 0.46) ** 2 + ((y - 0.45) / 0.62) ** 2 < 1
    brows = (side < 0.34) & (y >= 0.10) & (y < 0.40)
    eyes = (side >= 0.09) & (side < 0.28) & (y >= 0.27) & (y < 0.36)
    mouth = (side < 0.32) & (y >= 0.38) & (y < 0.98)
    return face & (brows | mouth) & ~eyes


def _smooth(values: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Gaussian smoothing; beyond its ends a series goes on with its last value."""
    beyond = int(4 * deviation) + 1
    kernel = np.exp(-0.5 * (np.arange(-beyond, beyond + 1) / deviation) ** 2)
    smooth = np.convolve(np.pad(values, beyond, mode="edge"), kernel / kernel.sum(), mode="valid")
    return np.asarray(smooth, np.float64)

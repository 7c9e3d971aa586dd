"""Spotting the apex: the frame of a clip in which the face has moved furthest from its state at the onset.

It reads only the frames, so it serves where a database has no apex (SMIC) or the apex in a sheet is impossible.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mer.flow import optical_flow
from mer.preprocessing.faces import crop
from mer.preprocessing.head_motion import ROUNDS, compose, displacement, fit, inverse, max_corner_shift, still_parts

SIZE = 128
"""Side in pixels of the crops in which the apex is spotted, for any size at which flow is stored."""

SMOOTHING = 0.03
"""Standard deviation of the smoothing over time, as a part of the number of frames."""


def spot(movement: NDArray[np.float64]) -> int:
    """Finds the frame with the strongest motion of the face against the first one, smoothed over time.

    Args:
        movement: Of a clip's frames in order, the onset first, shape (n,); see the function of this name.

    Returns:
        Index of the apex, 1 or more: the onset is never its own apex. The earliest one where several are equal.

    Raises:
        ValueError: If there are fewer than two frames.
    """
    if len(movement) < 2:
        raise ValueError(f"an apex is spotted among at least two frames, not {len(movement)}")
    return 1 + int(np.argmax(_smooth(movement[1:], SMOOTHING * len(movement))))


def movement(crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """How far the face has moved since the first frame, without the motion of the head.

    Mean magnitude of Farnebäck's flow from the first frame to each of the others, less the similarity fitted to the
    still parts of the face, around brows, nose, cheeks and mouth. The eyes are left out, because a blink moves further
    than any micro-expression.

    Args:
        crops: Aligned crops of a clip in order, the onset first: uint8 grey, each of shape (S, S).

    Returns:
        Pixels of the crop, shape (len(crops),), the first 0.
    """
    size = crops[0].shape[0]
    still, expressive = still_parts(size), _expressive_region(size)
    moved = np.zeros(len(crops))
    head = np.eye(2, 3)
    for index, later in enumerate(crops[1:], start=1):
        # The head is about where it was a frame ago; if it has jumped, further rounds follow it.
        for _ in range(ROUNDS):
            flow = optical_flow(crops[0], crop(later, inverse(head), size, like=np.eye(2, 3)), "farneback")
            step = fit(flow, still)
            head = compose(head, step)
            apart = np.hypot(*(flow - displacement(step, size)))
            if max_corner_shift(step, size) < 0.5:
                break
        moved[index] = apart[expressive].mean()
    return moved


@lru_cache(maxsize=4)
def _expressive_region(size: int) -> NDArray[np.bool_]:
    """Pixels of an aligned crop that expressions move: brows, nose, cheeks and mouth, without the eyes."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    side = np.abs(x - 0.5)
    face = (side / 0.46) ** 2 + ((y - 0.45) / 0.62) ** 2 < 1
    brows = (side < 0.34) & (y >= 0.10) & (y < 0.40)
    eyes = (side >= 0.09) & (side < 0.28) & (y >= 0.27) & (y < 0.36)
    mouth = (side < 0.32) & (y >= 0.38) & (y < 0.98)
    return face & (brows | mouth) & ~eyes


def _smooth(values: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Gaussian smoothing; the first and last value are repeated beyond the ends."""
    beyond = int(4 * deviation) + 1
    kernel = np.exp(-0.5 * (np.arange(-beyond, beyond + 1) / deviation) ** 2)
    smooth = np.convolve(np.pad(values, beyond, mode="edge"), kernel / kernel.sum(), mode="valid")
    return np.asarray(smooth, np.float64)

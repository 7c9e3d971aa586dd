"""What a depth camera sees of a synthetic face: a head before a wall, in millimetres."""

import numpy as np
from numpy.typing import NDArray

from mer.preprocessing.faces import EYE_DISTANCE, EYE_HEIGHT
from mer.preprocessing.opencv import cv2

WALL, TORSO, HEAD = 1500, 780, 700  # mm from the camera; the last is the plane of the ears
FACE, NOSE = 90, 25  # mm that the face stands out of the head, the nose out of the face
GRAIN = 2  # pixels of the frame to one of the camera, in both directions: files are small, too
SHADOW = 0.15  # eye distances left of the head, where the wall is seen by the lens and not lit by the projector: 0


def relief(transform: NDArray[np.float64], x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Distances of what is at these points of the calm face.

    Args:
        transform: Alignment of the face to a crop of 128 px, shape (2, 3), see ``mer.preprocessing.faces.alignment``.
        x: Points in pixels of the image, to the right, shape (H, W).
        y: Likewise, down.

    Returns:
        Millimetres (H, W); 0 where nothing is measured.
    """
    (a, b, right), (c, d, down) = (transform / (128 * EYE_DISTANCE)).astype(np.float32)
    height, width = x.shape
    x, y = x[::GRAIN, ::GRAIN], y[::GRAIN, ::GRAIN]
    # From between the eyes, in eye distances, to the right and down in the face.
    across = a * x + b * y + (right - np.float32(0.5 / EYE_DISTANCE))
    along = c * x + d * y + (down - np.float32(EYE_HEIGHT / EYE_DISTANCE))
    middle = 1 - ((along + 0.2) / 1.85) ** 2
    inside = middle - (across / 1.5) ** 2
    distance = np.where((along > 1.6) & (np.abs(across) < 0.6 + 0.9 * (along - 1.6)), TORSO, WALL)
    distance = np.where(middle - ((across + SHADOW) / 1.5) ** 2 > 0, 0, distance)
    nose = NOSE * np.exp(-((across / 0.18) ** 2) - ((along - 0.65) / 0.3) ** 2)
    distance = np.where(inside > 0, HEAD - FACE * np.sqrt(inside.clip(0)) - nose, distance).round().astype(np.uint16)
    return distance.repeat(GRAIN, 0).repeat(GRAIN, 1)[:height, :width]


def encode(millimetres: NDArray[np.uint16]) -> bytes:
    """A depth frame as a PNG of 16 bits."""
    done, data = cv2.imencode(".png", millimetres, (cv2.IMWRITE_PNG_COMPRESSION, 6))
    assert done
    return data.tobytes()

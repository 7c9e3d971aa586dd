"""Faces: MediaPipe landmarks, one similarity transform per clip, aligned crops.

A clip is aligned once, on its onset frame, and all its frames are cropped with that transform, so that the alignment
adds no motion between two crops.

    with FaceFinder() as finder:
        landmarks = finder.landmarks(frames[0])
    transform = alignment(landmarks, size=128)  # or centre_square for registered faces
    crops = [crop(frame, transform, 128) for frame in frames]
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mer import InputError
from mer.preprocessing.opencv import cv2

# Contours of the eyes in MediaPipe's face mesh, as seen in the image: the subject's right eye is on the left.
# Sixteen points each, so that the noise of one landmark (about half a pixel) hardly moves the centre.
LEFT_IN_IMAGE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_IN_IMAGE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)

# Where the eyes lie in the crop, as fractions of its side: with these, raised brows and a long chin stay inside.
EYE_DISTANCE = 0.36
EYE_HEIGHT = 0.31

_LANDMARKS = 478

Value = TypeVar("Value", np.uint8, np.float32)


@contextmanager
def silence() -> Iterator[None]:
    """Discards what is written to file descriptor 2 inside the block: no setting stops MediaPipe's C++ warnings."""
    if sys.stderr is not None:
        sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


class FaceFinder:
    """Finds the 478 landmarks of the one face in an image (MediaPipe Face Mesh, Kartynnik et al., CVPRW 2019).

    There is no tracking, so the result does not depend on earlier images. Opening takes about two seconds, an image
    about 10 ms. Use it as a context manager, one in each process; what MediaPipe writes on standard error while it
    opens and closes is discarded.

    Args:
        confidence: Lowest detection confidence in [0, 1] that counts as a face.
    """

    def __init__(self, confidence: float = 0.5) -> None:
        self.confidence = confidence
        self._mesh: Any = None

    def __enter__(self) -> Self:
        os.environ.setdefault("GLOG_minloglevel", "3")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with silence():
            from mediapipe.python.solutions.face_mesh import FaceMesh

            self._mesh = FaceMesh(
                static_image_mode=True,
                max_num_faces=1,
                refine_landmarks=True,
                min_detection_confidence=self.confidence,
            )
            # The first image also waits for the threads that load the models, and so for their warnings.
            self._mesh.process(np.zeros((32, 32, 3), np.uint8))
        return self

    def __exit__(self, *exception: object) -> None:
        mesh, self._mesh = self._mesh, None
        if mesh is not None:
            with silence():
                mesh.close()

    def landmarks(self, image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """Locates the face; where none is seen, looks again at other scales and with the borders moved.

        Args:
            image: uint8, shape (H, W, 3) RGB or (H, W) grey.

        Returns:
            Landmarks as x (right) and y (down), shape (478, 2), in pixels of ``image`` with pixel centres at whole
            numbers; they may lie outside it. None if there is no face: the caller knows which clip to name.

        Raises:
            ValueError: If ``image`` has another shape or type.
            RuntimeError: If the finder is not open (use it in a ``with`` statement).
        """
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
            raise ValueError(f"expected uint8 (H, W) or (H, W, 3), got {image.dtype} {image.shape}")
        if self._mesh is None:
            raise RuntimeError("FaceFinder is not open: use it in a with statement")
        colour = np.dstack([image] * 3) if image.ndim == 2 else image
        for view, scale, left, top in _views(colour):
            with silence():
                faces = self._mesh.process(np.ascontiguousarray(view)).multi_face_landmarks
            if faces:
                points = np.array([(point.x, point.y) for point in faces[0].landmark], dtype=np.float64)
                points *= (view.shape[1], view.shape[0])
                return (points / scale + (left - 0.5, top - 0.5)).astype(np.float32)
        return None


def eyes(landmarks: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The centres of the eyes, each the mean of its sixteen contour landmarks.

    Args:
        landmarks: Shape (478, 2), as from ``FaceFinder``.

    Returns:
        The eye on the left in the image (the subject's right) and the other one, each as (x, y).

    Raises:
        ValueError: If ``landmarks`` has another shape.
    """
    if landmarks.shape != (_LANDMARKS, 2):
        raise ValueError(f"expected landmarks of shape ({_LANDMARKS}, 2), got {landmarks.shape}")
    points = landmarks.astype(np.float64)
    return points[list(LEFT_IN_IMAGE)].mean(axis=0), points[list(RIGHT_IN_IMAGE)].mean(axis=0)


def alignment(landmarks: NDArray[np.floating], size: int = 128) -> NDArray[np.float64]:
    """The similarity transform that puts the eyes level, centred and at a fixed distance.

    Args:
        landmarks: Shape (478, 2), in pixels of the image, as from ``FaceFinder``.
        size: Side of the square crop in pixels.

    Returns:
        Shape (2, 3), from image pixels to crop pixels: ``crop = transform @ (x, y, 1)``. The eyes come to lie
        0.36 ``size`` apart, 0.31 ``size`` below the upper edge.

    Raises:
        ValueError: If ``landmarks`` has another shape.
        InputError: If the landmarks are not finite or the eyes lie on one point.
    """
    left, right = eyes(landmarks)
    across = right - left
    distance = float(np.hypot(*across))
    if not np.isfinite(distance) or distance < 1e-6:
        raise InputError("face landmarks: the two eyes have no distance, so the face cannot be aligned; leave it out")
    cosine, sine = across * (EYE_DISTANCE * size / distance**2)
    turn = np.array([[cosine, sine], [-sine, cosine]])
    target = np.array([0.5, EYE_HEIGHT]) * size - 0.5
    return np.column_stack([turn, target - turn @ ((left + right) / 2)])


def centre_square(width: int, height: int, size: int = 128) -> NDArray[np.float64]:
    """The transform that cuts the largest square from the middle of an image, for faces that are already registered.

    Args:
        width: Of the image in pixels.
        height: Of the image in pixels.
        size: Side of the square crop in pixels.

    Returns:
        Shape (2, 3), from image pixels to crop pixels, as from ``alignment``.
    """
    scale = size / min(width, height)
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    return np.column_stack([np.eye(2) * scale, (size - 1) / 2 - scale * middle])


def crop(
    image: NDArray[Value],
    transform: NDArray[np.float64],
    size: int = 128,
    *,
    like: NDArray[np.float64] | None = None,
    interpolation: int = cv2.INTER_CUBIC,
) -> NDArray[Value]:
    """Resamples an image through an alignment: bicubic if it is enlarged, averaged over pixels if it is reduced.

    Args:
        image: uint8 or float32, shape (H, W, 3) or (H, W).
        transform: Shape (2, 3), from image pixels to crop pixels.
        size: Side of the crop in pixels.
        like: Another transform, of the crop that this one will be compared with: both are averaged over the same number
            of samples, and so are equally sharp.
        interpolation: In place of OpenCV's bicubic one.

    Returns:
        The same type, shape (size, size, 3) or (size, size). Outside the image the colour of its edge is repeated.
    """
    # A crop that reduces the face is made larger by a whole factor first and then averaged down, against aliasing.
    scale = np.sqrt(abs(np.linalg.det((transform if like is None else like)[:, :2])))
    factor = int(np.ceil(1 / scale - 1e-6)) if scale < 1 else 1
    larger = transform * factor
    larger[:, 2] += (factor - 1) / 2  # pixel centres are at whole numbers
    drawn = cv2.warpAffine(
        image, larger, (size * factor, size * factor), flags=interpolation, borderMode=cv2.BORDER_REPLICATE
    )
    if factor > 1:
        drawn = cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(drawn, image.dtype)


def _views(image: NDArray[np.uint8]) -> Iterator[tuple[NDArray, float, float, float]]:
    """The image itself, then other cuts and scales of it: (view, scale, left, top)."""
    height, width = image.shape[:2]
    yield image, 1.0, 0.0, 0.0
    # In a tight crop the face is found only with a border around it.
    border = max(height, width) // 2
    yield cv2.copyMakeBorder(image, border, border, border, border, cv2.BORDER_REPLICATE), 1.0, -border, -border
    for scale in (2.0, 0.5):
        if min(height, width) * scale >= 64 and max(height, width) * scale <= 4096:
            interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
            yield cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation), scale, 0.0, 0.0
    # A small face in a large image: the middle, then the four overlapping quarters.
    if min(height, width) >= 64:
        for top, left in ((0.25, 0.25), (0.0, 0.0), (0.0, 0.5), (0.5, 0.0), (0.5, 0.5)):
            y, x = int(top * height), int(left * width)
            part = image[y : y + height // 2, x : x + width // 2]
            yield cv2.resize(part, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), 2.0, x, y

"""A synthetic face to move about, photographed with a camera's noise; made once per test process."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from data_modules.synthesis.action_units import Field
from data_modules.synthesis.filming import Camera
from data_modules.synthesis.portraits import Subject
from mer.preprocessing.faces import FaceFinder, alignment, eyes

SIZE = (640, 480)


@dataclass
class Studio:
    """A calm face, its landmarks and alignment, and a camera."""

    neutral: np.ndarray
    camera: Camera
    onset: np.ndarray
    landmarks: np.ndarray
    transform: np.ndarray
    finder: FaceFinder

    def shoot(self, motion=None, expression=None) -> np.ndarray:
        """A grey photograph of the face after an expression (dx, dy in px) and then a motion, shape (2, 3)."""
        image = self.neutral
        if expression is not None:
            x, y = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in SIZE))
            maps = (x - expression[0]).astype(np.float32), (y - expression[1]).astype(np.float32)
            image = cv2.remap(image, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        if motion is not None:
            image = cv2.warpAffine(image, motion, SIZE, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return cv2.imdecode(self.camera.shoot(image), cv2.IMREAD_GRAYSCALE)

    def similarity(self, scale: float, degrees: float, right: float, down: float) -> np.ndarray:
        """A motion about the middle of the face; ``right`` and ``down`` in px of the frame."""
        middle = np.mean(eyes(self.landmarks), axis=0) + (0, 40)
        angle = np.deg2rad(degrees)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return np.column_stack([turn, middle + (right, down) - turn @ middle])

    def expression(self, *units: int, peak: float = 1.2) -> np.ndarray:
        """Displacement (2, H, W) of action units in px of the frame; ``peak`` in px of a crop of 128."""
        field = Field([("", unit, 1.0) for unit in units], self.landmarks)
        moved = np.stack(field(*np.meshgrid(*(np.arange(n, dtype=np.float64) for n in SIZE))))
        return moved * (peak / np.hypot(*self.transform[0, :2]) / np.hypot(*moved).max())


@pytest.fixture(scope="session")
def studio():
    generator = np.random.default_rng(4)
    neutral = Subject(generator, SIZE).neutral(generator)
    camera = Camera(generator, SIZE)
    onset = cv2.imdecode(camera.shoot(neutral), cv2.IMREAD_GRAYSCALE)
    with FaceFinder() as finder:
        landmarks = finder.landmarks(onset)
        yield Studio(neutral, camera, onset, landmarks, alignment(landmarks), finder)

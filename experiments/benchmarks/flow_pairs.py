"""Pairs of aligned face crops with a known flow, to measure methods of optical flow."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from data_modules.synthesis.action_units import ACTION_UNITS, Field
from data_modules.synthesis.filming import Camera, Sway, true_flow
from data_modules.synthesis.layouts.layout import stream
from data_modules.synthesis.portraits import Subject
from mer.preprocessing.faces import FaceFinder, alignment, crop
from mer.preprocessing.opencv import cv2

FRAME = (640, 480)
STEPS = 20  # frames from onset to apex, over which the head sways


def film(number: int, size: int = 224, peak: float | None = None) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Film one onset-apex pair of a synthetic face.

    Args:
        number: Number of the pair, which draws its person, expression and sway of the head.
        size: Side of the crop in pixels.
        peak: Largest displacement of the expression in pixels of the crop; None draws one from 0.3 to 2.

    Returns:
        Onset and apex, grey, uint8 (2, size, size); the true flow of each pixel of the onset crop, float32
        (2, size, size), u right and v down in pixels of the crop.
    """
    draws = stream(0, number, "pair")
    neutral = Subject(draws, FRAME).neutral(draws)
    camera = Camera(draws, FRAME)
    onset = cv2.imdecode(camera.shoot(neutral), cv2.IMREAD_COLOR_RGB)
    landmarks = _finder().landmarks(onset)
    assert landmarks is not None
    transform = alignment(landmarks, size)
    scale = float(np.hypot(*transform[0, :2]))
    units = draws.choice(list(ACTION_UNITS), 2, replace=False)
    field = Field([("", int(unit), 1.0) for unit in units], landmarks)
    centre = np.linalg.solve(transform[:, :2], (size / 2, size / 2) - transform[:, 2])
    sway = Sway(draws, STEPS + 1, centre, field.eye_distance, 1 / scale)
    x, y = np.meshgrid(*(np.arange(side, dtype=np.float32) for side in FRAME))
    peak = draws.uniform(0.3, 2.0) if peak is None else peak
    field.gain = peak / scale / float(np.hypot(*field(x, y)).max())
    dx, dy = field(x, y)
    maps = sway.back(x - dx, y - dy, STEPS)
    apex = cv2.remap(neutral, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    shots = [cv2.imdecode(shot, cv2.IMREAD_GRAYSCALE) for shot in (camera.shoot(neutral), camera.shoot(apex))]
    truth, _ = true_flow(transform, field, sway, STEPS, size)
    return np.stack([crop(shot, transform, size) for shot in shots]), truth.astype(np.float32)


@cache
def _finder() -> FaceFinder:
    return FaceFinder().__enter__()

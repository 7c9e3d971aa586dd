"""One portrait, many subjects: other proportions, hair, skin and light, before a plain wall."""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mer.preprocessing.faces import FaceFinder, eyes, silence
from mer.preprocessing.opencv import cv2

Image = NDArray[np.float32]

# Drawn by hand on the portrait, in its pixels. The head ends at the neck: what is left of the space suit below it is
# replaced by a plain dark jumper.
_SUIT = (
    (0, 134), (177, 134), (183, 136), (184, 150), (185, 165), (187, 190), (181, 300), (330, 300), (259, 215),
    (253, 187), (253, 176), (256, 166), (259, 158), (263, 150), (266, 143), (269, 136), (276, 138), (511, 138),
    (511, 300), (0, 300),
)  # fmt: skip
_JUMPER = (
    (187, 177), (178, 205), (150, 222), (100, 238), (62, 270), (50, 300), (395, 300), (380, 272), (340, 240),
    (290, 224), (264, 207), (254, 183), (225, 190),
)  # fmt: skip
_SKIN = (
    (182, 132), (182, 92), (186, 76), (205, 80), (232, 80), (262, 90), (269, 96), (270, 128), (282, 132),
    (272, 150), (262, 195), (182, 195), (168, 130), (176, 118),
)  # fmt: skip

# Factors on red, green and blue that turn the portrait's fair hair into other hair.
_HAIR = (
    (0.30, 0.29, 0.33),
    (0.42, 0.36, 0.36),
    (0.55, 0.46, 0.42),
    (0.72, 0.60, 0.50),
    (0.95, 0.88, 0.80),
    (0.36, 0.30, 0.30),
)

# The portrait smiles. Its mouth corners are drawn in and down by this much (in eye distances) for a calmer face.
_CALM = (0.035, 0.08)

EYE_HEIGHT = 0.425  # of the frame's height
EYE_DISTANCE = 0.19  # of the frame's height


class _Portrait(NamedTuple):
    colour: Image  # (300, 512, 3) in [0, 1], the jumper included
    person: Image  # (300, 512) in [0, 1]
    hair: Image  # (300, 512) in [0, 1]
    centre: NDArray[np.float64]  # between the eyes, px
    eye_distance: float  # px


@lru_cache(maxsize=1)
def _portrait() -> _Portrait:
    from skimage.data import astronaut

    image = astronaut()
    with FaceFinder() as finder:
        landmarks = finder.landmarks(image)
    assert landmarks is not None, "MediaPipe does not see the astronaut's face"
    with silence():
        from mediapipe.python.solutions.selfie_segmentation import SelfieSegmentation

        with SelfieSegmentation(model_selection=0) as segmentation:
            result: Any = segmentation.process(image)
            mask = result.segmentation_mask[:300]
    left, right = eyes(landmarks)
    colour = image[:300].astype(np.float32) / 255
    # The soft rim of the mask shows the old background: only its inner part counts.
    head = np.clip((mask - 0.6) / 0.38, 0, 1) * (1 - _area(_SUIT, 1.0))
    jumper = _area(_JUMPER, 0.9)
    folds = np.random.default_rng(0).normal(size=colour.shape[:2]).astype(np.float32)
    cloth = 0.055 + 0.10 * cv2.GaussianBlur(folds, (0, 0), 9) + 0.010 * cv2.GaussianBlur(folds, (0, 0), 1)
    head *= 1 - np.clip((np.arange(300, dtype=np.float32)[:, None] - 192) / 18, 0, 1)
    colour = colour * head[..., None] + cloth[..., None] * (1 - head[..., None])
    hair = head * (1 - _area(_SKIN, 1.8))
    return _Portrait(colour, np.maximum(head, jumper), hair, (left + right) / 2, float(np.hypot(*(right - left))))


def _area(corners: tuple[tuple[int, int], ...], softness: float) -> Image:
    mask = np.zeros((300, 512), np.float32)
    cv2.fillPoly(mask, [np.array(corners, np.int32)], (1.0,))
    return cv2.GaussianBlur(mask, (0, 0), softness).astype(np.float32)


class Subject:
    """The look of one synthetic person, with background and light.

    Args:
        generator: Decides everything about the person.
        size: Width and height of the frames in pixels.
    """

    def __init__(self, generator: np.random.Generator, size: tuple[int, int]) -> None:
        self.size = size
        self.mirrored = bool(generator.random() < 0.5)
        self.stretch = 1 + generator.normal(0, (0.05, 0.045)).clip(-0.1, 0.1)
        self.bumps = _proportions(generator)
        self.hair = np.array(_HAIR[generator.integers(len(_HAIR))], np.float32) * generator.uniform(0.85, 1.15)
        darkness = generator.beta(1.2, 2.2)
        self.skin = 1 - darkness * np.array((0.38, 0.46, 0.52), np.float32) + generator.normal(0, 0.015, 3)
        self.cloth = generator.uniform(0.6, 3.0) * (1 + generator.normal(0, 0.25, 3).clip(-0.5, 0.5))
        self.wall = generator.uniform(0.42, 0.78) + generator.normal(0, 0.012, 3)
        angle = generator.uniform(0, 2 * np.pi)
        self.light = generator.uniform(0.05, 0.22) * np.array((np.cos(angle), 0.5 * np.sin(angle)))
        self.exposure = generator.uniform(0.88, 1.08)
        self.gamma = generator.uniform(0.85, 1.2)
        pores = generator.standard_normal((size[1], size[0]), dtype=np.float32)
        self.pores = cv2.GaussianBlur(pores, (0, 0), 1.1)
        self.layers = self._paint(_portrait())

    def neutral(self, generator: np.random.Generator) -> NDArray[np.uint8]:
        """Draws the calm face as it sits before the camera in one recording.

        Args:
            generator: Decides how the person sits this time and how bright it is.

        Returns:
            uint8 RGB, shape (height, width, 3), without noise.
        """
        width, height = self.size
        portrait = _portrait()
        unit = EYE_DISTANCE * height * (1 + generator.normal(0, 0.012))
        tilt = generator.normal(0, 0.014)
        seat = np.array((0.5 * width, EYE_HEIGHT * height)) + generator.normal(0, 0.011 * height, 2)
        brightness = self.exposure * (1 + generator.normal(0, 0.02))

        y, x = np.mgrid[:height, :width].astype(np.float32)
        x, y = (x - np.float32(seat[0])) / np.float32(unit), (y - np.float32(seat[1])) / np.float32(unit)
        lit = 1 + np.float32(self.light[0] / 2.5) * x + np.float32(self.light[1] / 2.5) * y
        x, y = x + np.float32(tilt) * y, y - np.float32(tilt) * x
        if self.mirrored:
            x = -x
        x, y = self._to_portrait(x, y)
        map_x = x * np.float32(portrait.eye_distance) + np.float32(portrait.centre[0])
        map_y = y * np.float32(portrait.eye_distance) + np.float32(portrait.centre[1])

        layers = cv2.remap(self.layers, map_x, map_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        person, alpha = layers[..., :3], layers[..., 3:].clip(0, 1)
        # Twice enlarged, the portrait is soft: sharpened a little, and the skin gets pores.
        person = person + 0.6 * (person - cv2.GaussianBlur(person, (0, 0), 2.0))
        unit, middle_x, middle_y = (np.float32(value) for value in (EYE_DISTANCE * height, width / 2, height / 2))
        pores = cv2.remap(
            self.pores, middle_x + unit * x, middle_y + unit * y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )
        person = person * (1 + 0.05 * pores[..., None])
        wall = self.wall.astype(np.float32) * (1 - 0.012 * (x * x + y * y))[..., None]
        image = (wall + alpha * (person - wall)) * lit[..., None] * np.float32(brightness)
        return (255 * image.clip(0, 1) ** np.float32(self.gamma)).round().astype(np.uint8)

    def _paint(self, portrait: _Portrait) -> Image:
        """The portrait with this person's hair, skin and clothes: (300, 512, 4), the last one is the mask."""
        hair = portrait.hair[..., None]
        colour = portrait.colour * (1 + hair * (self.hair - 1)) * (1 + (1 - hair) * (self.skin - 1))
        cloth = np.clip((np.arange(300) - 188) / 8, 0, 1)[:, None, None]
        colour = portrait.colour * self.cloth * cloth + colour * (1 - cloth)
        return np.dstack([colour, portrait.person]).astype(np.float32)

    def _to_portrait(self, x: Image, y: Image) -> tuple[Image, Image]:
        """From this face to the portrait's; both in eye distances from the point between the eyes."""
        dx, dy = x * np.float32(self.stretch[0] - 1), y * np.float32(self.stretch[1] - 1)
        for cx, cy, px, py, sx, sy in self.bumps:
            weight = np.exp(((x - cx) / sx) ** 2 * -0.5 + ((y - cy) / sy) ** 2 * -0.5)
            dx += weight * px
            dy += weight * py
        return x + dx, y + dy


def _proportions(generator: np.random.Generator) -> list[tuple[np.float32, ...]]:
    """Bumps (centre, shift, width) by which a face differs from the portrait, in eye distances."""

    def amount(scale: float) -> float:
        return float(np.clip(generator.normal(0, scale), -1.8 * scale, 1.8 * scale))

    sided = (  # centre, shift across (away from the midline), shift along, width
        (0.50, 0.00, amount(0.045), 0.0, 0.28, 0.25),  # eyes apart
        (0.50, -0.33, 0.0, amount(0.05), 0.40, 0.16),  # brows
        (0.25, 0.62, amount(0.045), 0.0, 0.16, 0.18),  # wings of the nose
        (0.52, 0.98, amount(0.045) + _CALM[0], -_CALM[1], 0.24, 0.18),  # mouth corners
        (0.85, 1.30, amount(0.06), 0.0, 0.35, 0.40),  # jaw
        (1.00, 0.60, amount(0.06), 0.0, 0.32, 0.35),  # cheeks
        (1.50, -0.40, amount(0.12), 0.0, 0.50, 0.70),  # hair
    )
    middle = (
        (0.0, 0.65, 0.0, amount(0.06), 0.32, 0.28),  # length of the nose
        (0.0, 1.00, 0.0, amount(0.05), 0.50, 0.22),  # height of the mouth
        (0.0, 1.75, 0.0, amount(0.07), 0.60, 0.32),  # chin
        (0.0, -1.70, 0.0, amount(0.20), 1.20, 0.60),  # hair
    )
    uneven = tuple(
        (generator.uniform(-1, 1), generator.uniform(-0.5, 1.8), amount(0.02), amount(0.02), 0.4, 0.4) for _ in range(6)
    )
    mirrored = tuple((-cx, cy, -px, py, sx, sy) for cx, cy, px, py, sx, sy in sided)
    return [tuple(np.float32(value) for value in bump) for bump in (*sided, *mirrored, *middle, *uneven)]

"""Facial action units as smooth displacement fields, and the emotions that they make up.

An action unit (Ekman and Friesen, Facial Action Coding System, 1978) is a sum of Gaussian bumps. Each sits at a
landmark of MediaPipe's face mesh and pushes the skin in one direction. Directions and widths are in units of the
distance between the eyes, in the face's own axes: ``out`` away from the midline, ``down`` towards the chin.
"""

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mer.preprocessing.faces import eyes


class Bump(NamedTuple):
    """One Gaussian push of the skin.

    Attributes:
        right: Landmark on the subject's right, which is on the left in the image.
        left: Its mirror image; None for a bump on the midline.
        out: Push away from the midline (on the midline: 0).
        down: Push towards the chin.
        across: Width (standard deviation) across the face, in eye distances.
        along: Width along the face, in eye distances.
    """

    right: int
    left: int | None
    out: float
    down: float
    across: float
    along: float


ACTION_UNITS: dict[int, tuple[Bump, ...]] = {
    # inner brow raiser
    1: (Bump(107, 336, 0.05, -1.0, 0.20, 0.20), Bump(108, 337, 0.0, -0.45, 0.22, 0.22)),
    # outer brow raiser
    2: (Bump(70, 300, 0.10, -1.0, 0.24, 0.20), Bump(105, 334, 0.0, -0.5, 0.2, 0.2), Bump(71, 301, 0, -0.3, 0.2, 0.2)),
    # brow lowerer
    4: (Bump(55, 285, -0.55, 0.85, 0.20, 0.20), Bump(105, 334, -0.25, 0.5, 0.22, 0.2), Bump(9, None, 0, 0.4, 0.2, 0.2)),
    # upper lid raiser
    5: (Bump(159, 386, 0.0, -1.0, 0.17, 0.09),),
    # cheek raiser
    6: (
        Bump(50, 280, 0.05, -0.8, 0.28, 0.20),
        Bump(130, 359, -0.45, 0.0, 0.13, 0.13),
        Bump(145, 374, 0, -0.5, 0.2, 0.1),
    ),
    # lid tightener
    7: (Bump(145, 374, -0.1, -1.1, 0.19, 0.11), Bump(159, 386, 0.0, 0.7, 0.17, 0.09)),
    # nose wrinkler
    9: (
        Bump(49, 279, 0.05, -1.0, 0.16, 0.20),
        Bump(193, 417, -0.15, 0.45, 0.15, 0.15),
        Bump(37, 267, 0, -0.4, 0.2, 0.12),
    ),
    # upper lip raiser
    10: (Bump(39, 269, 0.05, -1.0, 0.18, 0.12), Bump(203, 423, 0.15, -0.6, 0.17, 0.17)),
    # lip corner puller
    12: (Bump(61, 291, 0.75, -0.75, 0.20, 0.19), Bump(205, 425, 0.3, -0.6, 0.24, 0.22)),
    # dimpler
    14: (Bump(61, 291, 0.8, 0.05, 0.15, 0.16), Bump(214, 434, -0.6, 0.05, 0.16, 0.2)),
    # lip corner depressor
    15: (Bump(61, 291, 0.15, 1.0, 0.19, 0.18), Bump(210, 430, 0.1, 0.5, 0.2, 0.2)),
    # chin raiser
    17: (Bump(199, None, 0.0, -1.0, 0.30, 0.20), Bump(17, None, 0.0, -0.55, 0.28, 0.12)),
    # lip stretcher
    20: (Bump(61, 291, 1.0, 0.25, 0.22, 0.18),),
    # lip presser
    24: (
        Bump(0, None, 0.0, 0.8, 0.26, 0.11),
        Bump(17, None, 0.0, -0.8, 0.26, 0.12),
        Bump(61, 291, -0.4, 0.0, 0.13, 0.13),
    ),
    # lips part
    25: (Bump(17, None, 0.0, 0.9, 0.26, 0.13), Bump(199, None, 0.0, 0.5, 0.28, 0.2), Bump(0, None, 0, -0.2, 0.25, 0.1)),
}

# What CASME II's coders wrote for each emotion (Yan et al., PLoS ONE 2014), with how often each is drawn here. The
# pairs that the real tables give to two emotions alike (4, 4+7, 14, 15 or 17) are each left to one of them.
EMOTIONS: dict[str, dict[str, int]] = {
    "happiness": {"12": 5, "6+12": 5, "L12": 2, "R12": 2, "6+12+25": 1},
    "surprise": {"1+2": 5, "2": 1, "L1+L2": 1, "R1+R2": 1, "1+2+25": 2, "1+2+5": 2},
    "disgust": {"4+9": 3, "9": 3, "10": 3, "4+7": 1, "4+7+9": 4, "4+9+10": 2, "4+L10": 1, "R10": 1},
    "repression": {"17": 4, "15": 3, "15+17": 4, "L15": 1},
    "others": {"4": 6, "14": 2, "L14": 1, "R14": 1, "24": 2, "20": 1, "4+24": 1},
}

# The same for the other datasets' labels. SAMM's last three emotions are rare there.
SAMM_EMOTIONS: dict[str, dict[str, int]] = {
    "anger": {"4+7": 5, "4": 4, "7": 2, "4+5": 1, "L4+7": 1},
    "happiness": {"12": 5, "6+12": 4, "L12": 1, "R12": 2, "6+7+12": 1, "R12+25": 1},
    "contempt": {"R14": 3, "L14": 3, "14": 2, "L10+14": 1},
    "surprise": {"1+2": 5, "1+2+5": 2, "1+2+25": 1, "L1+L2": 1},
    "other": {"24": 3, "17": 3, "20": 2, "17+24": 2},
    "disgust": {"9": 2, "10": 2, "4+9": 2, "9+10": 1},
    "fear": {"20+25": 1, "1+20": 1, "5+20": 1},
    "sadness": {"15": 2, "15+17": 2, "1+15": 1},
}
SMIC_EMOTIONS: dict[str, dict[str, int]] = {
    "negative": {"4": 4, "4+7": 3, "4+9": 2, "9": 1, "10": 1, "15": 1, "15+17": 1},
    "positive": {"12": 5, "6+12": 5, "L12": 1, "R12": 1, "6+12+25": 1},
    "surprise": {"1+2": 5, "2": 1, "L1+L2": 1, "R1+R2": 1, "1+2+25": 2, "1+2+5": 2},
}
CASME3_EMOTIONS: dict[str, dict[str, int]] = {
    "disgust": {"9": 3, "10": 3, "4+9": 3, "9+10": 2, "R10": 1},
    "surprise": {"1+2": 5, "1+2+5": 2, "2": 1, "R1+R2": 1, "1+2+25": 1},
    "others": {"14": 3, "L14": 2, "R14": 2, "24": 3, "14+24": 1},
    "fear": {"20": 4, "20+25": 3, "5+20": 2},
    "anger": {"4": 5, "4+7": 5, "7": 1, "4+5": 1},
    "sad": {"15": 4, "17": 3, "15+17": 4},
    "happy": {"12": 5, "6+12": 5, "L12": 1, "R12": 1, "12+25": 1},
}

# Davison, Merghani and Yap, "Objective classes for micro-facial expression recognition", J. Imaging 2018.
_OBJECTIVE_CLASSES = (
    "6 12 6+12 6+7+12 7+12", "1+2 5 25 1+2+25 25+26 5+24", "23 4 4+7 4+5 4+5+7 17+24 4+6+7 4+38",
    "10 9 4+9 4+40 4+5+40 4+7+9 4+9+10 4+7+10", "15 1 4+15 15+17", "1+2+4 20",
)  # fmt: skip


def objective_class(code: str) -> int:
    """The objective class, 1 to 7, of a coder's entry; sides do not count."""
    units = "+".join(str(unit) for unit in sorted({unit for _, unit in parse(code)}))
    return next((i for i, codes in enumerate(_OBJECTIVE_CLASSES, start=1) if units in codes.split()), 7)


def parse(code: str) -> list[tuple[str, int]]:
    """Split a coder's entry: ``'L1+25'`` becomes ``[('L', 1), ('', 25)]``.

    Raises:
        ValueError: If a part is no action unit of this module.
    """
    parts = []
    for part in code.split("+"):
        match = re.fullmatch(r"([LR]?)(\d+)", part)
        if not match or int(match[2]) not in ACTION_UNITS:
            raise ValueError(f"no action unit {part!r} in {code!r}")
        parts.append((match[1], int(match[2])))
    return parts


class Field:
    """Displacement field of a set of action units; ``gain`` scales it to pixels.

    Args:
        parts: Side (``'L'``, ``'R'`` or both, ``''``), action unit and relative strength of each motion.
        landmarks: Shape (478, 2), in pixels.
        *habits: Generators from each of which every action unit takes a strength (give or take 15 %) and a direction
            (7 degrees); the same generator state means the same habit. None for the plain action units.
    """

    def __init__(
        self,
        parts: list[tuple[str, int, float]],
        landmarks: NDArray[np.floating],
        *habits: np.random.Generator,
    ) -> None:
        points = landmarks.astype(np.float64)
        left, right = eyes(points)
        self.eye_distance = float(np.hypot(*(right - left)))
        self.right = (right - left) / self.eye_distance
        self.down = np.array([-self.right[1], self.right[0]])
        self.gain = 1.0
        self.bumps: list[tuple[NDArray[np.float64], NDArray[np.float64], float, float]] = []
        variations = [habit.normal(size=(max(ACTION_UNITS) + 1, 2)) for habit in habits]
        for side, unit, strength in parts:
            angle = 0.0
            for variation in variations:
                strength, angle = strength * np.exp(variation[unit, 0] * 0.15), angle + variation[unit, 1] * 0.12
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * strength
            for bump in ACTION_UNITS[unit]:
                out, down = turn @ (bump.out, bump.down)
                for name, landmark, sign in (("R", bump.right, -1), ("L", bump.left, 1)):
                    if landmark is not None and (side in ("", name) or bump.left is None):
                        push = sign * out * self.right + down * self.down
                        self.bumps.append((points[landmark], push, bump.across, bump.along))

    def __call__(self, x: NDArray[np.floating], y: NDArray[np.floating]) -> tuple[NDArray, NDArray]:
        """Evaluate the field.

        Args:
            x: Positions to the right in pixels, any shape.
            y: Positions downwards in pixels, of the same shape.

        Returns:
            Displacements to the right and downwards, in the shape and type of ``x``, in pixels once ``gain`` is set
            (before, the largest push is about 1).
        """
        dx, dy = np.zeros_like(x), np.zeros_like(y)
        unit = self.eye_distance
        for centre, push, across, along in self.bumps:
            ahead = (x - centre[0]) * float(self.right[0] / unit) + (y - centre[1]) * float(self.right[1] / unit)
            below = (x - centre[0]) * float(self.down[0] / unit) + (y - centre[1]) * float(self.down[1] / unit)
            weight = np.exp(ahead * ahead * (-0.5 / across**2) + below * below * (-0.5 / along**2))
            dx += weight * float(push[0] * self.gain)
            dy += weight * float(push[1] * self.gain)
        return dx, dy

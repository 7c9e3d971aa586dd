"""Flow, strain and attention as pictures. No torch."""

import numpy as np
from numpy.typing import NDArray

from mer.preprocessing.opencv import cv2


def colours(flow: NDArray[np.floating], full: float) -> NDArray[np.uint8]:
    """Flow as colour: hue is the direction (red right, green down-left, blue up-left), saturation the length.

    Args:
        flow: Shape (2 or more, H, W), u and v in pixels.
        full: Length in pixels that has the full colour.

    Returns:
        uint8 RGB, shape (H, W, 3); white where nothing moves.
    """
    u, v = flow[:2].astype(np.float32)
    angle = np.degrees(np.arctan2(v, u)) % 360
    saturation = np.clip(np.hypot(u, v) / full, 0, 1)
    hsv = np.dstack([angle, saturation, np.ones_like(u)]).astype(np.float32)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255 + 0.5).astype(np.uint8)


def shades(strain: NDArray[np.floating], full: float) -> NDArray[np.uint8]:
    """Strain magnitude as heat, black where there is none: uint8 RGB, shape (H, W, 3)."""
    heat = cv2.applyColorMap((np.clip(strain / full, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.asarray(heat[..., ::-1], np.uint8)


def wheel(size: int = 192) -> NDArray[np.uint8]:
    """The legend: the colour of every direction, from nothing at the centre to full at the rim."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    picture = colours(np.stack([x, y]), 1)
    picture[np.hypot(x, y) > 1] = 255
    return picture


def overlay(attention: NDArray[np.floating], under: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Attention as an orange veil: none over its lowest value, the densest over its largest.

    Args:
        attention: Shape (S, S).
        under: What it lies on, uint8 RGB, shape (H, W, 3); its colours become grey.

    Returns:
        uint8 RGB, shape (H, W, 3).
    """
    height, width = under.shape[:2]
    dense = _stretched(attention).astype(np.float32)
    dense = np.clip(cv2.resize(dense, (width, height), interpolation=cv2.INTER_CUBIC), 0, 1)[..., None] * 0.75
    grey = cv2.cvtColor(under, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    return np.asarray(grey * (1 - dense) + np.array([255, 122, 0], np.float32) * dense + 0.5).astype(np.uint8)


def veil(values: NDArray[np.floating], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A map as one colour, transparent at its lowest value, opaque at its largest: uint8 RGBA, shape (H, W, 4)."""
    solid = np.broadcast_to(np.array(colour, np.uint8), (*values.shape, 3))
    return np.dstack([solid, (_stretched(values) * 255 + 0.5).astype(np.uint8)])


def _stretched(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """From 0 at the lowest value to 1 at the largest; 0 where all are alike."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / max(high - low, 1e-9)

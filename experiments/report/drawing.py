"""Flow, strain, attention and faces as pictures, which look alike in reports, galleries and on W&B. No torch."""

import base64
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mer.preprocessing.opencv import cv2

Picture = NDArray[np.uint8]  # RGB, shape (H, W, 3)


def draw_flow(flow: NDArray[np.floating], full: float) -> Picture:
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


def draw_strain(strain: NDArray[np.floating], full: float) -> Picture:
    """Strain magnitude (H, W) as heat, black where there is none, brightest at ``full``: uint8 RGB, (H, W, 3)."""
    heat = cv2.applyColorMap((np.clip(strain / full, 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    return np.asarray(heat[..., ::-1], np.uint8)


def draw_wheel(size: int = 192) -> Picture:
    """The legend of ``draw_flow``: the colour of every direction, white at the centre and full at the rim."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    picture = draw_flow(np.stack([x, y]), 1)
    picture[np.hypot(x, y) > 1] = 255
    return picture


def draw_attention(
    attention: NDArray[np.floating], face: Picture | None, flow: NDArray[np.floating] | None, side: int
) -> Picture:
    """Attention as an orange veil over a grey face: none over its lowest value, the densest over its largest.

    Args:
        attention: Shape (S, S).
        face: uint8 RGB, shape (H, W, 3); None takes the motion instead, dark where it is strong.
        flow: Shape (2 or more, h, w), in any unit; None, where there is no face, leaves the ground white.
        side: Of the picture, in pixels.

    Returns:
        uint8 RGB, shape (side, side, 3).
    """
    if face is None and flow is not None:
        length = np.hypot(flow[0], flow[1])
        dark = 255 - np.clip(length / max(float(length.max()), 1e-9), 0, 1) * 170
        face = np.repeat(dark[..., None], 3, axis=2).astype(np.uint8)
    under = np.full((side, side, 3), 255, np.uint8) if face is None else square(face, side)
    dense = _stretched(attention).astype(np.float32)
    dense = np.clip(cv2.resize(dense, (side, side), interpolation=cv2.INTER_CUBIC), 0, 1)[..., None] * 0.75
    grey = cv2.cvtColor(under, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    return np.asarray(grey * (1 - dense) + np.array([255, 122, 0], np.float32) * dense + 0.5).astype(np.uint8)


def draw_veil(values: NDArray[np.floating], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A map as one colour, transparent at its lowest value, opaque at its largest: uint8 RGBA, shape (H, W, 4)."""
    solid = np.broadcast_to(np.array(colour, np.uint8), (*values.shape, 3))
    return np.dstack([solid, (_stretched(values) * 255 + 0.5).astype(np.uint8)])


def draw_clip(source: Mapping[str, NDArray], full: float, strongest: float, side: int) -> dict[str, Picture]:
    """The pictures of a clip by caption: onset, apex, flow, strain and attention, of what there is.

    Args:
        source: Of ``onset``, ``apex`` (faces, uint8 RGB), ``flow`` (flow map) and ``attention`` those that are known.
        full: See ``draw_flow``.
        strongest: See ``draw_strain``.
        side: Of a picture, in pixels.

    Returns:
        uint8 RGB, each of shape (side, side, 3).
    """
    pictures = {name: square(source[name], side) for name in ("onset", "apex") if name in source}
    if "flow" in source:
        pictures["flow"] = square(draw_flow(source["flow"], full), side)
        pictures["strain"] = square(draw_strain(source["flow"][2], strongest), side)
    if "attention" in source:
        pictures["attention"] = draw_attention(source["attention"], source.get("apex"), source.get("flow"), side)
    return pictures


def face_of(crop: NDArray[np.uint8] | None) -> Picture | None:
    """A cached crop (3, H, W) as a picture; None if there is none, or it is not in colour."""
    return None if crop is None or crop.shape[0] != 3 else np.ascontiguousarray(crop.transpose(1, 2, 0))


def square(picture: Picture, side: int) -> Picture:
    """A picture, enlarged or reduced to (side, side, 3)."""
    how = cv2.INTER_AREA if picture.shape[0] > side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (side, side), interpolation=how), np.uint8)


def peak(values: NDArray[np.floating]) -> float:
    """What 99 % of the pixels of a map stay below."""
    return float(np.quantile(values, 0.99))


def full_colour(peaks: Sequence[float]) -> float:
    """The value that has the full colour, two digits of it: nine of ten maps have their ``peak`` below."""
    return float(f"{max(float(np.quantile(peaks, 0.9)), 1e-3):.2g}") if peaks else 1.0


def encode(picture: NDArray[np.uint8], suffix: str, quality: int = 82) -> bytes:
    """Content of a file; ``.jpg`` of that quality for RGB, ``.png`` also for RGBA."""
    order = [2, 1, 0, *range(3, picture.shape[2])]
    content = cv2.imencode(suffix, np.ascontiguousarray(picture[..., order]), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return content.tobytes()


def data_address(picture: NDArray[np.uint8], suffix: str = ".jpg") -> str:
    """A picture as an address that holds it, see ``encode``."""
    kind = {".jpg": "jpeg", ".png": "png"}[suffix]
    return f"data:image/{kind};base64,{base64.b64encode(encode(picture, suffix)).decode()}"


def _stretched(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """From 0 at the lowest value to 1 at the largest; 0 where all are alike."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / max(high - low, 1e-9)

"""The gallery: the surest right and the surest wrong clip of every class, in pictures."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_modules.cache import store as clip_cache
from experiments.report import maps
from experiments.report.boards import Board, Row
from experiments.report.colours import colours, overlay, shades, veil, wheel
from experiments.report.maps import Mean
from mer.preprocessing.opencv import cv2

SIDE = 144  # pixels of a picture
ATTENTION, MOTION = (217, 95, 2), (66, 109, 169)


@dataclass(frozen=True)
class Shown:
    """A clip of the gallery.

    Attributes:
        right: Whether the prediction is.
        clip: Its row of predictions.
        probabilities: By class.
        units: Action units as the sheet has them, or empty.
        pictures: Caption and data address.
    """

    right: bool
    clip: pd.Series
    probabilities: dict[str, float]
    units: str
    pictures: list[tuple[str, str]]


@dataclass(frozen=True)
class Gallery:
    """Clips by model, and what the full colours mean."""

    clips: dict[str, list[Shown]]
    seeds: dict[str, int]
    full: float
    strongest: float
    wheel: str


@dataclass(frozen=True)
class _Sources:
    """What there is of a clip: its row, faces, flow and attention, each None if absent."""

    clip: pd.Series
    right: bool
    onset: NDArray | None
    apex: NDArray | None
    flow: NDArray | None
    attention: NDArray | None


def gallery(board: Board, cache: Path | None) -> Gallery | None:
    """Pictures of every model's surest right and wrong clips, from its first seed.

    Args:
        board: The models.
        cache: The cache folder with the faces; None leaves them out.

    Returns:
        None if nothing has kept flow or attention.
    """
    found = {row.name: list(_sources(row, cache)) for row in board.rows}
    flows = [one.flow for several in found.values() for one in several if one.flow is not None]
    if not flows and all(one.attention is None for several in found.values() for one in several):
        return None
    full = _full([np.hypot(flow[0], flow[1]) for flow in flows])
    strongest = _full([flow[2] for flow in flows])
    clips = {row.name: [_shown(row, one, full, strongest) for one in found[row.name]] for row in board.rows}
    seeds = {row.name: row.seeds[0] for row in board.rows}
    return Gallery(clips, seeds, full, strongest, address(wheel(160), ".png"))


def mean_maps(mean: Mean) -> list[dict]:
    """Pictures of the mean maps: ``name``, ``attention`` and, where there is flow, ``motion``."""
    return [
        {
            "name": name,
            "attention": address(veil(share, ATTENTION), ".png"),
            "motion": address(veil(mean.motion[name], MOTION), ".png") if name in mean.motion else "",
        }
        for name, share in mean.attention.items()
    ]


def address(picture: NDArray[np.uint8], kind: str = ".jpg") -> str:
    """A picture, uint8 RGB or RGBA, as a data address."""
    order = [2, 1, 0, *range(3, picture.shape[2])]
    content = cv2.imencode(kind, np.ascontiguousarray(picture[..., order]), [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    mime = {".jpg": "jpeg", ".png": "png"}[kind]
    return f"data:image/{mime};base64," + base64.b64encode(content.tobytes()).decode()


def _surest(row: Row) -> Iterator[tuple[bool, pd.Series]]:
    """Per true class the clip with the highest probability of what was predicted: the right ones, then the wrong."""
    table = maps.located(row)
    chances = table[[f"p_{name}" for name in row.cell.classes]].to_numpy()
    table = table.assign(sure=chances.max(1)).sort_values(["sure", "dataset", "subject", "clip"], ascending=False)
    right = table["target"] == table["prediction"]
    for wanted in (True, False):
        for name in row.cell.classes:
            some = table[(right == wanted) & (table["target"] == name)]
            if len(some):
                yield wanted, some.iloc[0]


def _sources(row: Row, cache: Path | None) -> Iterator[_Sources]:
    keys = ["dataset", "subject", "clip"]
    known = row.cell.clips.set_index(keys)
    sizes = maps.located(row)["fold"].value_counts()
    for right, clip in _surest(row):
        clip = pd.concat([clip, known.loc[tuple(clip[keys])].drop("target")])
        kept = maps.arrays(row.cell, row.seeds[0], clip["fold"], sizes[clip["fold"]])
        of_clip = {name: array[clip["position"]] for name, array in kept.items()}
        cached = (cache and clip_cache.read_named(cache, clip.get("cached", ""))) or {}
        yield _Sources(
            clip,
            right,
            _face(cached.get("onset")),
            _face(cached.get("apex")),
            cached.get("flow", of_clip.get("flow")),
            of_clip.get("attention"),
        )


def _face(crop: NDArray | None) -> NDArray[np.uint8] | None:
    """RGB, (H, W, 3), of a cached crop (3, H, W)."""
    return None if crop is None or crop.shape[0] != 3 else np.ascontiguousarray(crop.transpose(1, 2, 0))


def _shown(row: Row, one: _Sources, full: float, strongest: float) -> Shown:
    pictures = []
    for caption, face in (("onset", one.onset), ("apex", one.apex)):
        if face is not None:
            pictures.append((caption, address(_square(face))))
    if one.flow is not None:
        pictures.append(("flow", address(_square(colours(one.flow, full)))))
        pictures.append(("strain", address(_square(shades(one.flow[2], strongest)))))
    if one.attention is not None:
        pictures.append(("attention", address(overlay(one.attention, _under(one)))))
    chances = {name: float(one.clip[f"p_{name}"]) for name in row.cell.classes}
    return Shown(one.right, one.clip, chances, str(one.clip.get("action_units", "")), pictures)


def _under(one: _Sources) -> NDArray[np.uint8]:
    """What attention lies on: the apex, else the motion, else nothing."""
    if one.apex is not None:
        return _square(one.apex)
    if one.flow is None:
        return np.full((SIDE, SIDE, 3), 255, np.uint8)
    length = np.hypot(one.flow[0], one.flow[1])
    dark = 255 - np.clip(length / max(float(length.max()), 1e-9), 0, 1) * 170
    return _square(np.repeat(dark[..., None], 3, axis=2).astype(np.uint8))


def _square(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    shrinks = picture.shape[0] > SIDE
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (SIDE, SIDE), interpolation=how), np.uint8)


def _full(values: Sequence[NDArray]) -> float:
    """What has the full colour: nine of ten clips stay below, but for 1 % of their pixels."""
    highest = [float(np.quantile(each, 0.99)) for each in values]
    return float(f"{max(float(np.quantile(highest, 0.9)), 1e-3):.2g}") if highest else 1.0

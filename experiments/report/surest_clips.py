"""The report's gallery: the surest right and the surest wrong clip of every class, in pictures."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_modules.cache import store
from experiments.report.comparison import Comparison, ModelScores
from experiments.report.drawing import (
    Picture,
    data_address,
    draw_attention,
    draw_flow,
    draw_strain,
    draw_veil,
    draw_wheel,
    face_of,
    full_colour,
    peak,
    square,
)  # fmt: skip
from experiments.report.kept_maps import MeanMaps, locate, read_maps

SIDE = 144  # pixels of a picture
ATTENTION, MOTION = (217, 95, 2), (66, 109, 169)


@dataclass(frozen=True)
class GalleryClip:
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
    """Clips of every model.

    Attributes:
        clips: By model.
        seeds: The seed that they are of, by model.
        full: Length of the flow with the full colour, in pixels.
        strongest: Strain with the full colour.
        wheel: Data address of the colour wheel.
    """

    clips: dict[str, list[GalleryClip]]
    seeds: dict[str, int]
    full: float
    strongest: float
    wheel: str


@dataclass(frozen=True)
class _Source:
    """What a clip's pictures are made of: row of predictions, faces, flow and attention, None where absent."""

    clip: pd.Series
    right: bool
    onset: Picture | None
    apex: Picture | None
    flow: NDArray | None
    attention: NDArray | None


def gallery(comparison: Comparison, cache: Path | None) -> Gallery | None:
    """Pictures of every model's surest right and wrong clips, from its first seed.

    Args:
        comparison: The models.
        cache: The cache folder with the faces; None leaves them out.

    Returns:
        None if nothing has kept flow or attention.
    """
    sources = {model.name: list(_sources(model, cache)) for model in comparison.models}
    clips = [clip for of_model in sources.values() for clip in of_model]
    flows = [clip.flow for clip in clips if clip.flow is not None]
    if not flows and all(clip.attention is None for clip in clips):
        return None
    full = full_colour([peak(np.hypot(flow[0], flow[1])) for flow in flows])
    strongest = full_colour([peak(flow[2]) for flow in flows])
    return Gallery(
        {name: [_draw(clip, comparison.classes, full, strongest) for clip in sources[name]] for name in sources},
        {model.name: model.seeds[0] for model in comparison.models},
        full,
        strongest,
        data_address(draw_wheel(160), ".png"),
    )


def draw_mean_maps(means: MeanMaps) -> list[dict[str, str]]:
    """Pictures of the mean maps: ``name``, ``attention`` and, where there is flow, ``motion``."""
    return [
        {
            "name": name,
            "attention": data_address(draw_veil(share, ATTENTION), ".png"),
            "motion": data_address(draw_veil(means.motion[name], MOTION), ".png") if name in means.motion else "",
        }
        for name, share in means.attention.items()
    ]


def _surest(model: ModelScores, table: pd.DataFrame) -> Iterator[tuple[bool, pd.Series]]:
    """Per true class the clip with the highest probability of what was predicted: the right ones, then the wrong."""
    chances = table[[f"p_{name}" for name in model.cell.classes]].to_numpy()
    table = table.assign(sure=chances.max(1)).sort_values(["sure", "dataset", "subject", "clip"], ascending=False)
    is_right = table["target"] == table["prediction"]
    for right in (True, False):
        for name in model.cell.classes:
            clips = table[(is_right == right) & (table["target"] == name)]
            if len(clips):
                yield right, clips.iloc[0]


def _sources(model: ModelScores, cache: Path | None) -> Iterator[_Source]:
    keys, seed = ["dataset", "subject", "clip"], model.seeds[0]
    described, table = model.cell.clips.set_index(keys), locate(model, seed)
    sizes = table["fold"].value_counts()
    for right, clip in _surest(model, table):
        clip = pd.concat([clip, described.loc[tuple(clip[keys])].drop("target")])
        kept = read_maps(model.cell, seed, clip["fold"], sizes[clip["fold"]])
        maps = {name: values[clip["position"]] for name, values in kept.items()}
        cached = (cache and store.read_named(cache, clip.get("cached", ""))) or {}
        faces = face_of(cached.get("onset")), face_of(cached.get("apex"))
        yield _Source(clip, right, *faces, cached.get("flow", maps.get("flow")), maps.get("attention"))


def _draw(source: _Source, classes: tuple[str, ...], full: float, strongest: float) -> GalleryClip:
    pictures: dict[str, Picture] = {}
    for caption, face in (("onset", source.onset), ("apex", source.apex)):
        if face is not None:
            pictures[caption] = square(face, SIDE)
    if source.flow is not None:
        pictures["flow"] = square(draw_flow(source.flow, full), SIDE)
        pictures["strain"] = square(draw_strain(source.flow[2], strongest), SIDE)
    if source.attention is not None:
        pictures["attention"] = draw_attention(source.attention, source.apex, source.flow, SIDE)
    return GalleryClip(
        source.right,
        source.clip,
        {name: float(source.clip[f"p_{name}"]) for name in classes},
        str(source.clip.get("action_units", "")),
        [(caption, data_address(picture)) for caption, picture in pictures.items()],
    )

"""The report's gallery: the surest right and the surest wrong clip of every class, in pictures."""

from collections.abc import Iterator, Sequence
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
    draw_clip,
    draw_veil,
    draw_wheel,
    face_of,
    full_colour,
    peak,
)  # fmt: skip
from experiments.report.fold_maps import read_maps
from experiments.report.kept_maps import MeanMaps, locate
from experiments.results import Fold

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
    """Clips by model, the seed that they are of, and what the full colours mean."""

    clips: dict[str, list[GalleryClip]]
    seeds: dict[str, int]
    full: float  # length of the flow in pixels
    strongest: float  # strain
    wheel: str  # data address of the colour wheel


def gallery(comparison: Comparison, cache: Path | None) -> Gallery | None:
    """Pictures of every model's surest right and wrong clips, from its first seed.

    Args:
        comparison: The models.
        cache: The cache folder with the faces; None leaves them out.

    Returns:
        None if nothing has kept flow or attention.
    """
    surest = {model.name: list(_surest(model, cache)) for model in comparison.models}
    sources = [source for clips in surest.values() for _, source in clips]
    flows = [source["flow"] for source in sources if "flow" in source]
    if not flows and not any("attention" in source for source in sources):
        return None
    full = full_colour([peak(np.hypot(flow[0], flow[1])) for flow in flows])
    strongest = full_colour([peak(flow[2]) for flow in flows])
    return Gallery(
        {
            name: [
                _gallery_clip(clip, draw_clip(source, full, strongest, SIDE), comparison.classes)
                for clip, source in clips
            ]
            for name, clips in surest.items()
        },
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


def _surest(model: ModelScores, cache: Path | None) -> Iterator[tuple[pd.Series, dict[str, NDArray]]]:
    """Per true class the clip with the highest probability of what was predicted: the right ones, then the wrong.

    Yields:
        The clip's row, and what its pictures are made of: ``onset``, ``apex``, ``flow`` and ``attention``, if present.
    """
    keys, seed, classes = ["dataset", "subject", "clip"], model.seeds[0], model.cell.classes
    table = locate(model, seed)
    sizes = table["fold"].value_counts()
    table["right"] = table["target"] == table["prediction"]
    table["sure"] = table[[f"p_{name}" for name in classes]].max(axis=1)
    more = model.cell.clips.columns.difference(table.columns)
    table = table.merge(model.cell.clips[[*keys, *more]], on=keys).sort_values(["sure", *keys], ascending=False)
    for right in (True, False):
        for name in classes:
            clips = table[(table["right"] == right) & (table["target"] == name)]
            for _, clip in clips.head(1).iterrows():
                kept = read_maps(Fold(model.cell, clip["fold"], seed), sizes[clip["fold"]])
                maps = {name: values[clip["position"]] for name, values in kept.items()}
                cached = (cache and store.read_named(cache, clip.get("cached", ""))) or {}
                maps |= {"flow": cached["flow"]} if "flow" in cached else {}
                for caption in ("onset", "apex"):
                    if (face := face_of(cached.get(caption))) is not None:
                        maps[caption] = face
                yield clip, maps


def _gallery_clip(clip: pd.Series, pictures: dict[str, Picture], classes: Sequence[str]) -> GalleryClip:
    return GalleryClip(
        bool(clip["right"]),
        clip,
        {name: float(clip[f"p_{name}"]) for name in classes},
        str(clip.get("action_units", "")),
        [(caption, data_address(picture)) for caption, picture in pictures.items()],
    )

"""Pictures of every clip of a cell and seed, for those who ask for them: its flow, and where the network looked."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_modules.cache import store
from experiments.report.drawing import draw_clip, face_of, full_colour, peak
from experiments.report.fold_maps import read_maps
from experiments.results import Cell, Fold

if TYPE_CHECKING:
    import wandb

SIDE = 112  # pixels


def clip_pictures(cell: Cell, seed: int, cache: Path) -> "dict[str, list[wandb.Image | None]]":
    """Pictures in the order of ``cell.pooled``, by column.

    Args:
        cell: Where the folds lie.
        seed: The seed.
        cache: The cache folder, which has the faces.

    Returns:
        ``flow`` (colour is the direction, its strength the length) and ``attention`` (over the apex frame, where the
        cache has it), RGB of ``SIDE`` pixels; None for a clip that has none, no column where no clip has one.
    """
    import wandb

    keys = ["dataset", "subject", "clip"]
    files = cell.clips.set_index(keys)["cached"].to_dict() if "cached" in cell.clips else {}
    sources = []
    for fold in (Fold(cell, name, seed) for name in cell.done(seed)):
        table = fold.read()
        maps = read_maps(fold, len(table))
        for position, clip in enumerate(table[keys].itertuples(index=False, name=None)):
            apex = face_of((store.read_named(cache, files.get(clip, "")) or {}).get("apex"))
            source = {name: values[position] for name, values in maps.items()}
            sources.append(source if apex is None else {**source, "apex": apex})
    full = full_colour([peak(np.hypot(*source["flow"][:2])) for source in sources if "flow" in source])
    pictures = [draw_clip(source, full, full, SIDE) for source in sources]
    return {
        name: [wandb.Image(drawn[name]) if name in drawn else None for drawn in pictures]
        for name in ("flow", "attention")
        if any(name in drawn for drawn in pictures)
    }

"""Pictures of every clip of a cell and seed, for those who ask for them: its flow, and where the network looked."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_modules.cache import store
from experiments.report.drawing import Picture, draw_attention, draw_flow, face_of, full_colour, peak, square
from experiments.report.fold_maps import read_maps
from experiments.results import Cell, Fold

SIDE = 112  # pixels


def clip_pictures(cell: Cell, seed: int, cache: Path) -> dict[str, list[Picture | None]]:
    """Pictures in the order of ``cell.pooled``, by column.

    Args:
        cell: Where the folds lie.
        seed: The seed.
        cache: The cache folder, which has the faces.

    Returns:
        ``flow`` (colour is the direction, its strength the length) and ``attention`` (over the apex frame, where the
        cache has it), uint8 (SIDE, SIDE, 3); None for a clip that has none, no column where no clip has one.
    """
    keys = ["dataset", "subject", "clip"]
    files = cell.clips.set_index(keys)["cached"].to_dict() if "cached" in cell.clips else {}
    clips: list[tuple[str, str, str]] = []
    flows: list[NDArray | None] = []
    attention: list[NDArray | None] = []
    for fold in (Fold(cell, name, seed) for name in cell.done(seed)):
        table = fold.read()
        clips.extend(table[keys].itertuples(index=False, name=None))
        kept = read_maps(fold, len(table))
        flows.extend(kept.get("flow", [None] * len(table)))
        attention.extend(kept.get("attention", [None] * len(table)))
    full = full_colour([peak(np.hypot(flow[0], flow[1])) for flow in flows if flow is not None])

    def apex(clip: tuple[str, str, str]) -> Picture | None:
        return face_of((store.read_named(cache, files.get(clip, "")) or {}).get("apex"))

    columns = {
        "flow": [None if flow is None else square(draw_flow(flow, full), SIDE) for flow in flows],
        "attention": [
            None if values is None else draw_attention(values, apex(clip), flow, SIDE)
            for clip, values, flow in zip(clips, attention, flows, strict=True)
        ],
    }
    return {name: pictures for name, pictures in columns.items() if any(p is not None for p in pictures)}

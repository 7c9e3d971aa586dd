"""Pictures of every clip of a cell and seed, for those who ask for them: its flow, and where the network looked."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_modules.cache import store
from experiments.gallery import colours, shades
from experiments.results import Cell
from mer.preprocessing.opencv import cv2

Image = NDArray[np.uint8]
SIDE = 112  # pixels


def pictures(cell: Cell, seed: int, cached: Path) -> dict[str, list[Image | None]]:
    """Pictures in the order of ``cell.pooled``, by column.

    Args:
        cell: Where the folds lie.
        seed: The seed.
        cached: The cache folder, which has the faces.

    Returns:
        ``flow`` (colour is the direction, its strength the length) and ``attention`` (over the apex frame, where the
        cache has it), uint8 (SIDE, SIDE, 3); None for a clip that has none, no column where no clip has one.
    """
    faces = _faces(cell)
    flows, maps, rows = [], [], []
    for fold in cell.done(seed):
        path = cell.file(seed, fold).with_suffix(".safetensors")
        tensors = store.read(path) or {}
        table = cell.read(seed, fold)
        rows += table[["dataset", "subject", "clip"]].itertuples(index=False, name=None)
        for kept, name in ((flows, "flow"), (maps, "attention")):
            kept += [one.astype(np.float32) for one in tensors[name]] if name in tensors else [None] * len(table)
    columns = {}
    if any(flow is not None for flow in flows):
        strongest = [np.quantile(np.hypot(*flow[:2]), 0.99) for flow in flows if flow is not None]
        full = max(float(np.quantile(strongest, 0.9)), 1e-3)  # the full colour, for nine of ten clips
        columns["flow"] = [None if flow is None else _enlarged(colours(flow, full)) for flow in flows]
    if any(one is not None for one in maps):
        columns["attention"] = [
            None if one is None else overlay(one, (store.read_named(cached, faces.get(row, "")) or {}).get("apex"))
            for one, row in zip(maps, rows, strict=True)
        ]
    return columns


def overlay(attention: NDArray[np.floating], face: Image | None) -> Image:
    """Attention (S, S) in [0, 1] as heat, over a face (3, H, W) if there is one."""
    heat = cv2.resize(shades(attention, 1.0), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
    if face is None:
        return np.asarray(heat, np.uint8)
    below = cv2.resize(np.ascontiguousarray(face.transpose(1, 2, 0)), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.addWeighted(below, 0.5, heat, 0.5, 0), np.uint8)


def _faces(cell: Cell) -> dict[tuple[str, str, str], str]:
    """Path of each clip's cached file below the cache folder, where there is one."""
    if "cached" not in cell.clips:
        return {}
    return {(row.dataset, row.subject, row.clip): str(row.cached) for row in cell.clips.itertuples()}


def _enlarged(image: Image) -> Image:
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST), np.uint8)

"""The maps that a fold has kept of its clips beside their predictions, and the flow maps of a whole clip table."""

import numpy as np
from numpy.typing import NDArray

from data_modules.cache import store
from experiments.results import Cell, Fold

DIMENSIONS = {"attention": 3, "flow": 4}


def read_maps(fold: Fold, clips: int) -> dict[str, NDArray[np.float32]]:
    """``attention`` (n, S, S) and ``flow`` (n, 3, S, S), as far as the fold has kept them for all its clips."""
    tensors = store.read(fold.file.with_suffix(".safetensors")) or {}
    return {
        name: tensor.astype(np.float32)
        for name, tensor in tensors.items()
        if tensor.ndim == DIMENSIONS.get(name) and len(tensor) == clips
    }


def read_flow(cell: Cell, seeds: list[int]) -> NDArray[np.float32] | None:
    """The flow map of every clip of a cell as the network saw it when it tested the clip; None if a clip has none.

    Args:
        cell: The cell.
        seeds: Seeds to look in, the first first: what a network sees at the test does not depend on the seed.

    Returns:
        Shape (clips, 3, S, S), S at most 56, in the order of the clip table.
    """
    by_fold = []
    for name, rows in cell.folds.items():
        kept = (read_maps(Fold(cell, name, seed), len(rows)).get("flow") for seed in seeds)
        flow = next((maps for maps in kept if maps is not None), None)
        if flow is None:
            return None
        by_fold.append(flow)
    channels, height, width = by_fold[0].shape[1:]
    if channels != 3 or height != width or not height or {maps.shape[1:] for maps in by_fold} != {by_fold[0].shape[1:]}:
        return None
    maps = np.empty((len(cell.clips), channels, height, width), np.float32)
    maps[[row for rows in cell.folds.values() for row in rows]] = np.concatenate(by_fold)
    return np.nan_to_num(maps, posinf=0, neginf=0)

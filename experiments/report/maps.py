"""What a fold keeps beside its predictions: attention and flow, clip by clip, and their means."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_modules import protocols
from data_modules.cache import store
from experiments.report.boards import Row
from experiments.results import Cell

THIRDS = ("upper", "middle", "lower")


@dataclass(frozen=True)
class Mean:
    """Mean maps of one model, each clip's summing to 1.

    Attributes:
        attention: By class and, first, under ``all``; shape (S, S).
        motion: Mean length of the flow, likewise; empty where the folds have kept no flow.
    """

    attention: dict[str, NDArray[np.float64]]
    motion: dict[str, NDArray[np.float64]]


def located(row: Row, index: int = 0) -> pd.DataFrame:
    """Predictions of one seed with the ``fold`` of every clip and its ``position`` in the fold's files."""
    cell, table = row.cell, row.tables[index]
    fold = pd.Series(index=range(len(cell.clips)), dtype=object)
    for name, rows in protocols.folds(cell.clips, cell.split).items():
        fold[rows] = name
    keys = ["dataset", "subject", "clip"]
    found = table.merge(cell.clips[keys].assign(fold=fold), on=keys, how="left", validate="one_to_one")
    return found.assign(position=found.groupby("fold").cumcount())


def arrays(cell: Cell, seed: int, fold: str, clips: int) -> dict[str, NDArray]:
    """``attention`` (n, S, S) and ``flow`` (n, 3, S, S), as far as the fold has kept them for all its clips."""
    found = store.read(cell.file(seed, fold).with_suffix(".safetensors")) or {}
    dimensions = {"attention": 3, "flow": 4}
    return {
        name: array.astype(np.float32)
        for name, array in found.items()
        if array.ndim == dimensions.get(name) and len(array) == clips
    }


def mean(row: Row) -> Mean | None:
    """Mean attention and motion over all clips and seeds; None if the model shows no attention."""
    sums: dict[str, dict[str, NDArray]] = {"attention": {}, "motion": {}}
    for index, seed in enumerate(row.seeds):
        for fold, rows in located(row, index).groupby("fold"):
            found = arrays(row.cell, seed, str(fold), len(rows))
            maps = {"attention": found["attention"]} if "attention" in found else {}
            if maps and "flow" in found:
                maps["motion"] = np.hypot(found["flow"][:, 0], found["flow"][:, 1])
            for kind, each in maps.items():
                shares = np.nan_to_num(each) / np.maximum(np.nan_to_num(each).sum((1, 2), keepdims=True), 1e-9)
                for name in ("all", *row.cell.classes):
                    chosen = slice(None) if name == "all" else (rows["target"] == name).to_numpy()
                    sums[kind][name] = sums[kind].get(name, 0) + shares[chosen].sum(0)
    if not sums["attention"]:
        return None
    return Mean(*({name: total / max(total.sum(), 1e-9) for name, total in sums[kind].items()} for kind in sums))


def thirds(share: NDArray[np.float64]) -> list[float]:
    """How much of a map that sums to 1 lies in its upper, middle and lower third."""
    edges = np.arange(len(share) + 1) / len(share)
    rows = share.sum(1)
    weights = [np.clip(np.minimum(edges[1:], (i + 1) / 3) - np.maximum(edges[:-1], i / 3), 0, None) for i in range(3)]
    return [float((rows * weight).sum() * len(share)) for weight in weights]

"""Where in the files of the folds a clip is, and the mean attention and motion of a model."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.report.comparison import ModelScores
from experiments.report.fold_maps import read_maps
from experiments.results import Fold

THIRDS = ("upper", "middle", "lower")


@dataclass(frozen=True)
class MeanMaps:
    """Mean maps of one model, each of which sums to 1.

    Attributes:
        attention: By class and, first, under ``all``; shape (S, S).
        motion: Mean length of the flow, likewise; empty where the folds have kept no flow.
    """

    attention: dict[str, NDArray[np.float64]]
    motion: dict[str, NDArray[np.float64]]


def locate(model: ModelScores, seed: int) -> pd.DataFrame:
    """Predictions of one seed with the ``fold`` of every clip and its ``position`` in the fold's files."""
    clips, keys = model.cell.clips, ["dataset", "subject", "clip"]
    names = {row: name for name, rows in model.cell.folds.items() for row in rows}
    folds = clips[keys].assign(fold=pd.Series(names))
    table = model.pools[seed].table.merge(folds, on=keys, how="left", validate="one_to_one")
    return table.assign(position=table.groupby("fold").cumcount())


def mean_maps(model: ModelScores) -> MeanMaps | None:
    """Mean attention and motion over all clips and seeds; None if the model shows no attention."""
    sums: dict[str, dict[str, NDArray]] = {"attention": {}, "motion": {}}
    for seed in model.seeds:
        for name, clips in locate(model, seed).groupby("fold"):
            maps = read_maps(Fold(model.cell, str(name), seed), len(clips))
            if "attention" not in maps:
                continue
            if "flow" in maps:
                flow = maps.pop("flow")
                maps["motion"] = np.hypot(flow[:, 0], flow[:, 1])
            for kind, values in maps.items():
                values = np.nan_to_num(values)
                shares = values / np.maximum(values.sum((1, 2), keepdims=True), 1e-9)
                for name in ("all", *model.cell.classes):
                    of_class = slice(None) if name == "all" else (clips["target"] == name).to_numpy()
                    sums[kind][name] = sums[kind].get(name, 0) + shares[of_class].sum(0)
    if not sums["attention"]:
        return None
    return MeanMaps(*({name: total / max(total.sum(), 1e-9) for name, total in maps.items()} for maps in sums.values()))


def thirds(share: NDArray[np.float64]) -> list[float]:
    """How much of a map that sums to 1 lies in its upper, middle and lower third."""
    edges = np.arange(len(share) + 1) / len(share)
    rows = share.sum(1)
    weights = [np.clip(np.minimum(edges[1:], (i + 1) / 3) - np.maximum(edges[:-1], i / 3), 0, None) for i in range(3)]
    return [float((rows * weight).sum() * len(share)) for weight in weights]

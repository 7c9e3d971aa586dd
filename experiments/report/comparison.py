"""Comparisons: all models of one dataset, protocol and split; and what ``mer status --json`` prints of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, groupby, product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_modules.protocols import SPLITS
from experiments.predictions import CLIP, Pool
from experiments.report import baselines
from experiments.report.fold_maps import read_flow
from experiments.report.scores import KINDS, pooled_scores, summarise
from experiments.results import Cell, Fold, cells
from experiments.slurm import records
from mer import InputError
from mer.evaluation import scoring, significance

MAJORITY, LOOK_UP = "majority class", "action units, looked up"
SUPPORT_VECTORS, NEAREST_MEAN = "support vectors", "nearest class mean"
AGAINST = (MAJORITY, SUPPORT_VECTORS)
"""References that every model is tested against: chance, and what needs no network at all."""


@dataclass(frozen=True)
class ModelScores:
    """One model of a comparison: the predictions of its seeds, those with a fold done, and their scores."""

    cell: Cell
    pools: dict[int, Pool]

    @property
    def name(self) -> str:
        return self.cell.label

    @property
    def seeds(self) -> list[int]:
        return list(self.pools)

    @cached_property
    def tables(self) -> list[pd.DataFrame]:
        """Predictions, one table per seed."""
        return [pool.table for pool in self.pools.values()]

    @property
    def done(self) -> int:
        """Folds that are done, of all seeds."""
        return sum(len(pool.done) for pool in self.pools.values())

    @property
    def total(self) -> int:
        return len(self.cell.folds) * len(self.pools)

    @property
    def complete(self) -> bool:
        return self.done == self.total

    @cached_property
    def facts(self) -> list[dict]:
        return [Fold(self.cell, name, seed).facts() for seed, pool in self.pools.items() for name in pool.done]

    @cached_property
    def summary(self) -> dict:
        """Means over the seeds with their intervals: of the pool, of each database and of each class."""
        return summarise(self.tables, self.cell.classes)

    @cached_property
    def ensemble(self) -> pd.DataFrame | None:
        """Predictions of the seeds together, as honest as those of each seed; None unless several are finished."""
        return scoring.ensemble(self.tables, self.cell.classes) if self.complete and len(self.tables) > 1 else None

    @property
    def uf1(self) -> float:
        """The honest score that ranks."""
        return self.summary["honest"]["uf1"]["mean"]


@dataclass(frozen=True)
class PairedTest:
    """Two models, by name, on the clips that both have predicted."""

    first: str
    second: str
    clips: int
    subjects: int
    seeds: int
    difference: float  # UF1 of the first less that of the second
    low: float  # of its 95 % interval
    high: float
    p: float  # two-sided
    corrected: float = math.nan  # the same, for the number of tests in the comparison


@dataclass(frozen=True)
class Comparison:
    """All models of one dataset, protocol and split."""

    dataset: str
    protocol: str
    split: str
    models: list[ModelScores]  # complete ones first, best honest UF1 first

    @property
    def key(self) -> str:
        return f"{self.dataset}-{self.protocol}-{self.split}"

    @property
    def title(self) -> str:
        return f"{self.dataset}, {self.protocol}, {self.models[0].cell.names['split']}"

    @property
    def rules(self) -> str:
        """Protocol and split in words."""
        split = SPLITS.get(self.split) or f"leave one of {self.split.removeprefix('groups')} groups of subjects out"
        return f"protocol {self.protocol}, {split}"

    @property
    def classes(self) -> tuple[str, ...]:
        return self.models[0].cell.classes

    @property
    def clips(self) -> pd.DataFrame:
        return self.models[0].cell.clips

    @cached_property
    def databases(self) -> list[str]:
        return sorted({name for model in self.models for name in model.cell.clips["dataset"]})

    @cached_property
    def on_other_clips(self) -> list[str]:
        """Models whose clips are not those of the first: the data had changed in between."""
        keys = ["dataset", "subject", "clip", "target"]
        clips = {model.name: set(model.cell.clips[keys].itertuples(index=False, name=None)) for model in self.models}
        return [name for name, own in clips.items() if own != clips[self.models[0].name]]

    @cached_property
    def flow(self) -> tuple[str, NDArray[np.float32]] | None:
        """The first model that has kept the flow map of every clip, and the maps; None if there is none."""
        for model in self.models:
            if model.name not in self.on_other_clips and (maps := read_flow(model.cell, model.seeds)) is not None:
                order = _rows(model.cell.clips)
                return model.name, maps[[order[clip] for clip in _rows(self.clips)]]
        return None

    @cached_property
    def references(self) -> dict[str, pd.DataFrame]:
        """Predictions that need no network, by name; those that need flow maps or codes only where there are any."""
        tables = {MAJORITY: baselines.majority(self.clips, self.classes, self.split)}
        if self.flow is not None:
            data = (self.clips, self.flow[1], self.classes, self.split)
            tables[NEAREST_MEAN] = baselines.nearest_class_mean(*data)
            tables[SUPPORT_VECTORS] = baselines.support_vectors(*data)
        looked_up = baselines.action_units(self.clips, self.classes, self.split)
        return tables if looked_up is None else {**tables, LOOK_UP: looked_up}

    @cached_property
    def reference_summaries(self) -> dict[str, dict]:
        return {name: summarise([table], self.classes) for name, table in self.references.items()}

    @cached_property
    def tests(self) -> list[PairedTest]:
        """Every two models, and every model against two references: one family, corrected together."""
        tables = {model.name: model.tables for model in self.models}
        names, seeds = list(tables), max(map(len, tables.values()))
        references = {name: [self.references[name]] * seeds for name in AGAINST if name in self.references}
        pairs = [*combinations(names, 2), *product(names, references)]
        tables |= references
        tests = [test for pair in pairs if (test := self._test(*pair, tables))]
        corrected = significance.holm([test.p for test in tests])
        return [replace(test, corrected=value) for test, value in zip(tests, corrected, strict=True)]

    @property
    def next(self) -> ModelScores | None:
        """The second of the ranking, if it is finished as the first is."""
        first, *others = self.models
        return others[0] if others and others[0].complete == first.complete else None

    def test(self, first: str, second: str) -> PairedTest | None:
        """The test of two models by name, the better one first; None if they share no clip."""
        return next((test for test in self.tests if (test.first, test.second) == (first, second)), None)

    def _test(self, first: str, second: str, tables: dict[str, list[pd.DataFrame]]) -> PairedTest | None:
        try:
            counts, others = significance.pair(tables[first], tables[second], self.classes)
        except ValueError:
            return None  # unfinished: no clip in common yet
        clips, subjects, seeds = int(counts[:, 0].sum()), *counts.shape[:2]
        difference, ends = significance.difference(counts, others), significance.difference_interval(counts, others)
        p = significance.permutation_test(counts, others)
        return PairedTest(first, second, clips, subjects, seeds, difference, *ends, p)


def _rows(clips: pd.DataFrame) -> dict[tuple[str, str, str], int]:
    """Row of every clip."""
    return {clip: row for row, clip in enumerate(clips[CLIP[:3]].itertuples(index=False, name=None))}


def status(results: Path) -> list[dict]:
    """Folds done and scores of every cell and seed, files left out, and what SLURM does, ready for JSON."""
    counts = records.progress(results).counts
    return [
        {
            **cell.names,
            "seeds": [_seed_status(cell, seed, pool) for seed, pool in model.pools.items()] if model else [],
            "summary": model.summary if model else {},
            "ensemble": pooled_scores(model.ensemble, cell.classes) if model and model.ensemble is not None else {},
            "left_out": left_out,
            "jobs": [
                {"seed": seed, **{state: states[state] for state in records.STATES}}
                for (other, seed), states in sorted(counts.items(), key=lambda item: item[0][1])
                if other == cell
            ],
        }
        for cell in cells(results)
        for model, left_out in [read_model(cell)]
    ]


def seed_status(cell: Cell, seed: int) -> dict:
    """Folds done and pooled scores of one seed of a cell."""
    return _seed_status(cell, seed, cell.pool(seed))


def _seed_status(cell: Cell, seed: int, pool: Pool) -> dict:
    return {
        "seed": seed,
        "folds_done": len(pool.done),
        "folds_total": len(cell.folds),
        **{kind: pooled_scores(pool.table, cell.classes, column) for kind, column in KINDS.items()},
    }


def read_comparisons(results: Path, only: Sequence[Cell] = ()) -> tuple[list[Comparison], list[str]]:
    """Every comparison of a results folder that has a fold done.

    Args:
        results: The results folder.
        only: The cells to read; all by default.

    Returns:
        The comparisons, and the files that are left out because they are not valid, each with the reason.
    """
    comparisons, left_out = [], []
    for key, group in groupby(only or cells(results), key=lambda cell: (cell.dataset, cell.protocol, cell.split)):
        models = []
        for model, faults in map(read_model, group):
            models += [model] if model else []
            left_out += faults
        if models:
            models.sort(key=lambda model: (not model.complete, -model.uf1))
            comparisons.append(Comparison(*key, models))
    return comparisons, left_out


def read_model(cell: Cell) -> tuple[ModelScores | None, list[str]]:
    """The seeds of a cell that have a fold done, None if there are none; and the files that are left out."""
    try:
        pools = {seed: cell.pool(seed) for seed in cell.seeds()}
    except InputError as error:  # without its clips nothing can be said of any fold
        return None, [str(error)]
    left_out = [f"{Fold(cell, name, seed).file}: {why}" for seed in pools for name, why in pools[seed].faults.items()]
    pools = {seed: pool for seed, pool in pools.items() if pool.done}
    return (ModelScores(cell, pools) if pools else None), left_out

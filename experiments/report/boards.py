"""The boards: all models of one dataset, protocol and split; what ``mer status --json`` prints of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, groupby
from pathlib import Path

import pandas as pd

from data_modules.protocols import SPLITS, is_inner
from experiments.report import baselines
from experiments.report.figures import KINDS, pooled_scores, summary
from experiments.results import Cell, cells
from experiments.slurm import records
from mer import InputError
from mer.evaluation import scoring, significance

MAJORITY, LOOK_UP = "majority class", "action units, looked up"


@dataclass(frozen=True)
class Row:
    """One model of a board."""

    cell: Cell
    seeds: list[int]
    tables: list[pd.DataFrame]  # pooled predictions, one table per seed
    folds: list[list[str]]  # that are done, likewise

    @property
    def name(self) -> str:
        return f"{self.cell.model} ({self.cell.digest[:6]})"

    @cached_property
    def done(self) -> int:
        return sum(map(len, self.folds))

    @property
    def total(self) -> int:
        return len(self.cell.folds) * len(self.seeds)

    @property
    def complete(self) -> bool:
        return self.done == self.total

    @cached_property
    def facts(self) -> list[dict]:
        return [facts for each in zip(self.seeds, self.folds) for facts in self.cell.facts(*each)]

    @cached_property
    def summary(self) -> dict:
        """Means over the seeds with their intervals: of the pool, of each database and of each class."""
        return summary(self.tables, self.cell.classes)

    @cached_property
    def ensemble(self) -> pd.DataFrame | None:
        """Predictions of the seeds together, honest as those of each are; None unless several are finished."""
        return scoring.ensemble(self.tables, self.cell.classes) if self.complete and len(self.tables) > 1 else None

    @property
    def uf1(self) -> float:
        """The honest score that ranks."""
        return self.summary["honest"]["uf1"]["mean"]


@dataclass(frozen=True)
class Comparison:
    """Two models on the clips that both have predicted."""

    first: str
    second: str
    clips: int
    subjects: int
    seeds: int
    difference: float
    low: float
    high: float
    p: float
    corrected: float


@dataclass(frozen=True)
class Board:
    """All models of one dataset, protocol and split."""

    dataset: str
    protocol: str
    split: str
    rows: list[Row]  # whole ones first, best honest UF1 first

    @property
    def key(self) -> str:
        return f"{self.dataset}-{self.protocol}-{self.split}"

    @property
    def title(self) -> str:
        return f"{self.dataset}, {self.protocol}, {self.split}"

    @property
    def rules(self) -> str:
        """Protocol and split in words."""
        split = SPLITS.get(self.split) or f"leave one of {self.split.removeprefix('groups')} groups of subjects out"
        return f"protocol {self.protocol}, {split}"

    @property
    def classes(self) -> tuple[str, ...]:
        return self.rows[0].cell.classes

    @cached_property
    def clips(self) -> pd.DataFrame:
        return self.rows[0].cell.clips

    @cached_property
    def databases(self) -> list[str]:
        return sorted({name for row in self.rows for name in row.cell.clips["dataset"]})

    @cached_property
    def unlike(self) -> list[str]:
        """Models whose clips are not those of the first: the data had changed in between."""
        keys = ["dataset", "subject", "clip", "target"]
        clips = {row.name: set(row.cell.clips[keys].itertuples(index=False, name=None)) for row in self.rows}
        return [name for name, found in clips.items() if found != clips[self.rows[0].name]]

    @cached_property
    def references(self) -> dict[str, pd.DataFrame]:
        """Predictions that need no network, by name."""
        found = {
            MAJORITY: baselines.majority(self.clips, self.classes, self.split),
            LOOK_UP: baselines.action_units(self.clips, self.classes, self.split),
        }
        return {name: table for name, table in found.items() if table is not None}

    @cached_property
    def reference_summaries(self) -> dict[str, dict]:
        return {name: summary([table], self.classes) for name, table in self.references.items()}

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every two models, and every model against the majority class: one family, corrected together."""
        chance = self.references[MAJORITY]
        sides = [(row.name, row.tables) for row in self.rows]
        pairs = list(combinations(sides, 2)) + [(side, (MAJORITY, [chance] * len(side[1]))) for side in sides]
        compared = [self._compare(*pair) for pair in pairs]
        found = [each for each in compared if each is not None]
        corrected = significance.holm([each["p"] for each in found])
        return [Comparison(**each, corrected=value) for each, value in zip(found, corrected, strict=True)]

    @property
    def next(self) -> Row | None:
        """The second of the ranking, if it is finished as the first is."""
        return self.rows[1] if len(self.rows) > 1 and self.rows[1].complete == self.rows[0].complete else None

    def compared(self, first: Row, second: Row) -> Comparison | None:
        """The comparison of two models, the better one first."""
        names = (first.name, second.name)
        return next((each for each in self.comparisons if (each.first, each.second) == names), None)

    def _compare(self, one: tuple[str, list[pd.DataFrame]], other: tuple[str, list[pd.DataFrame]]) -> dict | None:
        try:
            first, second = significance.pair(one[1], other[1], self.classes)
        except ValueError:
            return None  # unfinished: no clip in common yet
        low, high = significance.difference_interval(first, second)
        return {
            "first": one[0],
            "second": other[0],
            "clips": int(first[:, 0].sum()),
            "subjects": len(first),
            "seeds": first.shape[1],
            "difference": significance.difference(first, second),
            "low": low,
            "high": high,
            "p": significance.permutation_test(first, second),
        }


def status(results: Path) -> list[dict]:
    """Folds done and scores of every cell and seed, files left out, and what SLURM does, ready for JSON."""
    counts = records.progress(results).counts
    return [
        {
            "dataset": cell.dataset,
            "protocol": cell.protocol,
            "split": cell.split,
            "model": cell.model,
            "digest": cell.digest,
            "seeds": [_seed_status(cell, *each) for each in zip(row.seeds, row.tables, row.folds)] if row else [],
            "summary": row.summary if row else {},
            "ensemble": pooled_scores(row.ensemble, cell.classes) if row and row.ensemble is not None else {},
            "left_out": left_out,
            "jobs": [
                {"seed": seed, **{state: states[state] for state in records.STATES}}
                for (other, seed), states in sorted(counts.items(), key=lambda item: item[0][1])
                if other == cell
            ],
        }
        for cell in cells(results)
        for row, left_out in [_row(cell)]
    ]


def seed_status(cell: Cell, seed: int) -> dict:
    """Folds done and pooled scores of one seed of a cell."""
    pool = cell.pool(seed)
    return _seed_status(cell, seed, pool.table, pool.done)


def _seed_status(cell: Cell, seed: int, table: pd.DataFrame, done: Sequence[str]) -> dict:
    return {
        "seed": seed,
        "folds_done": len(done),
        "folds_total": len(cell.folds),
        **{kind: pooled_scores(table, cell.classes, column) for kind, column in KINDS.items()},
    }


def read(results: Path, only: Sequence[Cell] = ()) -> tuple[list[Board], list[str]]:
    """Every board of a results folder that has a fold done; scores of inner folds only where they are asked for.

    Returns:
        The boards, and the files that are left out because they are not valid, each with the reason.
    """
    found, left_out = [], []
    chosen = only or [cell for cell in cells(results) if not is_inner(cell.split)]
    for key, group in groupby(chosen, key=lambda cell: (cell.dataset, cell.protocol, cell.split)):
        rows = []
        for row, faults in map(_row, group):
            rows += [row] if row else []
            left_out += faults
        if rows:
            found.append(Board(*key, sorted(rows, key=lambda row: (not row.complete, -row.uf1))))
    return found, left_out


def _row(cell: Cell) -> tuple[Row | None, list[str]]:
    """The seeds of a cell that have a fold done, None if there are none; and the files that are left out."""
    try:
        pools = {seed: cell.pool(seed) for seed in cell.seeds()}
    except InputError as error:  # without its clips nothing can be said of any fold
        return None, [str(error)]
    left_out = [f"{cell.file(seed, fold)}: {why}" for seed in pools for fold, why in pools[seed].faults.items()]
    done = {seed: pool for seed, pool in pools.items() if pool.done}
    row = Row(cell, list(done), [pool.table for pool in done.values()], [pool.done for pool in done.values()])
    return (row if done else None), left_out

"""The boards: all models of one dataset, protocol and split; what ``mer status --json`` prints of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, groupby
from pathlib import Path

import pandas as pd

from data_modules.protocols import SPLITS, is_inner
from experiments import references
from experiments.report.figures import KINDS, pooled_scores, summary
from experiments.results import Cell, cells
from mer import significance

MAJORITY, LOOK_UP = "majority class", "action units, looked up"


@dataclass(frozen=True)
class Row:
    """One model of a board."""

    cell: Cell
    seeds: list[int]
    tables: list[pd.DataFrame]  # pooled predictions, one table per seed

    @classmethod
    def of(cls, cell: Cell) -> "Row | None":
        """The seeds that have a fold done; None if there are none."""
        tables = {seed: cell.pooled(seed) for seed in cell.seeds()}
        done = {seed: table for seed, table in tables.items() if not table.empty}
        return cls(cell, list(done), list(done.values())) if done else None

    @property
    def name(self) -> str:
        return f"{self.cell.model} ({self.cell.digest[:6]})"

    @cached_property
    def done(self) -> int:
        return sum(len(self.cell.done(seed)) for seed in self.seeds)

    @property
    def total(self) -> int:
        return len(self.cell.folds) * len(self.seeds)

    @property
    def complete(self) -> bool:
        return self.done == self.total

    @cached_property
    def facts(self) -> list[dict]:
        return [facts for seed in self.seeds for facts in self.cell.facts(seed)]

    @cached_property
    def summary(self) -> dict:
        """Means over the seeds with their intervals: of the pool, of each database and of each class."""
        return summary(self.tables, self.cell.classes)

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
            MAJORITY: references.majority(self.clips, self.classes, self.split),
            LOOK_UP: references.action_units(self.clips, self.classes, self.split),
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
    """Folds done and pooled scores of every cell and seed, ready for JSON."""
    return [
        {
            "dataset": cell.dataset,
            "protocol": cell.protocol,
            "split": cell.split,
            "model": cell.model,
            "digest": cell.digest,
            "seeds": [_seed_status(cell, *each) for each in zip(row.seeds, row.tables)] if row else [],
            "summary": row.summary if row else {},
        }
        for cell in cells(results)
        for row in [Row.of(cell)]
    ]


def seed_status(cell: Cell, seed: int) -> dict:
    """Folds done and pooled scores of one seed of a cell."""
    return _seed_status(cell, seed, cell.pooled(seed))


def _seed_status(cell: Cell, seed: int, table: pd.DataFrame) -> dict:
    return {
        "seed": seed,
        "folds_done": len(cell.done(seed)),
        "folds_total": len(cell.folds),
        **{kind: pooled_scores(table, cell.classes, column) for kind, column in KINDS.items()},
    }


def read(results: Path, only: Sequence[Cell] = ()) -> list[Board]:
    """Every board of a results folder that has a fold done; scores of inner folds only where they are asked for."""
    found = []
    chosen = only or [cell for cell in cells(results) if not is_inner(cell.split)]
    for key, group in groupby(chosen, key=lambda cell: (cell.dataset, cell.protocol, cell.split)):
        rows = [row for row in map(Row.of, group) if row is not None]
        if rows:
            found.append(Board(*key, sorted(rows, key=lambda row: (not row.complete, -row.uf1))))
    return found

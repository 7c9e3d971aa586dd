"""What the predictions say: status for machines, tables for the terminal and ``results/report.md``. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import mean, stdev

import pandas as pd
from rich.console import Console
from rich.table import Table

from data_modules.cache import write_text
from data_modules.protocols import folds
from experiments.results import Cell, cells
from mer import metrics

HEADER = ("model", "seeds", "UF1", "95 % interval", "UAR", "accuracy", "optimistic UF1", "folds")
NOTE = (
    "UF1, UAR and accuracy are honest: pooled over all folds, the number of steps fixed beforehand; mean ± standard "
    "deviation over seeds; the interval is a bootstrap over subjects. The optimistic UF1 picks each fold's epoch on "
    "its own test subject, as much of the literature does, and ranks nothing."
)


@dataclass(frozen=True)
class Row:
    """One model of a leaderboard."""

    cell: Cell
    tables: list[pd.DataFrame]  # pooled predictions, one table per seed
    folds: int
    seconds: float | None

    def score(self, name: str, prediction: str = "prediction") -> list[float]:
        return [metrics.scores(table, self.cell.classes, prediction)[name] for table in self.tables]

    def texts(self) -> tuple[str, ...]:
        done = sum(len(self.cell.done(seed)) for seed in self.cell.seeds())
        low, high = metrics.interval(self.tables, self.cell.classes)
        return (
            f"{self.cell.model} ({self.cell.digest[:6]})",
            str(len(self.tables)),
            spread(self.score("uf1")),
            f"{low:.3f} .. {high:.3f}",
            spread(self.score("uar")),
            spread(self.score("accuracy")),
            spread(self.score("uf1", "optimistic_prediction")),
            f"{done} / {self.folds * len(self.tables)}",
        )


def status(results: Path) -> list[dict]:
    """Folds done and pooled scores of every cell and seed, ready for JSON."""
    return [
        {
            "dataset": cell.dataset,
            "protocol": cell.protocol,
            "split": cell.split,
            "model": cell.model,
            "digest": cell.digest,
            "seeds": [seed_status(cell, seed) for seed in cell.seeds()],
        }
        for cell in cells(results)
    ]


def seed_status(cell: Cell, seed: int) -> dict:
    """Folds done and pooled scores of one seed of a cell."""
    table = cell.pooled(seed)
    kinds = {"honest": "prediction", "optimistic": "optimistic_prediction"}
    return {
        "seed": seed,
        "folds_done": len(cell.done(seed)),
        "folds_total": len(cell.folds),
        **{kind: pooled_scores(cell, table, column) for kind, column in kinds.items()},
    }


def pooled_scores(cell: Cell, table: pd.DataFrame, prediction: str = "prediction") -> dict:
    """UF1, UAR and accuracy of the pool, and of each database under ``parts``."""
    if table.empty:
        return {}
    whole = metrics.scores(table, cell.classes, prediction)
    return {**whole, "parts": metrics.parts(table, cell.classes, prediction)}


def majority(cell: Cell) -> pd.DataFrame:
    """Predictions of the most frequent class of the training clips: what chance is."""
    clips, guesses = cell.clips, {}
    for rows in folds(clips, cell.split).values():
        seen = clips.drop(index=rows)["target"].tolist()
        guess = max(cell.classes, key=seen.count)
        guesses |= dict.fromkeys(rows, guess)
    return clips.assign(prediction=[guesses[row] for row in range(len(clips))])


def leaderboards(results: Path, only: Sequence[Cell] = ()) -> dict[tuple[str, str, str], list[Row]]:
    """Rows by (dataset, protocol, split), best honest UF1 first."""
    boards = {}
    chosen = only or list(cells(results))
    for key, group in groupby(chosen, key=lambda cell: (cell.dataset, cell.protocol, cell.split)):
        rows = []
        for cell in group:
            tables = [cell.pooled(seed) for seed in cell.seeds()]
            seconds = [facts["seconds"] for seed in cell.seeds() for facts in cell.facts(seed)]
            if tables:
                rows.append(Row(cell, tables, len(cell.folds), mean(seconds) if seconds else None))
        if rows:
            boards[key] = sorted(rows, key=lambda row: -mean(row.score("uf1")))
    return boards


def show(results: Path, console: Console, only: Sequence[Cell] = ()) -> None:
    """Print the leaderboards."""
    boards = leaderboards(results, only)
    if not boards:
        console.print(f"no fold is done yet under {results}")
    for (dataset, protocol, split), rows in boards.items():
        table = Table(title=f"{dataset}, {protocol}, {split}", title_justify="left")
        for name in HEADER:
            table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
        for texts in _texts(rows):
            table.add_row(*texts)
        console.print(table)
        for line in (*_parts(rows), f"seconds per fold: {_seconds(rows)}"):
            console.print(line, highlight=False, soft_wrap=True)


def write(results: Path) -> Path:
    """Write ``report.md`` from all that lies in the results folder."""
    lines = ["# Micro-expression recognition, leaving one subject out", "", NOTE, ""]
    for (dataset, protocol, split), rows in leaderboards(results).items():
        classes = rows[0].cell.classes
        lines += [f"## {dataset}, {protocol}, {split}", "", *_markdown(HEADER, _texts(rows))]
        lines += [f"Seconds per fold, never compared: {_seconds(rows)}.", ""]
        databases = sorted(rows[0].tables[0]["dataset"].unique())
        if len(databases) > 1:
            lines += ["UF1 of each database, from the same predictions:", ""]
            lines += _markdown(("model", *databases), [(_name(row), *_part_scores(row, databases)) for row in rows])
        lines += ["F1 of each class:", ""]
        lines += _markdown(("model", *classes), [(_name(row), *_class_scores(row)) for row in rows])
        for row in rows:
            matrix = sum(metrics.confusion(table, classes) for table in row.tables)
            lines += [f"Confusion of {_name(row)}, a row per true class, all seeds:", ""]
            lines += _markdown(("", *classes), [(name, *map(str, line)) for name, line in zip(classes, matrix)])
    write_text(results / "report.md", "\n".join(lines))
    return results / "report.md"


def spread(values: Sequence[float]) -> str:
    """Mean, and the standard deviation where there are several values."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _texts(rows: list[Row]) -> list[tuple[str, ...]]:
    cell = rows[0].cell
    chance = metrics.scores(majority(cell), cell.classes)
    last = ("majority class", "", *(f"{chance['uf1']:.3f}", "", f"{chance['uar']:.3f}", f"{chance['accuracy']:.3f}"))
    return [*(row.texts() for row in rows), (*last, "", "")]


def _parts(rows: list[Row]) -> list[str]:
    databases = sorted(rows[0].tables[0]["dataset"].unique())
    if len(databases) < 2:
        return []
    pairs = (zip(databases, _part_scores(row, databases), strict=True) for row in rows)
    return [
        f"{_name(row)}, UF1 by database: " + ", ".join(f"{name} {score}" for name, score in part)
        for row, part in zip(rows, pairs, strict=True)
    ]


def _seconds(rows: list[Row]) -> str:
    return ", ".join(f"{_name(row)} {row.seconds:.1f}" for row in rows if row.seconds is not None)


def _name(row: Row) -> str:
    return row.texts()[0]


def _part_scores(row: Row, databases: Sequence[str]) -> list[str]:
    found = [metrics.parts(table, row.cell.classes) for table in row.tables]
    return [spread([part[name]["uf1"] for part in found if name in part]) for name in databases]


def _class_scores(row: Row) -> list[str]:
    found = [metrics.per_class(table, row.cell.classes) for table in row.tables]
    return [spread([scores[name]["f1"] for scores in found]) for name in row.cell.classes]


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]

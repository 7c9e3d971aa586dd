"""The tables on a terminal."""

from collections.abc import Sequence
from statistics import median

from rich import table as rich_table
from rich.console import Console
from rich.markup import escape

from experiments.report import tables
from experiments.report.comparison import Comparison
from experiments.report.formatting import number
from experiments.report.leaderboard import leaderboard, tuned_on
from experiments.report.tables import MODEL, Line, Table
from experiments.results import Cell
from experiments.slurm.records import STATES, UNKNOWN, Progress
from mer import InputError
from mer.evaluation import scoring

MOST_LOGS = 5  # of jobs that failed: the latest
LEADERBOARD = ("model", "seeds", "UF1", "95 % interval", "UAR", "accuracy", "optimistic UF1", "folds")  # what has room


def show(comparisons: Sequence[Comparison], left_out: Sequence[str], console: Console) -> None:
    """Print the leaderboards, UF1 by database, seconds, and the files that are no results."""
    for comparison in comparisons:
        _print(leaderboard(comparison), comparison.title, LEADERBOARD, console)
        if databases := tables.databases(comparison):
            columns = ("model", *(name for name in databases.header if name.endswith(" UF1")))
            _print(databases, databases.title, columns, console)
        for line in _remarks(comparison):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    lines = [f"left out: {text}" for text in left_out]
    for line in [*lines, "the next sweep moves these aside and trains their folds again"] if lines else []:
        console.print(line, style="yellow", highlight=False, soft_wrap=True, markup=False)


def show_jobs(progress: Progress, console: Console) -> None:
    """Print how many folds are done, running, queued or lost of every cell and seed that SLURM works at."""
    if progress.counts:
        seen = set().union(*progress.counts.values())
        states = [name for name in STATES if name != UNKNOWN or UNKNOWN in seen]
        header = ("model", "dataset", "seed", "done", *states)
        lines = tuple(
            Line(MODEL, (cell.label, cell.dataset, str(seed), _done(cell, seed), *(str(counts[s]) for s in states)))
            for (cell, seed), counts in progress.counts.items()
        )
        _print(Table("slurm", "SLURM, folds", header, lines, texts=(0, 1)), "SLURM, folds", header, console)
    waiting = ", ".join(f"{reason} ({count} jobs)" for reason, count in progress.reasons.most_common())
    lines = [f"failed or cancelled: {log}" for log in progress.logs[-MOST_LOGS:]]
    lines += [f"queued because of: {waiting}"] * bool(waiting) + [progress.problem] * bool(progress.problem)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _print(table: Table, title: str, columns: Sequence[str], console: Console) -> None:
    """Print some columns of a table."""
    places = [table.header.index(name) for name in columns]
    printed = rich_table.Table(title=escape(title), title_justify="left")
    for place in places:
        printed.add_column(table.header[place], justify="left" if place in table.texts else "right", no_wrap=True)
    for line in table.lines:
        printed.add_row(*(escape(line.texts[place]) for place in places))
    console.print(printed)


def _done(cell: Cell, seed: int) -> str:
    try:
        return f"{len(cell.done(seed))} / {len(cell.folds)}"
    except InputError:  # the tables above have named it
        return "unreadable"


def _remarks(comparison: Comparison) -> list[str]:
    lines, seconds = [], []
    for model in comparison.models:
        if model.ensemble is not None:
            uf1 = scoring.scores(model.ensemble, comparison.classes)["uf1"]
            lines.append(f"{model.name}, {len(model.seeds)} seeds together, probabilities averaged: UF1 {number(uf1)}")
        if measured := [facts["seconds"] for facts in model.facts if "seconds" in facts]:
            seconds.append(f"{model.name} {median(measured):.1f}")
    if tuned := [model.name for model in comparison.models if tuned_on(model).intersection(comparison.databases)]:
        lines.append(f"tuned here, with scores of these subjects: {', '.join(tuned)}")
    return [*lines, f"seconds per fold: {', '.join(seconds)}"]

"""The leaderboards on a terminal."""

from collections.abc import Sequence
from statistics import mean

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.report.boards import Board
from experiments.report.figures import interval, number, spread
from experiments.results import Cell
from experiments.slurm.records import STATES, UNKNOWN, Progress
from mer import InputError
from mer.evaluation import scoring

MOST_LOGS = 5  # of jobs that failed: the latest
HEADER = ("model", "seeds", "UF1", "95 % interval", "UAR", "accuracy", "optimistic UF1", "folds")


def show(boards: Sequence[Board], left_out: Sequence[str], console: Console) -> None:
    """Print the leaderboards, UF1 by database, seconds, and the files that are no results."""
    for board in boards:
        table = Table(title=escape(board.title), title_justify="left")
        for name in HEADER:
            table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
        for texts in _lines(board):
            table.add_row(*map(escape, texts))
        console.print(table)
        for line in _remarks(board):
            console.print(line, highlight=False, soft_wrap=True, markup=False)
    lines = [f"left out: {text}" for text in left_out]
    for line in [*lines, "the next sweep moves these aside and trains their folds again"] if lines else []:
        console.print(line, style="yellow", highlight=False, soft_wrap=True, markup=False)


def show_jobs(progress: Progress, console: Console) -> None:
    """Print how many folds are done, running, queued or lost of every cell and seed that SLURM works at."""
    if progress.counts:
        table = Table(title="SLURM, folds", title_justify="left")
        names = [name for name in STATES if name != UNKNOWN or any(counts[name] for counts in progress.counts.values())]
        for name in ("model", "dataset", "seed", "done", *names):
            table.add_column(name, justify="left" if name in ("model", "dataset") else "right", no_wrap=True)
        for (cell, seed), counts in progress.counts.items():
            name = f"{cell.model} ({cell.digest[:6]})"
            table.add_row(name, cell.dataset, str(seed), _done(cell, seed), *(str(counts[state]) for state in names))
        console.print(table)
    waiting = ", ".join(f"{reason} ({count} jobs)" for reason, count in progress.reasons.most_common())
    lines = [f"failed or cancelled: {log}" for log in progress.logs[-MOST_LOGS:]]
    lines += [f"queued because of: {waiting}"] * bool(waiting) + [progress.problem] * bool(progress.problem)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _done(cell: Cell, seed: int) -> str:
    try:
        return f"{len(cell.done(seed))} / {len(cell.folds)}"
    except InputError:  # the tables above have named it
        return "unreadable"


def _lines(board: Board) -> list[tuple[str, ...]]:
    lines = []
    for row in board.rows:
        honest, optimistic = row.summary["honest"], row.summary["optimistic"]
        scores = (spread(honest["uf1"]), interval(honest["uf1"]), spread(honest["uar"]), spread(honest["accuracy"]))
        folds = f"{row.done} / {row.total}"
        lines.append((row.name, str(len(row.tables)), *scores, spread(optimistic["uf1"]), folds))
    for name, summary in board.reference_summaries.items():
        uf1, uar, accuracy = (number(figure["mean"]) for figure in summary["honest"].values())
        lines.append((name, "", uf1, "", uar, accuracy, "", ""))
    return lines


def _remarks(board: Board) -> list[str]:
    lines = []
    if len(board.databases) > 1:
        for row in board.rows:
            parts = row.summary["parts"].items()
            scores = ", ".join(f"{name} {spread(part['honest']['uf1'])}" for name, part in parts)
            lines.append(f"{row.name}, UF1 by database: {scores}")
    together = [(row, row.ensemble) for row in board.rows if row.ensemble is not None]
    for row, table in together:
        score = scoring.scores(table, board.classes)["uf1"]
        lines.append(f"{row.name}, {len(row.seeds)} seeds together, probabilities averaged: UF1 {number(score)}")
    seconds = {row.name: [facts["seconds"] for facts in row.facts if "seconds" in facts] for row in board.rows}
    told = ", ".join(f"{name} {mean(values):.1f}" for name, values in seconds.items() if values)
    return [*lines, f"seconds per fold: {told}"]

"""The leaderboards on a terminal."""

from collections.abc import Sequence
from statistics import mean

from rich.console import Console
from rich.table import Table

from experiments.report.boards import Board
from experiments.report.figures import interval, number, spread

HEADER = ("model", "seeds", "UF1", "95 % interval", "UAR", "accuracy", "optimistic UF1", "folds")


def show(boards: Sequence[Board], console: Console) -> None:
    """Print the leaderboards, UF1 by database, and seconds."""
    for board in boards:
        table = Table(title=board.title, title_justify="left")
        for name in HEADER:
            table.add_column(name, justify="left" if name == "model" else "right", no_wrap=True)
        for texts in _lines(board):
            table.add_row(*texts)
        console.print(table)
        for line in _remarks(board):
            console.print(line, highlight=False, soft_wrap=True)


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
    seconds = {row.name: [facts["seconds"] for facts in row.facts] for row in board.rows}
    told = ", ".join(f"{name} {mean(values):.1f}" for name, values in seconds.items() if values)
    return [*lines, f"seconds per fold: {told}"]

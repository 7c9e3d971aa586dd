"""What the predictions say: status for machines, tables for a terminal, a page, Markdown and CSV. No torch."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from experiments.report import page, terminal
from experiments.report.comparison import read_comparisons, seed_status, status
from experiments.results import Cell
from experiments.slurm import records
from mer import InputError

__all__ = ["build", "seed_status", "show", "status", "write"]


def show(results: Path, console: Console, only: Sequence[Cell] = ()) -> None:
    """Print the leaderboards; of all cells, unless some are named, and then with the jobs of SLURM."""
    comparisons, left_out = read_comparisons(results, only)
    if not comparisons:
        console.print(f"no fold is done yet under {results}", markup=False)
    terminal.show(comparisons, left_out, console)
    if not only:
        terminal.show_jobs(records.progress(results), console)


def write(results: Path, cache: Path | None = None) -> Path:
    """Write ``report/index.html``, ``report.md``, ``leaderboard.md`` and ``data/*.csv`` from all results of a folder.

    Args:
        results: What ``mer sweep`` has filled.
        cache: Where the faces of the gallery are; None leaves them out.

    Returns:
        The page.
    """
    return page.write(*read_comparisons(results), results, cache)


def build(results: Path, console: Console, cache: Path | None) -> Path:
    """Print the leaderboards and write the report, reading the predictions once.

    Raises:
        InputError: If there is nothing to report on.
    """
    if not results.is_dir():
        raise InputError(f"{results}: there is no such folder; name the results of a sweep with --results")
    comparisons, left_out = read_comparisons(results)
    if not comparisons:
        reasons = "".join(f"\n  left out: {text}" for text in left_out[:20])
        raise InputError(
            f"{results}: no fold is done there; run mer sweep first, or name its results with --results{reasons}"
        )
    terminal.show(comparisons, left_out, console)
    return page.write(comparisons, left_out, results, cache)

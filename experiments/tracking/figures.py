"""The figures of a run: its scores by name, and the curve of a fold."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from experiments import report
from experiments.report.scores import KINDS
from experiments.results import Cell
from mer.evaluation import scoring


def seed_scores(cell: Cell, seed: int) -> dict[str, float]:
    """The report's scores of one seed, flat, with an interval for every score and the scores of every class.

    They are called ``honest/...`` and ``optimistic/...``; honest scores of inner folds are ``inner/...``, and there
    are none before every inner fold is done, because a search may pick by them.
    """
    table, status = cell.pooled(seed), report.seed_status(cell, seed)
    for kind, column in KINDS.items():
        if table.empty:
            continue
        for score, (low, high) in scoring.intervals([table], cell.classes, column).items():
            status[kind] |= {f"{score}_low": low, f"{score}_high": high}
        status[kind]["classes"] = scoring.per_class(table, cell.classes, column)
    if cell.outer_fold:
        scores = status.pop("honest")
        if status["folds_done"] == status["folds_total"]:
            status["inner"] = scores
    return {name: value for name, value in _flat(status) if name != "seed"}


def _flat(values: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", value


def curve(rows: Sequence[dict]) -> dict[int, dict[str, float]]:
    """What was logged at each step of a fold, one learning rate for all groups of parameters."""
    points: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for row in rows:
        values = {"lr" if name.startswith("lr-") else name: value for name, value in row.items()}
        points[row["step"]] |= {name: value for name, value in values.items() if name not in ("step", "epoch")}
    return points

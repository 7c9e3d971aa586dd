"""Scores of one model: of one seed's pool, and their mean, spread and interval over several seeds."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import mean, stdev

import pandas as pd

from mer.evaluation import scoring

KINDS = {"honest": "prediction", "optimistic": "optimistic_prediction"}


def pooled_scores(table: pd.DataFrame, classes: Sequence[str], prediction: str = "prediction") -> dict:
    """UF1, UAR and accuracy of the pool, and of each database under ``parts``; empty without predictions."""
    if table.empty:
        return {}
    with _no_warning_of_absent_classes():
        scores = scoring.scores(table, classes, prediction)
        return {**scores, "parts": scoring.parts(table, classes, prediction)}


def summarise(tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> dict:
    """Scores as means over the seeds, with deviations and bootstrap intervals.

    Args:
        tables: Predictions, one table per seed, none empty.
        classes: The protocol's classes.

    Returns:
        ``honest`` and ``optimistic`` (where there is such a column) hold ``uf1``, ``uar`` and ``accuracy``; ``parts``
        the same by database with its number of ``clips``; ``classes`` by class ``clips``, ``f1`` and ``recall``. Each
        figure has ``mean`` and ``deviation`` over the seeds (None for a single one) and, for a score, ``low`` and
        ``high``.
    """
    names = sorted(set.intersection(*(set(table["dataset"]) for table in tables)))
    parts = {name: [table[table["dataset"] == name] for table in tables] for name in names}
    with _no_warning_of_absent_classes():
        return {
            **_by_kind(tables, classes),
            "parts": {name: {"clips": len(part[0]), **_by_kind(part, classes)} for name, part in parts.items()},
            "classes": _by_class(tables, classes),
        }


def _by_kind(tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> dict[str, dict[str, dict]]:
    return {kind: _scores(tables, classes, column) for kind, column in KINDS.items() if column in tables[0]}


def _scores(tables: Sequence[pd.DataFrame], classes: Sequence[str], column: str) -> dict[str, dict]:
    seeds = [scoring.scores(table, classes, column) for table in tables]
    return {
        name: {**_over_seeds([scores[name] for scores in seeds]), "low": low, "high": high}
        for name, (low, high) in scoring.intervals(tables, classes, column).items()
    }


def _by_class(tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> dict[str, dict]:
    seeds = [scoring.per_class(table, classes) for table in tables]
    return {
        name: {
            "clips": seeds[0][name]["clips"],
            **{score: _over_seeds([scores[name][score] for scores in seeds]) for score in ("f1", "recall")},
        }
        for name in classes
    }


def _over_seeds(values: Sequence[float]) -> dict:
    return {"mean": mean(values), "deviation": stdev(values) if len(values) > 1 else None}


@contextmanager
def _no_warning_of_absent_classes() -> Iterator[None]:
    """Small databases lack classes; a note under the table says so, once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="no clip of")
        yield

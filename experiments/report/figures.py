"""The figures: scores with their spread and interval, and how they are written, in this one place."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import mean, stdev

import pandas as pd

from mer.evaluation import scoring

KINDS = {"honest": "prediction", "optimistic": "optimistic_prediction"}


def number(value: float | None) -> str:
    """A score as it is shown everywhere: three decimals."""
    return "" if value is None else f"{value:.3f}"


def spread(figure: dict) -> str:
    """Mean, and the standard deviation where there are several seeds."""
    deviation = figure["deviation"]
    return number(figure["mean"]) + ("" if deviation is None else f" ± {number(deviation)}")


def interval(figure: dict) -> str:
    """The two ends of an interval."""
    return f"{number(figure['low'])} .. {number(figure['high'])}"


def signed(value: float) -> str:
    """A difference of scores, with its sign."""
    return f"{value:+.3f}".replace("-", "−")


def p_value(value: float) -> str:
    """A p-value with what it is worth: 9,999 random exchanges and the one observed."""
    return "≤ 0.0001" if value <= 0.0001 else f"{value:.4f}" if value < 0.01 else number(value)


def pooled_scores(table: pd.DataFrame, classes: Sequence[str], prediction: str = "prediction") -> dict:
    """UF1, UAR and accuracy of the pool, and of each database under ``parts``."""
    if table.empty:
        return {}
    with _absent_classes_are_told_elsewhere():
        whole = scoring.scores(table, classes, prediction)
        return {**whole, "parts": scoring.parts(table, classes, prediction)}


def summary(tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> dict:
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
    with _absent_classes_are_told_elsewhere():
        whole = _kinds(tables, classes)
        several = len(names) > 1 or any(set(table["dataset"]) != set(names) for table in tables)
        parts = {name: [table[table["dataset"] == name] for table in tables] for name in names} if several else {}
        return {
            **whole,
            "parts": {name: {"clips": len(part[0]), **_kinds(part, classes)} for name, part in parts.items()}
            or {name: {"clips": len(tables[0]), **whole} for name in names},
            "classes": _classes(tables, classes),
        }


def _kinds(tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> dict[str, dict[str, dict]]:
    return {kind: _scores(tables, classes, column) for kind, column in KINDS.items() if column in tables[0]}


def _scores(tables: Sequence[pd.DataFrame], classes: Sequence[str], column: str) -> dict[str, dict]:
    values = [scoring.scores(table, classes, column) for table in tables]
    return {
        name: {**_over_seeds([each[name] for each in values]), "low": low, "high": high}
        for name, (low, high) in scoring.intervals(tables, classes, column).items()
    }


def _classes(tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> dict[str, dict]:
    found = [scoring.per_class(table, classes) for table in tables]
    return {
        name: {
            "clips": found[0][name]["clips"],
            "f1": _over_seeds([each[name]["f1"] for each in found]),
            "recall": _over_seeds([each[name]["recall"] for each in found]),
        }
        for name in classes
    }


def _over_seeds(values: Sequence[float]) -> dict:
    return {"mean": mean(values), "deviation": stdev(values) if len(values) > 1 else None}


@contextmanager
def _absent_classes_are_told_elsewhere() -> Iterator[None]:
    """Small databases lack classes; the tables say so under them, once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="no clip of")
        yield

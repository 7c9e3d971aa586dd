"""Scores of a protocol, computed from the pooled predictions of all its folds and from nothing else.

Counts are summed over the folds before a ratio is taken. The mean of per-fold scores is another, biased number (Forman
and Scholz, Apples-to-apples in cross-validation studies, SIGKDD Explorations 2010).

A table of predictions has one row per tested clip and the columns ``dataset``, ``subject``, ``clip``, ``target`` and
``prediction``, the last two holding names of classes. ``classes`` is always the protocol's fixed list.

The formulas ``uf1``, ``uar`` and ``accuracy`` are written only here; ``mer.evaluation.metrics`` calls them. Nothing
here imports torch, so that ``mer status`` and ``mer report`` start fast.
"""

import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def confusion(table: pd.DataFrame, classes: Sequence[str], prediction: str = "prediction") -> NDArray[np.int64]:
    """Confusion matrix of a table of predictions.

    Args:
        table: Predictions, one row per clip.
        classes: The protocol's K classes, in its order.
        prediction: Column that holds the predicted class, e.g. ``optimistic_prediction``.

    Returns:
        Number of clips, shape (K, K); a row per target, a column per prediction.

    Raises:
        ValueError: If a column is missing or a class is none of ``classes``.
    """
    targets, predictions = _codes(table, classes, "target"), _codes(table, classes, prediction)
    return _count(targets * len(classes) + predictions, len(classes) ** 2).reshape(len(classes), len(classes))


def confusion_by_subject(
    table: pd.DataFrame, classes: Sequence[str], subjects: pd.MultiIndex, prediction: str = "prediction"
) -> NDArray[np.int64]:
    """Confusion matrix of every subject, whose sum is the confusion matrix of the table.

    Args:
        table: Predictions, one row per clip.
        classes: The protocol's K classes, in its order.
        subjects: Pairs (dataset, subject), all that the table has and maybe more.
        prediction: Column that holds the predicted class.

    Returns:
        Number of clips, shape (subjects, K, K), in the order of ``subjects``.

    Raises:
        ValueError: If a column is missing or a class is none of ``classes``.
    """
    count, cells = len(subjects), len(classes) ** 2
    owner = subjects.get_indexer(pd.MultiIndex.from_frame(table[["dataset", "subject"]]))
    pairs = _codes(table, classes, "target") * len(classes) + _codes(table, classes, prediction)
    return _count(owner * cells + pairs, count * cells).reshape(count, len(classes), len(classes))


def uf1(matrix: NDArray) -> NDArray[np.float64]:
    """Unweighted F1: mean over the classes of 2 TP / (2 TP + FP + FN), 0 for a class never there and never predicted.

    Args:
        matrix: Confusion matrices, shape (..., K, K).

    Returns:
        Scores in [0, 1], shape (...).
    """
    return _f1(matrix).mean(-1)


def uar(matrix: NDArray) -> NDArray[np.float64]:
    """Unweighted average recall: mean over the classes of TP / clips, 0 for a class without a clip.

    Args:
        matrix: Confusion matrices, shape (..., K, K).

    Returns:
        Scores in [0, 1], shape (...).
    """
    return _recall(matrix).mean(-1)


def accuracy(matrix: NDArray) -> NDArray[np.float64]:
    """Share of the clips that are right.

    Args:
        matrix: Confusion matrices, shape (..., K, K).

    Returns:
        Scores in [0, 1], shape (...); 0 where there is no clip.
    """
    return _ratio(_hits(matrix).sum(-1), matrix.sum((-2, -1)))


SCORES = {"uf1": uf1, "uar": uar, "accuracy": accuracy}


def scores(table: pd.DataFrame, classes: Sequence[str], prediction: str = "prediction") -> dict[str, float]:
    """UF1, UAR and accuracy of the pooled predictions.

    A class without a clip counts 0 in UAR, as it does in UF1 if it is never predicted either, and is warned about.

    Args:
        table: Predictions, one row per clip.
        classes: The protocol's classes.
        prediction: Column that holds the predicted class.

    Returns:
        ``uf1``, ``uar`` and ``accuracy``, in [0, 1].

    Raises:
        ValueError: If the table is empty, a column is missing or a class is none of ``classes``.
    """
    if table.empty:
        raise ValueError("there is no score of no predictions: the table is empty")
    matrix = confusion(table, classes, prediction)
    absent = [name for name, clips in zip(classes, matrix.sum(1), strict=True) if clips == 0]
    if absent:
        warnings.warn(f"no clip of {', '.join(absent)}: counts 0 in UAR", stacklevel=2)
    return {name: float(score(matrix)) for name, score in SCORES.items()}


def parts(table: pd.DataFrame, classes: Sequence[str], prediction: str = "prediction") -> dict[str, dict[str, float]]:
    """Scores of each database, from the same predictions as the score of the whole.

    Args:
        table: Predictions, one row per clip.
        classes: The protocol's classes, all of which count in every database.
        prediction: Column that holds the predicted class.

    Returns:
        Scores as from ``scores``, by database in alphabetical order.

    Raises:
        ValueError: As ``scores``.
    """
    return {str(name): scores(rows, classes, prediction) for name, rows in table.groupby("dataset", sort=True)}


def ensemble(tables: Sequence[pd.DataFrame], classes: Sequence[str]) -> pd.DataFrame:
    """Predictions of several networks together: the class whose probability is the highest on average.

    Args:
        tables: Predictions with the columns ``p_<class>``, one table per seed.
        classes: The protocol's classes.

    Returns:
        One row for every clip that all tables have: ``dataset``, ``subject``, ``clip``, ``target``, ``prediction`` and
        the average ``p_<class>``.

    Raises:
        ValueError: If there is no table, or a column is missing.
    """
    key, probabilities = ["dataset", "subject", "clip", "target"], [f"p_{name}" for name in classes]
    if not tables or any(set([*key, *probabilities]) - set(table) for table in tables):
        raise ValueError(f"an ensemble needs tables with the columns {', '.join([*key, *probabilities])}")
    rows = pd.concat([table[[*key, *probabilities]] for table in tables])
    grouped = rows.groupby(key, sort=True, as_index=False)
    mean = grouped.mean().loc[grouped.size()["size"] == len(tables)].reset_index(drop=True)
    return mean.assign(prediction=[classes[code] for code in mean[probabilities].to_numpy().argmax(1)])


def per_class(
    table: pd.DataFrame, classes: Sequence[str], prediction: str = "prediction"
) -> dict[str, dict[str, float]]:
    """F1 and recall of each class, whose means are UF1 and UAR.

    Args:
        table: Predictions, one row per clip.
        classes: The protocol's classes.
        prediction: Column that holds the predicted class.

    Returns:
        ``clips`` (a count), ``f1`` and ``recall`` in [0, 1], by class in the protocol's order.

    Raises:
        ValueError: If a column is missing or a class is none of ``classes``.
    """
    matrix = confusion(table, classes, prediction)
    columns = zip(classes, matrix.sum(1), _f1(matrix), _recall(matrix), strict=True)
    return {name: {"clips": int(n), "f1": float(f1), "recall": float(recall)} for name, n, f1, recall in columns}


def interval(
    tables: Sequence[pd.DataFrame],
    classes: Sequence[str],
    score: str = "uf1",
    prediction: str = "prediction",
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """Interval of one score, see ``intervals``.

    Raises:
        ValueError: As ``intervals``.
        KeyError: If there is no such score.
    """
    return intervals(tables, classes, prediction, level, samples, seed)[score]


def intervals(
    tables: Sequence[pd.DataFrame],
    classes: Sequence[str],
    prediction: str = "prediction",
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Percentile bootstrap intervals of the scores, over subjects (Efron and Tibshirani, 1993).

    Whole subjects are drawn with replacement, because the clips of one face are not independent. A subject is the
    pair (dataset, subject). A draw without any clip of a class counts 0 for it, as the score does. The order of the
    rows does not matter.

    Args:
        tables: Predictions, one row per clip, one table per seed; the score is the mean over the seeds, and every seed
            has the same subjects in a draw.
        classes: The protocol's classes.
        prediction: Column that holds the predicted class.
        level: Share of the draws between the two ends.
        samples: Number of draws.
        seed: Seed of the draws.

    Returns:
        Lower and upper end of ``uf1``, ``uar`` and ``accuracy``.

    Raises:
        ValueError: If a table is empty, a column is missing or a class is none of ``classes``.
    """
    if not tables or any(table.empty for table in tables):
        raise ValueError("there is no interval of no predictions: a table is empty")
    keys = pd.MultiIndex.from_frame(pd.concat(tables)[["dataset", "subject"]]).unique().sort_values()
    draws = _draws(len(keys), samples, seed)
    totals = {name: np.zeros(samples) for name in SCORES}
    for table in tables:
        matrices = confusion_by_subject(table, classes, keys, prediction).reshape(len(keys), -1)
        # Matrix products are fast in float64 alone, and counts are exact in it.
        drawn = (draws @ matrices.astype(np.float64)).reshape(samples, len(classes), len(classes))
        for name, score in SCORES.items():
            totals[name] += score(drawn)
    ends = [(1 - level) / 2, (1 + level) / 2]
    return {
        name: (float(low), float(high))
        for name, total in totals.items()
        for low, high in [np.quantile(total / len(tables), ends)]
    }


@lru_cache(maxsize=16)
def _draws(subjects: int, samples: int, seed: int) -> NDArray[np.float64]:
    """How often each subject is in each draw, shape (samples, subjects)."""
    draws = np.random.default_rng(seed).multinomial(subjects, np.full(subjects, 1 / subjects), size=samples)
    return draws.astype(np.float64)


def _codes(table: pd.DataFrame, classes: Sequence[str], column: str) -> NDArray[np.int64]:
    """The classes in a column as indices into ``classes``, shape (clips,)."""
    if len(set(classes)) != len(classes):
        raise ValueError(f"a class is listed twice: {', '.join(classes)}")
    if column not in table:
        raise ValueError(f"the table of predictions has no column '{column}'; it has {', '.join(map(str, table))}")
    codes = pd.Index(classes).get_indexer(pd.Index(table[column]))
    if (codes < 0).any():
        unknown = sorted({str(name) for name in table[column][codes < 0]})
        raise ValueError(f"{column} '{unknown[0]}' is no class of the protocol, which has {', '.join(classes)}")
    return codes.astype(np.int64)


def _count(values: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    return np.bincount(values, minlength=length).astype(np.int64)


def _hits(matrix: NDArray) -> NDArray:
    return np.diagonal(matrix, axis1=-2, axis2=-1)


def _f1(matrix: NDArray) -> NDArray[np.float64]:
    return _ratio(2 * _hits(matrix), matrix.sum(-1) + matrix.sum(-2))


def _recall(matrix: NDArray) -> NDArray[np.float64]:
    return _ratio(_hits(matrix), matrix.sum(-1))


def _ratio(part: NDArray, whole: NDArray) -> NDArray[np.float64]:
    return np.where(whole == 0, 0.0, part / np.maximum(whole, 1))

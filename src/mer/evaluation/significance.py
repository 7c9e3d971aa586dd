"""Whether one model is better than another on the same clips: paired tests over subjects.

A subject's clips are of one face, so whole subjects are exchanged and drawn, as in ``scoring.intervals``. A model's
score is the mean over its seeds, and a subject is exchanged for all seeds at once. In a leave-one-subject-out run each
subject has networks of its own, so the randomness of training is exchanged too.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mer.evaluation.scoring import SCORES, confusion_by_subject

KEYS = ["dataset", "subject", "clip"]


def pair(
    first: Sequence[pd.DataFrame], second: Sequence[pd.DataFrame], classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Confusion matrices of two models, subject by subject, over the clips that both have predicted with every seed.

    Args:
        first: Predictions of one model, one row per clip, one table per seed.
        second: Predictions of the other. Where one has more seeds, its last ones are left out: the n-th seed of one
            stands beside the n-th of the other.
        classes: The protocol's K classes.

    Returns:
        Counts of the first and of the second model, each of shape (subjects, seeds, K, K).

    Raises:
        ValueError: If there is no table, no clip that all share, or a class that is none of ``classes``.
    """
    seeds = min(len(first), len(second))
    if not seeds:
        raise ValueError("there is nothing to compare: a model has no predictions")
    tables = [*first[:seeds], *second[:seeds]]
    keys = [pd.MultiIndex.from_frame(table[KEYS]) for table in tables]
    shared = keys[0]
    for key in keys[1:]:
        shared = shared.intersection(key)
    if shared.empty:
        raise ValueError("there is nothing to compare: the models have no clip in common")
    tables = [table[key.isin(shared)] for table, key in zip(tables, keys, strict=True)]
    subjects = pd.MultiIndex.from_frame(tables[0][KEYS[:2]]).unique().sort_values()
    counts = np.stack([confusion_by_subject(table, classes, subjects) for table in tables], axis=1)
    return counts[:, :seeds], counts[:, seeds:]


def difference(first: NDArray, second: NDArray, score: str = "uf1") -> float:
    """Score of the first model less that of the second, each the mean over its seeds.

    Args:
        first: Counts, shape (subjects, seeds, K, K), as from ``pair``.
        second: Counts, like ``first``.
        score: ``uf1``, ``uar`` or ``accuracy``.
    """
    return float(_difference(first.sum(0), second.sum(0), score))


def permutation_test(
    first: NDArray, second: NDArray, score: str = "uf1", permutations: int = 9999, seed: int = 0
) -> float:
    """Two-sided p-value of a paired permutation test (Good, Permutation, Parametric and Bootstrap Tests, 2005).

    If the models were alike, either could have made the predictions of each subject: the subject's predictions are
    exchanged between the two, all its clips and seeds at once, and the p-value is the share of the exchanges that give
    a difference of scores as large as the one observed, which counts as one of them.

    Args:
        first: Counts, shape (subjects, seeds, K, K), as from ``pair``.
        second: Counts, like ``first``.
        score: ``uf1``, ``uar`` or ``accuracy``.
        permutations: Number of random exchanges; if there are not more than that, all are tried once.
        seed: Seed of the exchanges.

    Returns:
        In (0, 1].
    """
    subjects = len(first)
    exact = 2**subjects <= permutations
    if exact:
        exchanged = np.arange(2**subjects)[:, None] >> np.arange(subjects) & 1
    else:
        exchanged = np.random.default_rng(seed).integers(2, size=(permutations, subjects))
    shape = (len(exchanged), *first.shape[1:])
    moved = (exchanged.astype(float) @ (first - second).reshape(subjects, -1)).reshape(shape)
    differences = np.abs(_difference(first.sum(0) - moved, second.sum(0) + moved, score))
    reached = int((differences >= abs(difference(first, second, score)) - 1e-12).sum())
    return reached / len(differences) if exact else (reached + 1) / (permutations + 1)


def difference_interval(
    first: NDArray, second: NDArray, score: str = "uf1", level: float = 0.95, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the difference between two models, over subjects, the same ones for both.

    Args:
        first: Counts, shape (subjects, seeds, K, K), as from ``pair``.
        second: Counts, like ``first``.
        score: ``uf1``, ``uar`` or ``accuracy``.
        level: Share of the draws between the two ends.
        samples: Number of draws.
        seed: Seed of the draws.

    Returns:
        Lower and upper end.
    """
    count = len(first)
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    shape = (samples, *first.shape[1:])
    drawn_first, drawn_second = ((draws @ counts.reshape(count, -1)).reshape(shape) for counts in (first, second))
    low, high = np.quantile(_difference(drawn_first, drawn_second, score), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: at most one family of tests in twenty has a false one below 0.05.

    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 1979.

    Args:
        p_values: Of one family of tests, in any order.

    Returns:
        Corrected p-values in the same order, none above 1.
    """
    values = np.asarray(p_values, float)
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(steps, 1)
    return corrected.tolist()


def _difference(first: NDArray, second: NDArray, score: str) -> NDArray[np.float64]:
    """Difference of the mean scores over seeds, shape (...), of counts (..., seeds, K, K)."""
    return SCORES[score](first).mean(-1) - SCORES[score](second).mean(-1)

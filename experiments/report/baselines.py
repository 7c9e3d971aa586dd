"""What needs no network: the most frequent class, two classic classifiers, a reader of action-unit codes. No torch.

All are predictions of the same folds, made without the held-out subject, and are scored like a model's.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_modules.action_units import parse
from data_modules.protocols import folds

GRID = 7
"""Cells in a row and column of the averaged flow map, which the classifiers read."""
TUNED_ON = {"casme2", "smic"}
"""Databases whose scores the grid was chosen by, for AHMSA-Net."""


def majority(clips: pd.DataFrame, classes: Sequence[str], split: str = "loso") -> pd.DataFrame:
    """The most frequent class of each fold's training clips, the first in the protocol's order where two are: chance.

    Args:
        clips: Table with ``dataset``, ``subject``, ``clip`` and ``target``.
        classes: The protocol's classes.
        split: How the folds are made.

    Returns:
        The table with a column ``prediction``.
    """
    guesses: dict[int, str] = {}
    for rows in folds(clips, split).values():
        targets = clips.drop(index=rows)["target"].tolist()
        guesses |= dict.fromkeys(rows, max(classes, key=targets.count))
    return clips.assign(prediction=[guesses[row] for row in range(len(clips))])


def support_vectors(
    clips: pd.DataFrame, maps: NDArray[np.float32], classes: Sequence[str], split: str = "loso"
) -> pd.DataFrame:
    """Support vectors with a Gaussian kernel on averaged flow maps (Cortes and Vapnik, Machine Learning, 1995).

    C and the kernel's width are not tuned: they are scikit-learn's defaults, C = 1 and gamma = 1 / (values x variance)
    of the training clips. Classes have equal weight, as UF1 gives them.

    Args:
        clips: Table with ``dataset``, ``subject``, ``clip`` and ``target``.
        maps: Its flow maps, normalised clip by clip, shape (clips, 3, S, S).
        classes: The protocol's classes.
        split: How the folds are made.

    Returns:
        The table with a column ``prediction``.
    """
    from sklearn.svm import SVC  # half a second

    machine = SVC(class_weight="balanced")
    return _classify(
        lambda train, targets, test: machine.fit(train, targets).predict(test), clips, maps, classes, split
    )


def nearest_class_mean(
    clips: pd.DataFrame, maps: NDArray[np.float32], classes: Sequence[str], split: str = "loso"
) -> pd.DataFrame:
    """The class whose mean of the averaged flow maps of the training clips is nearest, see ``support_vectors``."""

    def nearest(train: NDArray, targets: NDArray, test: NDArray) -> NDArray:
        names = np.unique(targets.astype(str))
        means = np.stack([train[targets == name].mean(0) for name in names])  # (classes, values)
        return names[((test[:, None] - means) ** 2).sum(-1).argmin(1)]

    return _classify(nearest, clips, maps, classes, split)


def action_units(clips: pd.DataFrame, classes: Sequence[str], split: str = "loso") -> pd.DataFrame | None:
    """The label looked up by the human action-unit codes: what a perfect reader of the muscles could reach.

    A clip gets the class that most training clips with the same set of action units have. Where no training clip has
    that set, those with the most similar one decide (most units shared of all that either has). Sides and intensities
    do not count. Of two classes that are as frequent, the one that is more frequent in all training clips is taken.

    Args:
        clips: Table with ``dataset``, ``subject``, ``clip``, ``target`` and, where there are any, ``action_units``.
        classes: The protocol's classes.
        split: How the folds are made.

    Returns:
        The clips that have a code, with a column ``prediction``; None if there are none, or a fold has no other clip
        with one to look it up in.
    """
    if "action_units" not in clips:
        return None
    sets = [parse(code) for code in clips["action_units"]]
    coded = [row for row, units in enumerate(sets) if units]
    targets, guesses = clips["target"].tolist(), {}
    for rows in folds(clips, split).values():
        train, test = sorted(set(coded).difference(rows)), [row for row in rows if sets[row]]
        if test and not train:
            return None
        frequent = Counter(targets[row] for row in train)
        known: defaultdict[frozenset[int], Counter] = defaultdict(Counter)
        for row in train:
            known[sets[row]][targets[row]] += 1
        for row in test:
            votes = known.get(sets[row]) or _nearest(sets[row], known)
            guesses[row] = max(classes, key=lambda name: (votes[name], frequent[name]))
    if not guesses:
        return None
    return clips.iloc[coded].assign(prediction=[guesses[row] for row in coded])


def _nearest(units: frozenset[int], known: Mapping[frozenset[int], Counter]) -> Counter:
    """Votes of the sets with the largest Jaccard index."""
    similar = {other: len(units & other) / len(units | other) for other in known}
    best = max(similar.values())
    return sum((known[other] for other, value in similar.items() if value == best), Counter())


def _classify(
    classify: Callable[[NDArray, NDArray, NDArray], NDArray],
    clips: pd.DataFrame,
    maps: NDArray[np.float32],
    classes: Sequence[str],
    split: str,
) -> pd.DataFrame:
    """Predictions of a classifier: training features and their classes, test features -> predicted classes."""
    features, targets = average(maps).reshape(len(maps), -1), clips["target"].to_numpy(object)
    guesses = majority(clips, classes, split)["prediction"].to_numpy(object)  # where one class is left to train on
    for rows in folds(clips, split).values():
        train = np.setdiff1d(np.arange(len(clips)), rows)
        if len(set(targets[train])) > 1:
            guesses[rows] = classify(features[train], targets[train], features[rows])
    return clips.assign(prediction=guesses)


def average(maps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Means over a grid of equal cells, (n, 3, S, S) to (n, 3, 7, 7); a pixel on an edge counts in parts for both."""
    pixels = np.arange(maps.shape[-1] + 1) / maps.shape[-1] * GRID
    cells = np.arange(GRID)[:, None]
    shares = np.clip(
        np.minimum(pixels[1:], cells + 1) - np.maximum(pixels[:-1], cells), 0, None
    )  # (7, S), rows sum to 1
    return shares @ maps.astype(np.float64) @ shares.T

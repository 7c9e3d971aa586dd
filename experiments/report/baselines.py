"""What needs no network: always the most frequent class, and a reader of the human action-unit codes. No torch.

Both are predictions of the same folds, made without the held-out subject, and are scored like a model's.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import pandas as pd

from data_modules.protocols import folds


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
    sets = [frozenset(int(number) for number in re.findall(r"\d+", code)) for code in clips["action_units"]]
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

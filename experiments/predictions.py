"""Files of predictions, one per fold: read and checked against the clips of the fold. No torch."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

CLIP = ["dataset", "subject", "clip", "target"]
MOST_BYTES = 10 << 20
"""Bytes of a file that are read at most: a clip takes about 200."""
ROUNDING = 1e-3  # by which the probabilities of a clip may miss 1


@dataclass(frozen=True)
class Pool:
    """The folds of one seed.

    Attributes:
        table: Predictions of all valid folds, one row per clip.
        done: Names of these folds.
        faults: What is wrong with the files of the others, by fold.
    """

    table: pd.DataFrame
    done: list[str]
    faults: dict[str, str]


def columns(classes: Sequence[str]) -> list[str]:
    """The header of a file of predictions."""
    return [*CLIP, "prediction", *(f"p_{name}" for name in classes), "optimistic_prediction"]


def pool(
    files: Mapping[str, Path], clips: pd.DataFrame, folds: Mapping[str, Sequence[int]], classes: Sequence[str]
) -> Pool:
    """Read the files of some folds, and leave out those that are not valid.

    A valid file has: the columns of ``columns``; exactly the clips of the fold with their targets, in the order of the
    clip table; classes of the protocol; probabilities in [0, 1] with the sum 1; the likeliest class as the prediction.

    Args:
        files: By fold.
        clips: The clip table.
        folds: Rows of the clip table by fold.
        classes: The protocol's classes.
    """
    keys = list(clips[CLIP].itertuples(index=False, name=None))
    rows: list[list] = []
    owners: list[str] = []
    faults: dict[str, str] = {}
    for fold, path in files.items():
        try:
            of_fold = _read(path, [keys[row] for row in folds[fold]], classes)
        except (OSError, ValueError, csv.Error) as error:
            faults[fold] = " ".join(str(error).split())[:200]
        else:
            rows += of_fold
            owners += [fold] * len(of_fold)
    table = pd.DataFrame(rows, columns=columns(classes))
    for row, what in _improbable(table, classes):
        faults.setdefault(owners[row], what)
    if faults:
        table = table[[fold not in faults for fold in owners]].reset_index(drop=True)
    return Pool(table, [fold for fold in files if fold not in faults], faults)


def _read(path: Path, clips: Sequence[tuple], classes: Sequence[str]) -> list[list]:
    """The rows of one file, with its columns, clips, targets and classes checked, but not its probabilities.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is something else, or holds other clips or classes.
        csv.Error: If it is no table.
    """
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has over {MOST_BYTES >> 20} MB")
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file, strict=True)) or [[]]
    if header != columns(classes):
        raise ValueError(f"its columns are {', '.join(header)[:100]}, not {', '.join(columns(classes))}")
    if [tuple(row[:4]) for row in rows] != list(clips):
        others = [row for row, clip in zip(rows, clips) if tuple(row[:4]) != clip]
        first = f"the first that differs is {' '.join(others[0][:4])[:100]}" if others else f"it has {len(rows)}"
        raise ValueError(f"its clips and targets are not the {len(clips)} of the fold: {first}")
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"clip {row[2]} has {len(row)} values, not {len(header)}")
        if unknown := {row[4], row[-1]}.difference(classes):
            raise ValueError(f"clip {row[2]}: '{min(unknown)[:40]}' is no class of {', '.join(classes)}")
    return [[*row[:5], *map(float, row[5:-1]), row[-1]] for row in rows]


def _improbable(table: pd.DataFrame, classes: Sequence[str]) -> list[tuple[int, str]]:
    """Rows whose numbers are no probabilities, or whose prediction is not the likeliest class, and why."""
    if table.empty:
        return []
    chances = table[[f"p_{name}" for name in classes]].to_numpy(float)
    codes = pd.Categorical(table["prediction"], categories=classes).codes
    predicted = chances[np.arange(len(table)), codes]
    reasons = {
        "its probabilities are not in 0..1": ~((chances >= 0) & (chances <= 1 + ROUNDING)).all(1),
        "its probabilities do not sum to 1": ~(abs(chances.sum(1) - 1) <= ROUNDING),
        "its prediction is not the likeliest class": ~(predicted == chances.max(1)),
    }
    return [
        (row, f"clip {table['clip'][row]}: {what}")
        for what, wrong in reasons.items()
        for row in np.flatnonzero(wrong).tolist()
    ]

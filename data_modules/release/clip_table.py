"""The clip table: its columns, its corrections, and what is wrong with its clips."""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mer import InputError

COLUMNS = (
    "dataset", "subject", "clip", "onset", "apex", "offset", "emotion", "objective_class", "action_units",
    "frames_per_second", "folder",
)  # fmt: skip
_NAME = re.compile(r"[\w()+.-]{1,100}")  # safe as part of a file name


@dataclass(frozen=True)
class Erratum:
    """A correction of one cell of a distributed sheet; a sheet that says something else there is left as it is.

    Attributes:
        subject: As in the clip table.
        clip: As in the clip table.
        field: ``onset``, ``apex`` or ``offset``.
        was: What the sheet says.
        now: What it should say; None for an apex that has to be spotted.
        reason: Why.
    """

    subject: str
    clip: str
    field: str
    was: str
    now: int | None
    reason: str


@dataclass(frozen=True)
class Problem:
    """Something wrong with one clip, and what was done about it.

    Attributes:
        dataset: As in the clip table, like all that follow.
        subject: The clip's subject, or empty.
        clip: The clip, or the row or folder that should have been one.
        what: What is wrong.
        action: The correction, or why the clip is left out.
        used: Whether the clip is used all the same.
    """

    dataset: str
    subject: str
    clip: str
    what: str
    action: str
    used: bool

    def __str__(self) -> str:
        return f"{self.subject} {self.clip}: {self.what}; {self.action}".strip()


def complain(where: Path | str, problems: Sequence[str], remedy: str, most: int = 20) -> None:
    """Raise one error that lists every problem found, if there is any.

    Raises:
        InputError: If ``problems`` is not empty.
    """
    if problems:
        more = f"\n  ... and {len(problems) - most} more" if len(problems) > most else ""
        listed = "".join(f"\n  {problem}" for problem in problems[:most])
        raise InputError(f"{where}: {len(problems)} problem(s):{listed}{more}\n{remedy}")


def rows(clips: pd.DataFrame) -> Iterator[Any]:
    """Rows of a clip table, the columns as attributes."""
    return iter(clips.itertuples())


def is_plain(name: str) -> bool:
    """Whether a word is safe as part of a file name: no separator, no space, not a relative folder."""
    return bool(_NAME.fullmatch(name)) and set(name) != {"."}


def is_number(text: str) -> bool:
    """Whether a text is a frame number or the like: digits, and no more of them than a number may have."""
    return text.isdecimal() and len(text) <= 15


def unsafe_names(clips: pd.DataFrame) -> list[str]:
    """What is wrong with the words that name a clip: empty, not a plain word, or given twice."""
    problems = []
    for column in ("dataset", "subject", "clip"):
        for value in sorted({str(value) for value in clips[column]}):
            if not is_plain(value):
                problems.append(f"{column} '{value}' is not a plain name of letters, digits and . _ - + ( )")
    for key, times in clips.groupby(["dataset", "subject", "clip"]).size().items():
        if times > 1:
            problems.append(f"clip {' '.join(map(str, key))} stands {times} times")
    return problems


ONE_NAME = "They differ only in case, zeros or blanks, and one person must not be in two folds: write each in one way."
"""The remedy for what ``split_people`` returns."""


def split_people(clips: pd.DataFrame, place: Callable[[int], str] | None = None) -> list[str]:
    """Datasets and subjects whose name is written in several ways that differ only in case, padding or blanks.

    Args:
        clips: Table with ``dataset``, ``subject`` and ``clip``.
        place: Where the row of this number stands; by default its clip is named.

    Returns:
        A line for each, with all its names and where each stands first.
    """
    spellings: dict[tuple[str, ...], dict[str, int]] = {}
    for number, (dataset, subject) in enumerate(zip(clips["dataset"].astype(str), clips["subject"].astype(str))):
        whose = plainest(dataset)
        spellings.setdefault(("dataset", whose), {}).setdefault(dataset, number)
        spellings.setdefault(("subject", whose, plainest(subject)), {}).setdefault(subject, number)
    names = list(clips["clip"].astype(str))
    shown = place or (lambda number: f"clip {names[number]}")
    return [
        f"{kind} " + " and ".join(f"'{name}' ({shown(number)})" for name, number in ways.items())
        for (kind, *_), ways in spellings.items()
        if len(ways) > 1
    ]


def plainest(name: str) -> str:
    """What all spellings of a name have in common: it without case, blanks and the zeros before a number."""
    return re.sub(r"(?<!\d)0+(?=\d)|\s", "", unicodedata.normalize("NFKC", name).casefold())

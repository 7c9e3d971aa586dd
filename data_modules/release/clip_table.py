"""The clip table, and how a clip's frames are found and read."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mer import InputError
from mer.preprocessing.opencv import cv2

COLUMNS = (
    "dataset", "subject", "clip", "onset", "apex", "offset", "emotion", "objective_class", "action_units",
    "frames_per_second", "folder",
)  # fmt: skip
LARGEST = 64 << 20
"""Bytes of an image that are read at most: a frame of CAS(ME)^3 has 3 MB before it is packed."""
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
_NAME = re.compile(r"[\w()+.-]{1,100}")  # a word that is safe as part of a file name
_NUMBER = re.compile(r"(\d+)(?!.*\d)")


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


@dataclass(frozen=True)
class Frame:
    """An image file of a clip: its number, which is the last integer in its name, and its size in bytes."""

    number: int
    path: Path
    size: int


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


def list_frames(folder: Path) -> list[Frame]:
    """Image files of a folder, by number; padding may vary, and files that are no images are passed over.

    Raises:
        OSError: If the folder cannot be read.
    """
    found = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            stem, suffix = os.path.splitext(entry.name)
            number = _NUMBER.search(stem)
            if (
                number
                and is_number(number[1])
                and suffix.lower() in IMAGE_SUFFIXES
                and not stem.startswith(".")
                and entry.is_file()
            ):
                found[int(number[1])] = Frame(int(number[1]), folder / entry.name, entry.stat().st_size)
    return [found[number] for number in sorted(found)]


def frames(folder: Path) -> dict[int, Path]:
    """Image files of a folder by frame number, see ``list_frames``."""
    return {frame.number: frame.path for frame in list_frames(folder)}


def damage(frame: Frame) -> str:
    """What is wrong with an image file as far as its two ends show, without decoding it; empty if nothing is."""
    if frame.size == 0:
        return "is empty"
    try:
        with frame.path.open("rb", buffering=0) as file:
            start = file.read(8)
            file.seek(max(0, frame.size - 1024))
            end = file.read(1024)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if start[:2] == b"\xff\xd8":
        return "" if b"\xff\xd9" in end else "is cut off"
    if start == b"\x89PNG\r\n\x1a\n":
        return "" if b"IEND" in end else "is cut off"
    if start[:2] == b"BM":
        return "is cut off" if int.from_bytes(start[2:6], "little") > frame.size else ""
    return "" if start[:4] in (b"II*\0", b"MM\0*") else "is no image"


def read_image(path: Path) -> np.ndarray:
    """Read an image as uint8 RGB, shape (H, W, 3).

    Raises:
        InputError: If the file is missing, is not a whole image, or is much larger than any frame.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: has over {LARGEST >> 20} MB, as no frame has; it is not read")
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except cv2.error:  # it claims to have more pixels than memory should be given for
        image = None
    if image is None:
        raise InputError(f"{path}: is not an image that opens; copy it again from the original archive")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

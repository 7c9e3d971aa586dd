"""A table of clips and the classes of its labels, as people write them: ``clips.csv`` and ``protocol.yaml``."""

import csv
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache as once
from pathlib import Path
from typing import Any

import yaml

from data_modules.cache.store import is_below
from data_modules.protocols import own_protocol
from data_modules.release.clip_table import complain, is_number, is_plain, plainest
from data_modules.release.sheets import Sheet
from mer import InputError, near
from mer.preprocessing.frame_files import IMAGE_SUFFIXES

NEEDED = ("subject", "clip", "path", "emotion")
OPTIONAL = ("dataset", "onset", "apex", "offset", "frames_per_second", "action_units", "objective_class")
NUMBERS = ("onset", "apex", "offset")
FILES = ("clips.csv", "clips.xlsx")
LARGEST = 10 << 20
"""Bytes of a file that are read at most: a clip takes about 100."""

Row = dict[str, str]
"""The cells of a clip by column, those that are missing empty, and ``row``, the line that it stands in."""

Span = Callable[[Path], tuple[int, int]]


@dataclass(frozen=True)
class Labels:
    """What the emotions of a table stand for.

    Attributes:
        source: Where that is written.
        classes: In order.
        emotions: The class of each emotion.
        left_out: Emotions that take no part.
        joined: Whether ``protocol.yaml`` says it.
    """

    source: str
    classes: tuple[str, ...]
    emotions: Mapping[str, str]
    left_out: frozenset[str]
    joined: bool

    @property
    def protocol(self) -> str:
        """The full name of the protocol, see ``protocols.own_protocol``.

        Raises:
            InputError: If these are no classes.
        """
        try:
            return own_protocol(self.classes, self.emotions if self.joined else None)
        except InputError as error:
            raise InputError(f"{self.source}: {error}") from error


def read(root: Path) -> tuple[Path, list[Row]]:
    """The table in a folder, and its rows.

    Raises:
        InputError: If there is none, there are two, or it cannot be read as one.
    """
    files = [root / name for name in FILES if (root / name).is_file()]
    if not files:
        raise InputError(
            f"{root}: holds no {' and no '.join(FILES)}. It is a table with a row per clip and the columns "
            f"{', '.join(NEEDED)}, and where there are any {', '.join(OPTIONAL)}; path is a folder of frames or a "
            "video below that folder. Name the folder with DATA=... or --root."
        )
    if len(files) > 1:
        raise InputError(f"{root}: holds {' and '.join(FILES)}; keep the one that counts")
    (file,) = files
    state = file.stat()
    return file, [dict(row) for row in _read(file, state.st_mtime_ns, state.st_size)]


def labels(root: Path) -> Labels:
    """What the emotions stand for: as ``protocol.yaml`` says it, otherwise each for itself.

    Raises:
        InputError: If table or ``protocol.yaml`` cannot be read.
    """
    table, lines = read(root)
    file = root / "protocol.yaml"
    if file.is_file():
        return _joined(file)
    emotions = {row["emotion"]: class_name(row["emotion"]) for row in lines if row["emotion"]}
    classes = tuple(sorted(set(emotions.values())))
    return Labels(f"{table}, column emotion", classes, emotions, frozenset(), joined=False)


def faults(root: Path, lines: Sequence[Row], emotions: set[str], span: Span) -> list[str]:
    """What is wrong with the rows of a table, each with its line.

    Args:
        root: The table's folder.
        lines: Its rows.
        emotions: Those that are known.
        span: Gives the numbers of the first and the last frame of a folder or video.
    """
    return [*_wrong_cells(root, lines), *_unknown(lines, emotions), *_doubled(root, lines, span)]


def word(text: str) -> str:
    """An emotion without case and surplus blanks."""
    return " ".join(text.lower().split())


def class_name(emotion: str) -> str:
    """An emotion as a name of a class: letters, digits, . and _."""
    return re.sub(r"[^\w.]+", "_", emotion).strip("_")


@once
def _read(file: Path, _modified: int, size: int) -> list[Row]:
    """The rows; once, as long as the file is the same."""
    if size > LARGEST:
        raise InputError(f"{file}: has over {LARGEST >> 20} MB, as no table of clips has; it is not read")
    lines = _csv(file) if file.suffix == ".csv" else _workbook(file)
    if not lines:
        raise InputError(f"{file}: holds no clip")
    for row in lines:
        row["dataset"] = (row["dataset"] or "clips").lower()
        row["emotion"] = word(row["emotion"])
        row["path"] = row["path"].replace("\\", "/")
        for name in NUMBERS:  # a spreadsheet may write 46 as 46.0
            row[name] = re.sub(r"(?<=\d)\.0*$", "", row[name])
    return lines


def _workbook(file: Path) -> list[Row]:
    sheet = Sheet(file.name, {name: name for name in NEEDED}, {name: name for name in OPTIONAL})
    return [{str(name): str(cell) for name, cell in row.items()} for row in sheet.read(file).rows.to_dict("records")]


def _csv(file: Path) -> list[Row]:
    """Cells between commas, semicolons or tabs, whichever the first line has."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        header = text.partition("\n")[0]
        separator = max(",;\t", key=header.count)
        reader = csv.reader(text.splitlines(keepends=True), delimiter=separator)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{file}: is not a table of comma-separated values in UTF-8 ({error})") from error
    columns = [_plain(name) for name in lines[0][1]] if lines else []
    known = {_plain(name): name for name in (*NEEDED, *OPTIONAL)}
    problems = [f"column {name} is missing" for name in NEEDED if _plain(name) not in columns]
    problems += [f"column {known[name]} stands twice" for name in known if columns.count(name) > 1]
    complain(file, problems, f"It has {header.strip()[:300] or 'no line'}. Needed are {', '.join(NEEDED)}.")
    rows, uneven = [], []
    for number, cells in lines[1:]:
        if any(cells[len(columns) :]):
            uneven.append(f"line {number}: has {len(cells)} cells, the first line {len(columns)}")
        if any(cells):
            of_column = dict(zip(columns, cells, strict=False))
            rows.append({"row": str(number), **{name: of_column.get(plain, "") for plain, name in known.items()}})
    complain(file, uneven, f"Put cells that hold a '{separator}' into quotes.")
    return rows


def _plain(name: str) -> str:
    """A column's name without case, spaces and signs."""
    return re.sub(r"[\W_]+", "", name).lower()


def _joined(file: Path) -> Labels:
    """What a ``protocol.yaml`` says."""
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"it has over {LARGEST >> 20} MB")
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{file}: cannot be read ({' '.join(str(error).split())[:300]})") from error
    content = content if isinstance(content, dict) else {}
    problems = [f"'{name}' is neither classes nor leave_out" for name in content.keys() - {"classes", "leave_out"}]
    classes = content.get("classes")
    if not isinstance(classes, dict) or not all(isinstance(name, str) for name in classes):
        problems.append("classes is no mapping from names of classes to lists of emotions; quote words like no")
        classes = {}
    stands_in: dict[str, str] = {}
    for place, value in {**classes, "": content.get("leave_out", [])}.items():
        emotions = _words(value)
        if emotions is None:
            problems.append(f"{place or 'leave_out'} is no list of emotions; quote words like no")
        for emotion in emotions or []:
            other = stands_in.setdefault(emotion, place)
            if other != place:
                problems.append(f"emotion '{emotion}' stands in {other} and in {place or 'leave_out'}")
    complain(file, problems, "It holds `classes: {negative: [disgust, fear], ...}` and perhaps `leave_out: [others]`.")
    joined = {emotion: class_name(place) for emotion, place in stands_in.items() if place}
    names, left_out = tuple(class_name(name) for name in classes), frozenset(stands_in.keys() - joined.keys())
    return Labels(str(file), names, joined, left_out, joined=True)


def _words(value: Any) -> list[str] | None:
    """The emotions of a list, or of one word; None if it is neither."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        return None
    return [word(item) for item in values]


def _wrong_cells(root: Path, lines: Iterable[Row]) -> Iterable[str]:
    """What is wrong with each row."""
    for row in lines:
        line = f"line {row['row']}"
        for name in ("dataset", "subject", "clip"):
            if not is_plain(row[name]):
                shown = f"'{row[name]}' is not a plain name of letters, digits and . _ - + ( )"
                yield f"{line}: {name} {shown if row[name] else 'is empty'}"
        path = root / row["path"]
        if not row["path"]:
            yield f"{line}: path is empty"
        elif not is_below(row["path"]):
            yield f"{line}: path '{row['path']}' leads out of the folder"
        elif not os.path.exists(path):
            yield f"{line}: path '{row['path']}' does not exist"
        elif path.suffix.lower() in IMAGE_SUFFIXES and os.path.isfile(path):
            yield f"{line}: path '{row['path']}' is one picture; name the folder of the clip's frames, or its video"
        elif not (os.path.isdir(path) or os.path.isfile(path)):
            yield f"{line}: path '{row['path']}' is neither a folder nor a file"
        if row["frames_per_second"] and not re.fullmatch(r"\d{1,6}(\.\d{1,9})?", row["frames_per_second"]):
            yield f"{line}: frames_per_second '{row['frames_per_second']}' is no number"
        wrong = [name for name in NUMBERS if row[name] and not is_number(row[name])]
        yield from (f"{line}: {name} '{row[name]}' is no frame number" for name in wrong)
        onset, apex, offset = (int(row[name]) if row[name] and name not in wrong else None for name in NUMBERS)
        if onset is not None and offset is not None and onset >= offset:
            yield f"{line}: offset {offset} is not after onset {onset}"
        elif apex is not None and onset is not None and apex <= onset:
            yield f"{line}: apex {apex} is not after onset {onset}; where it is unknown, leave it empty"
        elif apex is not None and offset is not None and apex > offset:
            yield f"{line}: apex {apex} is after offset {offset}"


def _unknown(lines: Iterable[Row], allowed: set[str]) -> Iterable[str]:
    """The emotions that are no labels."""
    for row in lines:
        if not row["emotion"]:
            yield f"line {row['row']}: emotion is empty"
        elif row["emotion"] not in allowed:
            yield (
                f"line {row['row']}: emotion '{row['emotion']}' is unknown (protocol.yaml may have it in a class "
                f"or under leave_out){near(row['emotion'], sorted(allowed))}"
            )


def _doubled(root: Path, lines: Iterable[Row], span: Span) -> Iterable[str]:
    """Rows that are one clip, and names that are one person."""
    clips: dict[tuple[str, ...], str] = {}
    people: dict[tuple[str, str], tuple[str, str]] = {}
    files: dict[tuple[int, int], list[Row]] = {}
    for row in lines:
        first = clips.setdefault(tuple(row[name].lower() for name in ("dataset", "subject", "clip")), row["row"])
        if first != row["row"]:
            yield f"line {row['row']}: clip {row['dataset']} {row['subject']} {row['clip']} stands in line {first} too"
        subject, where = people.setdefault((row["dataset"], plainest(row["subject"])), (row["subject"], row["row"]))
        if subject != row["subject"]:
            yield (
                f"line {row['row']}: subject '{row['subject']}' differs from '{subject}' in line {where} only in case, "
                "padding or blanks: write one person's name in one way"
            )
        if row["path"] and is_below(row["path"]) and os.path.exists(root / row["path"]):
            state = os.stat(root / row["path"])
            files.setdefault((state.st_dev, state.st_ino), []).append(row)
    for same in files.values():
        intervals: dict[tuple[int, int], str] = {}
        for row in same if len(same) > 1 else ():
            first = intervals.setdefault(_interval(root / row["path"], row, span), row["row"])
            if first != row["row"]:
                yield f"line {row['row']}: has the same frames of '{row['path']}' as line {first}"


def _interval(path: Path, row: Row, span: Span) -> tuple[int, int]:
    """Onset and offset; the first and the last frame where the table does not say them."""
    onset, offset = (int(row[name]) if is_number(row[name]) else None for name in ("onset", "offset"))
    if onset is None or offset is None:
        first, last = span(path)
        return first if onset is None else onset, last if offset is None else offset
    return onset, offset

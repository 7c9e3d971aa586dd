"""Annotation sheets: workbooks as distributed, read as text and trusted in nothing."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from data_modules.release.workbook import SUFFIXES, Line, worksheets
from mer import InputError

SYNONYMS = {
    "subject": ("Subject", "Subject ID", "Sub", "Participant"),
    "clip": ("Filename", "Clip", "Clip name", "Video", "Sequence"),
    "video": ("Filename", "Video", "Clip"),
    "onset": ("Onset", "OnsetFrame", "OnsetF"),
    "apex": ("Apex", "ApexFrame", "ApexF"),
    "offset": ("Offset", "OffsetFrame", "OffsetF"),
    "emotion": ("Emotion", "Estimated Emotion", "Emotion label", "Label", "Expression"),
    "action_units": ("Action Units", "AU", "AUs"),
    "objective_class": ("Objective Class", "Objective Classes"),
}
"""Names of a column of the clip table in sheets that somebody has edited; case, spaces and signs do not matter."""
_LAST_HEADER_ROW = 60  # SAMM's is row 14
_SPARE = re.compile(r"(?<![a-z])(old|copy|backup|bak|kopie|副本)(?![a-z])|\(\d+\)$")  # a second copy of a sheet
Header = tuple[int, dict[str, int], list[str]]
"""The row that names the columns: its place, the place of each column, the columns that it lacks."""


@dataclass(frozen=True)
class Reading:
    """What was read of a sheet.

    Attributes:
        rows: Every cell as text, with the row's number in the column ``row``.
        worksheet: Its title; empty for a table of separated values.
        others: Worksheets that would have fitted, too, and were not read.
        lacking: Optional columns that it lacks.
    """

    rows: pd.DataFrame
    worksheet: str
    others: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """Where a dataset's annotation stands.

    Attributes:
        file: Pattern of the workbook's name; neither case nor what it is saved as matters, see ``SUFFIXES``.
        columns: Name in the clip table of each column that is read, by its name in the sheet, wherever it stands.
        optional: The same for columns that some generations lack; they are empty there.
        worksheet: Worksheet to read; by default the first that has the columns. Hidden ones are not read.
    """

    file: str
    columns: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    worksheet: str = ""

    def read(self, path: Path, worksheet: str = "") -> Reading:
        """Read the rows; text before the header is passed over, and so are empty rows.

        Args:
            path: The file.
            worksheet: The one to read and no other, hidden or not.

        Raises:
            InputError: If the file does not open, is too large, lacks a column or the worksheet, has no row, or has no
                value in a whole column, as where formulas were never worked out (SMIC's offsets are formulas).
        """
        sheets = worksheets(path)
        if worksheet:
            sheets = [sheet for sheet in sheets if _plain(sheet.title) == _plain(worksheet)]
            if not sheets:
                titles = ", ".join(f"'{sheet.title}'" for sheet in worksheets(path))
                raise InputError(f"{path}: has no worksheet '{worksheet}', only {titles}")
        else:
            hidden = [sheet.title for sheet in sheets if not sheet.shown]
            sheets = [sheet for sheet in sheets if sheet.shown]
            if not sheets:
                raise InputError(
                    f"{path}: has no worksheet that is shown, and hidden ones are not read ({', '.join(hidden)}); name "
                    "one with --data.sheet=FILE:WORKSHEET"
                )
        own = [sheet for sheet in sheets if _plain(sheet.title) == _plain(self.worksheet)]
        headers = [(sheet, self._header(sheet.lines)) for sheet in own or sheets]
        fitting = [(sheet, header) for sheet, header in headers if not header[2]]
        if not fitting:
            sheet, (place, _, lacks) = min(headers, key=lambda pair: len(pair[1][2]))
            header = [cell for cell in sheet.lines[place][1] if cell] if sheet.lines else []
            where = f"worksheet '{sheet.title}', " if sheet.title else ""
            raise InputError(
                f"{path}: lacks the column(s) {', '.join(lacks)}; {where}row {place + 1} has "
                f"{', '.join(header)[:300] or 'none'}. Take the sheet as it was distributed, or rename its columns."
            )
        sheet, (place, places, _) = fitting[0]
        rows = self._table(path, sheet.title, sheet.lines[place + 1 :], places)
        lacking = tuple(name for name in self.optional.values() if name not in places)
        return Reading(rows, sheet.title, tuple(other.title for other, _ in fitting[1:]), lacking)

    def _header(self, lines: list[Line]) -> Header:
        best: Header = (0, {}, list(self.columns))
        for index, (_, line) in enumerate(lines[:_LAST_HEADER_ROW]):
            place_of = {_plain(name): place for place, name in reversed(list(enumerate(line))) if name}
            wanted = {**self.columns, **self.optional}
            places = {new: place_of[_plain(name)] for name, new in wanted.items() if _plain(name) in place_of}
            for new in wanted.values():
                for synonym in SYNONYMS.get(new, ()):
                    place = place_of.get(_plain(synonym))
                    if new not in places and place is not None and place not in places.values():
                        places[new] = place
            lacks = [name for name, new in self.columns.items() if new not in places]
            if len(lacks) < len(best[2]):
                best = index, places, lacks
            if not lacks:
                break
        return best

    def _table(self, path: Path, title: str, lines: list[Line], places: dict[str, int]) -> pd.DataFrame:
        rows = []
        for number, line in lines:
            values = {name: line[place] if place < len(line) else "" for name, place in places.items()}
            if any(values.values()):
                rows.append({"row": number, **values})
        where = f"sheet '{title}'" if title else "it"
        if not rows:
            raise InputError(f"{path}: {where} has no row below its header; unpack the original again")
        needed = {name: new for name, new in self.columns.items() if new != "apex"}  # an apex can be spotted
        empty = [name for name, new in needed.items() if not any(row[new] for row in rows)]
        if empty:
            raise InputError(
                f"{path}: {where} has no value in the column(s) {', '.join(empty)}. If they hold formulas, open and "
                "save it in Excel; or take the original."
            )
        table = pd.DataFrame(rows, dtype=object)
        return table.reindex(columns=["row", *self.columns.values(), *self.optional.values()], fill_value="")


def find(pattern: str, folders: Iterable[Path]) -> list[Path]:
    """Sheets whose name fits, each once, the one to read first.

    That is the newest by the numbers in its name, in the first folder that has one. Spare copies, like ``..._old`` or
    ``... (1)``, come last.
    """
    stem = pattern.lower().removesuffix(".xlsx")
    suffixes = "|".join(map(re.escape, SUFFIXES))
    words = re.compile(".*".join(map(re.escape, stem.split("*"))) + f"({suffixes})")
    paths: dict[Path, Path] = {}
    for folder in folders:
        try:
            fitting = [path for path in folder.iterdir() if words.fullmatch(path.name.lower())]
        except OSError:
            continue
        # Excel keeps a lock file '~$name.xlsx' beside an open workbook, macOS leaves '._name.xlsx' behind.
        fitting = [path for path in fitting if path.name[:2] != "~$" and path.name[0] != "." and path.is_file()]
        for path in sorted(fitting, key=_newest_last, reverse=True):
            paths.setdefault(path.resolve(), path)
    return list(paths.values())


def _newest_last(path: Path) -> tuple:
    stem = path.stem.lower()
    numbers = [int(number) for number in re.findall(r"\d{1,15}", stem)]
    plain = -len(stem), -SUFFIXES.index(path.suffix.lower())
    return not _SPARE.search(stem), numbers, *plain, path.name.lower()


def _plain(name: str) -> str:
    """A column's name without case, spaces and signs."""
    return re.sub(r"[\W_]+", "", name).lower()

"""Annotation sheets: Excel workbooks as distributed, read as text and trusted in nothing."""

import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import openpyxl
import pandas as pd

from mer import InputError

LARGEST = 10 << 20
"""Bytes of a workbook that are read at most: the largest real one has 70 kB."""
LARGEST_UNPACKED = 20 << 20
MOST_WORKSHEETS, MOST_ROWS, MOST_COLUMNS = 20, 5_000, 100
"""What a cell may claim of its place without costing hours; columns further to the right are not read."""
Line = tuple[int, list[str]]
"""A row's number, and its cells."""
_LAST_HEADER_ROW = 60  # SAMM's is row 14


@dataclass(frozen=True)
class Sheet:
    """Where a dataset's annotation stands.

    Attributes:
        file: Pattern of the workbook's name; case does not matter. The last by name is the newest.
        columns: Name in the clip table of each column that is read, by its name in the sheet, wherever it stands.
        optional: The same for columns that some generations lack; they are empty there.
        worksheet: Worksheet to read; by default the first that has the columns.
    """

    file: str
    columns: Mapping[str, str]
    optional: Mapping[str, str] = field(default_factory=dict)
    worksheet: str = ""

    def read(self, path: Path) -> pd.DataFrame:
        """The rows, every cell as text, with the row's number in the column ``row``.

        Text before the header is passed over, and so are empty rows.

        Raises:
            InputError: If the workbook does not open, is too large, lacks a column, has no row, or has a formula
                whose value was never saved (SMIC's offsets are formulas with values).
        """
        worksheets = _texts(path)
        wanted = {title for title in worksheets if _plain(title) == _plain(self.worksheet)} or set(worksheets)
        lacking: list[list[str]] = []
        for title in worksheets:
            if title in wanted:
                header, places, lacks = self._header(worksheets[title])
                if not lacks:
                    return self._table(path, title, worksheets[title][header + 1 :], places)
                lacking.append(lacks)
        raise InputError(
            f"{path}: lacks the column(s) {', '.join(min(lacking, key=len, default=self.columns))}, in "
            f"{', '.join(worksheets)}. Take the sheet as it was distributed."
        )

    def _header(self, cells: list[Line]) -> tuple[int, dict[str, int], list[str]]:
        """The row that names the columns: its place, the place of each column, the columns that it lacks."""
        best: tuple[int, dict[str, int], list[str]] = (0, {}, list(self.columns))
        for index, (_, line) in enumerate(cells[:_LAST_HEADER_ROW]):
            places = {_plain(name): place for place, name in reversed(list(enumerate(line))) if name}
            lacks = [name for name in self.columns if _plain(name) not in places]
            if len(lacks) < len(best[2]):
                names = {**self.columns, **self.optional}
                best = index, {new: places[_plain(old)] for old, new in names.items() if _plain(old) in places}, lacks
            if not lacks:
                break
        return best

    def _table(self, path: Path, title: str, cells: list[Line], places: dict[str, int]):
        rows, formulas = [], []
        for number, line in cells:
            values = {name: line[place] if place < len(line) else "" for name, place in places.items()}
            if any(values.values()):
                rows.append({"row": number, **values})
                formulas += [f"row {number}, {name}: {text[:60]}" for name, text in values.items() if text[:1] == "="]
        if formulas:
            raise InputError(
                f"{path}: sheet '{title}' has formulas without their values: {'; '.join(formulas[:5])}"
                f"{' ...' if len(formulas) > 5 else ''}. Open and save it in Excel, or take the original."
            )
        if not rows:
            raise InputError(f"{path}: sheet '{title}' has no row below its header; unpack the original again")
        table = pd.DataFrame(rows, dtype=object)
        return table.reindex(columns=["row", *self.columns.values(), *self.optional.values()], fill_value="")


def find(pattern: str, folders: Iterable[Path]) -> Path | None:
    """The newest workbook by name whose name fits, in the first folder that has one."""
    words = [re.escape(word) for word in pattern.lower().split("*")]
    for folder in folders:
        try:
            files = [path for path in folder.iterdir() if re.fullmatch(".*".join(words), path.name.lower())]
        except OSError:
            continue
        # Excel keeps a lock file '~$name.xlsx' beside an open workbook, macOS leaves '._name.xlsx' behind.
        files = [path for path in files if path.name[:2] not in ("~$", "._") and path.is_file()]
        if files:
            return max(files, key=lambda path: path.name.lower())
    return None


def _texts(path: Path) -> dict[str, list[Line]]:
    """Every worksheet's cells as text, by title; a formula stays one where Excel has not saved what it gives."""
    try:
        size = path.stat().st_size
        unpacked = size
        if size <= LARGEST:
            with zipfile.ZipFile(path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
        if size <= LARGEST and unpacked <= LARGEST_UNPACKED:
            books = [openpyxl.load_workbook(path, read_only=True, data_only=values) for values in (True, False)]
            titles = [sheet.title for sheet in books[0].worksheets]
            if len(titles) > MOST_WORKSHEETS:
                raise ValueError(f"it has {len(titles)} worksheets, and no annotation has over {MOST_WORKSHEETS}")
            return {title: [*_lines(*(book[title] for book in books))] for title in titles}
    except Exception as error:  # openpyxl has no error of its own for a broken workbook
        raise InputError(f"{path}: is not an Excel workbook that opens ({error}); unpack it again") from error
    raise InputError(
        f"{path}: has {size >> 20} MB, {unpacked >> 20} unpacked, and no annotation sheet has over "
        f"{LARGEST >> 20}, or {LARGEST_UNPACKED >> 20} unpacked; it is not read. Take the sheet as it was distributed."
    )


def _lines(values, formulas) -> Iterator[Line]:
    for sheet in (values, formulas):
        sheet.reset_dimensions()  # what the file says of its own size may be wrong
    most = {"max_row": MOST_ROWS + 1, "max_col": MOST_COLUMNS, "values_only": True}
    rows = zip(values.iter_rows(**most), formulas.iter_rows(**most), strict=True)
    for number, pair in enumerate(rows, start=1):
        if number > MOST_ROWS:
            raise ValueError(f"a worksheet has over {MOST_ROWS} rows, as no annotation has")
        cells = zip(*pair, strict=True)
        yield number, [_text(formula if value is None else value) for value, formula in cells]


def _text(cell: object) -> str:
    """A cell as text: Excel keeps 46 as 46.0, and text with spaces around it."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).strip()


def _plain(name: str) -> str:
    """A column's name without case, spaces and signs."""
    return re.sub(r"[\W_]+", "", name).lower()

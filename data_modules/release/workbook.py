"""The cells of a workbook or a table of separated values, as text."""

import csv
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from mer import InputError

SUFFIXES = (".xlsx", ".xlsm", ".xls", ".ods", ".csv")
"""What a sheet may be saved as, the first before the others."""
LARGEST = 10 << 20
"""Bytes of a workbook that are read at most: the largest real one has 70 kB."""
LARGEST_UNPACKED = 20 << 20
MOST_WORKSHEETS, MOST_ROWS, MOST_COLUMNS = 20, 20_000, 100
"""What a cell may claim of its place without costing hours; columns further to the right are not read. DFME has 7,526
clips."""
MEMORY = 1 << 30  # bytes for the process that reads a workbook
PATIENCE = 60  # seconds for it; a real one takes a tenth
Line = tuple[int, list[str]]
"""A row's number, and its cells."""
_ZIP, _OLD_EXCEL = b"PK\x03\x04", b"\xd0\xcf\x11\xe0"


@dataclass(frozen=True)
class Worksheet:
    """A worksheet of a workbook.

    Attributes:
        title: Empty for a table of separated values.
        shown: Whether it can be seen in Excel, where worksheets can be hidden.
        lines: Its rows down to the last that is not empty.
    """

    title: str
    shown: bool
    lines: list[Line]


def worksheets(path: Path) -> list[Worksheet]:
    """The worksheets of a workbook, or the one table of a file of separated values.

    What the file is shows in its content, not in its name. Of a formula the saved value is read.

    Raises:
        InputError: If the file does not open or is too large.
    """
    try:
        size = unpacked = path.stat().st_size
        if size <= LARGEST:
            with path.open("rb") as file:
                start = file.read(4)
            if start == _ZIP and zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    unpacked = sum(member.file_size for member in archive.infolist())
        read = []
        if size <= LARGEST and unpacked <= LARGEST_UNPACKED:
            is_workbook = start in (_ZIP, _OLD_EXCEL)
            read = _in_a_process(path) if is_workbook else [Worksheet("", True, _separated(path.read_bytes()))]
    except (OSError, ValueError, csv.Error, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(
            f"{path}: is not a workbook that opens ({error}); unpack it again, or open it and save it again as .xlsx"
        ) from error
    if size > LARGEST or unpacked > LARGEST_UNPACKED:
        raise InputError(
            f"{path}: has {size >> 20} MB, {unpacked >> 20} unpacked, and no annotation sheet has over "
            f"{LARGEST >> 20}, or {LARGEST_UNPACKED >> 20} unpacked; it is not read. Take the original."
        )
    cleaned = [[(number, [_clean(cell) for cell in cells]) for number, cells in sheet.lines] for sheet in read]
    return [Worksheet(sheet.title, sheet.shown, lines) for sheet, lines in zip(read, cleaned, strict=True)]


def _in_a_process(path: Path) -> list[Worksheet]:
    """The worksheets of a workbook, read by a process that may end without hurting this one.

    A cell may claim to stand in the last row and column there are; the library then asks for memory for all before it,
    and ends its process when there is none.
    """
    program = str(Path(__file__).with_name("workbook_process.py"))
    limits = map(str, (MOST_WORKSHEETS, MOST_ROWS, MOST_COLUMNS, MEMORY))
    command = [sys.executable, "-P", program, str(path.absolute()), *limits]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"it took over {PATIENCE} s") from error
    if done.returncode:
        raise ValueError("a cell claims a place far outside any annotation, or the file is damaged")
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise ValueError(answer["error"])
    return [Worksheet(title, shown, [*map(tuple, lines)]) for title, shown, lines in answer["worksheets"]]


def _separated(content: bytes) -> list[Line]:
    """Rows of values between commas, semicolons or tabulators, whichever there are most of."""
    if not content.strip():
        raise ValueError("it is empty")
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = content.decode("utf-16")
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = content.decode("cp1252", errors="replace")  # what Excel saves on a computer of western Europe
    if re.search(r"[\0-\x08\x0e-\x1f]", text):
        raise ValueError("it is neither a workbook nor a table of separated values")
    lines: list[Line] = []
    for cells in csv.reader(text.splitlines(keepends=True), delimiter=max(",;\t", key=text.count)):
        lines.append((len(lines) + 1, cells[:MOST_COLUMNS]))
        if len(lines) > MOST_ROWS:
            raise ValueError(f"it has over {MOST_ROWS} rows, as no annotation has")
    return lines


def _clean(cell: str) -> str:
    """A cell's text without spaces around it, an apostrophe before it, and the decimals of a whole number."""
    text = cell.strip().removeprefix("'").strip()
    return re.sub(r"(?<=\d)\.0+$", "", text) if re.fullmatch(r"\d+\.0+", text) else text

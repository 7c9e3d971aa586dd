"""Strategies for hostile input, and a block in which a test may neither hang nor write elsewhere."""

import io
import os
import shutil
import signal
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mer import InputError

PATIENCE = 60  # seconds for an input, which takes milliseconds
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}

written: list[str] | None = None
"""Paths that this process has changed inside ``contained``; None outside it."""


def note(event: str, arguments: tuple) -> None:
    if written is None:
        return
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
        written.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes)) else "")
    elif event in CHANGES:
        written.extend(os.fsdecode(path) for path in arguments[:2] if isinstance(path, (str, bytes)))


sys.addaudithook(note)  # Python cannot remove it again


@contextmanager
def contained(*folders: Path) -> Iterator[None]:
    """Inside the block nothing may raise but ``InputError``, hang, or write outside the folders."""
    global written

    def give_up(*_: object) -> None:
        raise TimeoutError(f"no end after {PATIENCE} s")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE)
    written = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError as error:
        assert str(error).strip() and "Traceback" not in str(error)
    finally:
        paths, written = written, None
        signal.alarm(0)
    allowed = (*map(str, folders), os.devnull)
    outside = [path for path in paths if path and not path.startswith(allowed) and "__pycache__" not in path]
    assert not outside, outside


def feeder(request: pytest.FixtureRequest, folder: Path) -> Callable:
    """A function ``feed(strategy, test, short, long)`` that calls ``test(input, new_folder)`` for many inputs."""
    numbers = count()

    def run(strategy: st.SearchStrategy, test: Callable, short: int, long: int) -> None:
        thorough = request.config.getoption("--long", False)

        def try_input(value) -> None:
            own = folder / str(next(numbers))
            own.mkdir()
            test(value, own)
            shutil.rmtree(own)

        limits = settings(
            max_examples=long if thorough else short,
            deadline=None,
            database=None,
            derandomize=not thorough,
            suppress_health_check=list(HealthCheck),
        )
        limits(given(strategy)(try_input))()

    return run


NASTY = st.sampled_from(
    ["../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "a\\b", "C:\\x", "nan", "-1", "1e309", "9" * 40, "\0", "\n"]
    + ["=1+1", "=cmd|' /C calc'!A0", "<b>&amp;", "[/red]", "${HOME}", "%s", "ſ", "٣", "²", "\u202e", "a" * 3_000]
    + ["~/x", "file:///etc/passwd", "con", "sub01", "EP01_01f", "happiness", "", " ", "46.0", "TRUE", "'"]
)
TEXT = st.one_of(NASTY, st.text(max_size=40), st.integers(-5, 200).map(str))
CELL = st.one_of(
    TEXT,
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 40),
    st.floats(),
    st.datetimes(datetime(1900, 1, 2), datetime(2100, 1, 1)),
)
EDIT = st.tuples(
    st.sampled_from(["flip", "cut", "drop", "insert", "double", "fill"]), st.floats(0, 1), st.binary(max_size=12)
)
EDITS = st.lists(EDIT, min_size=1, max_size=4)


def mutate(content: bytes, edits: Sequence[tuple[str, float, bytes]]) -> bytes:
    for kind, where, bytes_ in edits:
        place = int(where * len(content))
        before, after, length = content[:place], content[place:], len(bytes_)
        content = {
            "flip": before + bytes(old ^ mask for old, mask in zip(after, bytes_)) + after[length:],
            "cut": before,
            "drop": before + after[length * 5 :],
            "insert": before + bytes_ + after,
            "double": before + after[: length * 20] + after,
            "fill": before + bytes(length * 10) + after[length * 10 :],
        }[kind]
    return content


def mutate_member(content: bytes, member: float, edits: Sequence[tuple[str, float, bytes]]) -> bytes:
    """A workbook in which one file is mutated and packed again, so that its checksum is right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = sorted(files)[int(member * (len(files) - 1))]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for other, whole in files.items():
            archive.writestr(other, mutate(whole, edits) if other == name else whole)
    return packed.getvalue()


def replaced(rows: Sequence[tuple]) -> st.SearchStrategy:
    """The rows with any values in a few cells."""
    width = max(map(len, rows))
    change = st.tuples(st.integers(0, len(rows) - 1), st.integers(0, width - 1), CELL)

    def apply(changes: list) -> list[list]:
        table = [[*row, *[None] * (width - len(row))] for row in rows]
        for row, column, value in changes:
            table[row][column] = value
        return table

    return st.lists(change, min_size=1, max_size=12).map(apply)

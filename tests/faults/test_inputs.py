"""Hostile sheets, tables and pictures, made up or mutated.

Each input succeeds or raises one ``InputError``; none hangs, and nothing is written outside the given folders.
Together with ``test_files.py`` a few hundred inputs are tried, and over ten thousand with ``--long``.
"""

import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pandas as pd
import pytest
from hypothesis import strategies as st
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

from data_modules import DATASETS, protocols
from data_modules.cache import extract
from data_modules.cache.extract import Entry
from data_modules.flow_maps import COLUMNS, FlowMaps
from experiments.jobs import load_class
from mer import InputError
from mer.preprocessing.clip import FlowPreparation
from mer.preprocessing.frame_files import damage, list_frames, read_image
from tests import trees
from tests.faults.hostile import EDITS, PATIENCE, contained, feeder, mutate, mutate_member, replaced

CLASSES = protocols.protocol("megc2019").classes


@pytest.fixture
def feed(request, tmp_path):
    return feeder(request, tmp_path)


@pytest.fixture(scope="module")
def releases(tmp_path_factory) -> dict[str, Path]:
    """CASME II, SAMM and CAS(ME)^3, a few clips each. Read only."""
    root = tmp_path_factory.mktemp("releases")
    return {name: getattr(trees, name)(root / name) for name in ("casme2", "samm", "casme3")}


def sheet_of(root: Path) -> Path:
    (path,) = root.glob("*.xlsx")
    return path


def rows_of(path: Path) -> list[tuple]:
    book = openpyxl.load_workbook(path)
    return [row for sheet in book.worksheets for row in sheet.iter_rows(values_only=True)]


def read_release(name: str, release: Path, folder: Path, write: Callable[[Path], object]) -> None:
    """Read a copy of a release whose frames lie behind a link, with another sheet."""
    root = folder / "data"
    root.mkdir()
    for path in release.iterdir():
        if path.is_dir():
            (root / path.name).symlink_to(path)
    write(root / sheet_of(release).name)
    with contained(folder / "cache"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(extract, "run", trees.prepare_without_faces)
        data = load_class(DATASETS[name])(root=str(root), cache=str(folder / "cache"), crop_size=16, input_size=8)
        data.prepare_data()
        assert sorted(row for rows in data.folds.values() for row in rows) == list(range(len(data.clips)))
        assert all(Path(clip).resolve().is_relative_to(release.resolve()) for clip in data.all_clips["folder"])
        data.setup()


@pytest.mark.parametrize("name", ["casme2", "samm", "casme3"])
class TestSheets:
    def test_cells_that_hold_anything(self, feed, releases, name):
        rows = rows_of(sheet_of(releases[name]))

        def test(table: list[list], folder: Path) -> None:
            cells = [
                [ILLEGAL_CHARACTERS_RE.sub("?", cell) if isinstance(cell, str) else cell for cell in row]
                for row in table
            ]
            sheets = {"MICRO_ONLY" if name == "samm" else "label": cells}
            read_release(name, releases[name], folder, lambda path: trees.write_workbook(path, sheets))

        feed(replaced(rows), test, 15, 500)

    def test_a_mutated_file(self, feed, releases, name):
        whole = sheet_of(releases[name]).read_bytes()

        def test(edits: list, folder: Path) -> None:
            read_release(name, releases[name], folder, lambda path: path.write_bytes(mutate(whole, edits)))

        feed(EDITS, test, 5, 200)

    def test_a_mutated_file_in_a_workbook_that_opens(self, feed, releases, name):
        whole = sheet_of(releases[name]).read_bytes()

        def test(change: tuple, folder: Path) -> None:
            read_release(name, releases[name], folder, lambda path: path.write_bytes(mutate_member(whole, *change)))

        feed(st.tuples(st.floats(0, 1), EDITS), test, 10, 500)


SHEET = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">{}</worksheet>'
ENTITIES = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))


@pytest.mark.parametrize(
    "content",
    [
        SHEET.format('<sheetData><row r="999999999999"><c r="A999999999999"><v>1</v></c></row></sheetData>'),
        SHEET.format('<sheetData><row r="1"><c r="ZZZZZZ1"><v>1</v></c></row></sheetData>'),
        SHEET.format('<dimension ref="A1:XFD1048576"/><sheetData/>'),
        SHEET.format("<sheetData>" + '<row r="4999"><c r="CV4999"><v>1</v></c></row>' * 9 + "</sheetData>"),
        f'<!DOCTYPE x [<!ENTITY a0 "b">{ENTITIES}]>' + SHEET.format("<sheetData>&a11;</sheetData>"),
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + SHEET.format("<sheetData>&a;</sheetData>"),
        "<a>" * 50_000,
    ],
    ids=["row", "column", "dimension", "wide", "entities", "external", "deep"],
)
def test_a_worksheet_that_grows_when_it_is_read(releases, tmp_path, content):
    packed = tmp_path / "sheet.xlsx"
    with zipfile.ZipFile(sheet_of(releases["casme2"])) as archive, zipfile.ZipFile(packed, "w") as other:
        for name in archive.namelist():
            other.writestr(name, content if name == "xl/worksheets/sheet1.xml" else archive.read(name))
    with pytest.raises(InputError):
        dataset = load_class(DATASETS["casme2"])
        root = tmp_path / "data"
        root.mkdir()
        (root / "CASME2_RAW_selected").symlink_to(releases["casme2"] / "CASME2_RAW_selected")
        shutil.copy(packed, root / "CASME2-coding-20140508.xlsx")
        signal.alarm(PATIENCE)
        try:
            dataset(root=str(root), cache=str(tmp_path / "cache")).all_clips  # noqa: B018
        finally:
            signal.alarm(0)


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """Three subjects of flow maps, two clips each. Read only."""
    root = tmp_path_factory.mktemp("maps") / "maps"
    trees.write_frames(root / "pictures", [f"{number}.png" for number in range(6)])
    rows = [("smic", f"s{n % 3}", f"c{n}", CLASSES[n % 3], f"pictures/{n}.png") for n in range(6)]
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(root / "clips.csv", index=False)
    return root


def read_maps(own: Path, folder: Path, sheet: bytes) -> None:
    root = folder / "data"
    root.mkdir()
    (root / "pictures").symlink_to(own / "pictures")
    (root / "clips.csv").write_bytes(sheet)
    with contained():
        data = FlowMaps(root=str(root), input_size=8)
        data.prepare_data()
        data.setup()
        assert all((root / file).resolve().is_relative_to(own) for file in data.clips["file"])
        assert data.fingerprint and sum(map(len, data.folds.values())) == len(data.clips)


class TestFlowMaps:
    def test_cells_that_hold_anything(self, feed, own):
        rows = [tuple(COLUMNS), *pd.read_csv(own / "clips.csv").itertuples(index=False, name=None)]

        def test(table: list[list], folder: Path) -> None:
            text = pd.DataFrame(table).to_csv(index=False, header=False)
            read_maps(own, folder, text.encode("utf-8", "surrogatepass"))

        feed(replaced(rows), test, 20, 1_000)

    def test_a_mutated_file(self, feed, own):
        whole = (own / "clips.csv").read_bytes()
        feed(EDITS, lambda edits, folder: read_maps(own, folder, mutate(whole, edits)), 20, 1_000)


def picture(suffix: str) -> bytes:
    image = np.random.default_rng(1).integers(0, 255, (24, 32, 3), np.uint8)
    return cv2.imencode(suffix, image)[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif"])
class TestPictures:
    def test_a_mutated_frame(self, feed, suffix):
        whole = picture(suffix)

        def test(edits: list, folder: Path) -> None:
            for number in range(3):
                (folder / f"{number}{suffix}").write_bytes(mutate(whole, edits) if number else whole)
            with contained(folder):
                frames = list_frames(folder)
                assert [frame.number for frame in frames] == [0, 1, 2]
                assert all(damage(frame) is not None for frame in frames)
                named = tuple((frame.number, frame.path) for frame in frames)
                work = FlowPreparation(frames=named, size=16, registered=True, apex=2, method="farneback")
                assert isinstance(Entry(work, folder / "x").tensors(), str | dict)
                read_image(frames[1].path)

        feed(EDITS, test, 8, 400)

    def test_a_frame_that_claims_to_be_huge(self, suffix, tmp_path):
        whole = picture(suffix)
        for side in (b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff"):  # with the least byte first, and last
            for place in range(16, 24):
                path = tmp_path / "1.png"
                path.write_bytes(whole[:place] + side + whole[place + 4 :])
                with contained():
                    read_image(path)


def test_what_is_written_elsewhere_is_noticed(tmp_path):
    with contained(tmp_path / "given"):
        (tmp_path / "given").mkdir()
        (tmp_path / "given/file").write_text("")
    changes = (Path.touch, Path.unlink, Path.mkdir, Path.rmdir, lambda path: path.symlink_to("given"))
    for change in changes:
        with pytest.raises(AssertionError, match="elsewhere"), contained(tmp_path / "given"):
            change(tmp_path / "elsewhere")

"""What real folders are like: sheets and frames that are not where, or not called as, they were distributed."""

import os
import shutil
from pathlib import Path

import pytest

from data_modules.casme2 import CASME2
from data_modules.casme3 import CASME3
from data_modules.release import detect
from data_modules.release.clip_table import rows
from data_modules.smic import SMIC
from experiments.experiment import Experiment
from experiments.jobs import Job
from mer import InputError
from tests import trees

SHEET = "CASME2-coding-20140508.xlsx"
LONG = [("01", f"EP0{clip}_01f", None, 40, 50, 69, None, 4, "disgust") for clip in range(1, 5)]


def numbers(data) -> dict[str, list[int]]:
    return {row.clip: [frame.number for frame in data.clip_frames(row).frames] for row in rows(data.all_clips)}


def files(data) -> dict[str, list[str]]:
    return {row.clip: [frame.path.name for frame in data.clip_frames(row).frames] for row in rows(data.all_clips)}


def refill(folder: Path, names: list[str]) -> None:
    shutil.rmtree(folder)
    trees.write_frames(folder, names)


class TestNumbers:
    @pytest.mark.parametrize("first", [0, 1])
    def test_frames_that_are_numbered_anew_get_the_numbers_of_the_sheet(self, tmp_path, first):
        root = trees.casme2(tmp_path / "data", LONG)
        right = numbers(CASME2(root=str(root)))
        for _, clip, *_ in LONG:
            refill(root / "CASME2_RAW_selected/sub01" / clip, [f"img{first + n}.jpg" for n in range(30)])
        data = CASME2(root=str(root))
        assert numbers(data) == right and data.all_clips["apex"].tolist() == [50] * 4
        assert files(data)["EP01_01f"][0] == f"img{first}.jpg"
        what = f"the frames are numbered {first} to {first + 29}, the sheet says 40 to 69: they start anew"
        assert [str(problem) for problem in data.problems][0] == (
            f"sub01 EP01_01f: {what}; {40 - first} is added to their numbers"
        )
        assert len(data.problems) == 4 and all(problem.used for problem in data.problems)

    def test_what_is_numbered_anew_and_incomplete_is_left_out(self, tmp_path):
        root = trees.casme2(tmp_path / "data", LONG)
        folder = root / "CASME2_RAW_selected/sub01"
        refill(folder / "EP01_01f", [f"img{n}.jpg" for n in range(1, 30)])  # one less than the sheet says
        refill(folder / "EP02_01f", [f"img{n}.jpg" for n in range(1, 60)])  # the last third is not there
        refill(folder / "EP03_01f", [f"img{n}.jpg" for n in range(1, 61)])
        data = CASME2(root=str(root))
        assert list(numbers(data)) == ["EP03_01f", "EP04_01f"] and numbers(data)["EP03_01f"] == [*range(40, 61)]
        assert [problem.what for problem in data.problems if not problem.used] == [
            "the frames are numbered 1 to 29, the sheet says 40 to 69: they seem to start anew, but 29 are not the 30 "
            "of the sheet",
            "the last third is missing: no frame of 60 to 69 can be used",
        ]

    def test_whole_videos_are_not_numbered_anew(self, tmp_path):
        root = trees.casme3(tmp_path / "data")
        data = CASME3(root=str(root))
        assert not [problem for problem in data.problems if "numbered" in problem.what]

    def test_a_clip_that_starts_at_its_onset_stays_as_it_is(self, tmp_path):
        root = trees.casme2(tmp_path / "data", [("01", "EP01", None, 1, 5, 9, None, 4, "disgust")])
        refill(root / "CASME2_RAW_selected/sub01/EP01", [f"img{n}.jpg" for n in range(9)])  # 0 to 8, onset 1 to 9
        assert files(CASME2(root=str(root)))["EP01"][0] == "img0.jpg"
        refill(root / "CASME2_RAW_selected/sub01/EP01", [f"img{n}.jpg" for n in range(1, 9)])
        assert numbers(CASME2(root=str(root)))["EP01"] == [*range(1, 9)]

    def test_an_empty_onset_is_no_number(self, tmp_path):
        root = trees.casme2(tmp_path / "data", LONG)
        table = [trees.CASME2_HEADER, LONG[0][:3] + (None, *LONG[0][4:]), *LONG[1:]]
        trees.write_workbook(root / SHEET, {"Sheet1": table})
        (problem,) = CASME2(root=str(root)).problems
        assert problem.what == "onset '' is no frame number" and not problem.used


class TestFiles:
    def test_one_of_two_series_is_used_and_the_other_is_listed(self, tmp_path):
        root = trees.casme2(tmp_path / "data", LONG)
        folder = root / "CASME2_RAW_selected/sub01"
        trees.write_frames(folder / "EP01_01f", [f"img{n}.png" for n in range(35, 69)])  # depth
        trees.write_frames(folder / "EP02_01f", [f"reg_img{n}.jpg" for n in range(40, 70)])
        trees.write_frames(folder / "EP03_01f", ["img46 - Copy.jpg", "img50(46).jpg", "x_47.jpg"])
        trees.write_frames(folder / "EP04_01f", [f"._img{n}.jpg" for n in range(40, 70)])
        data = CASME2(root=str(root))
        assert files(data) == dict.fromkeys(files(data), [f"img{n}.jpg" for n in range(40, 70)])
        assert data.layout == "raw"
        assert [problem.what for problem in data.problems] == [
            "29 number(s) with two files, as img40.png beside img40.jpg",
            "30 number(s) with two files, as reg_img40.jpg beside img40.jpg",
            "2 number(s) with two files, as img46 - Copy.jpg, img50(46).jpg beside img46.jpg",
        ]

    def test_a_clip_folder_that_cannot_be_read_is_left_out(self, tmp_path, monkeypatch):
        root = trees.casme2(tmp_path / "data", LONG)
        locked, scandir = root / "CASME2_RAW_selected/sub01/EP01_01f", os.scandir

        def refuse(path):
            if Path(path) == locked:
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        data = CASME2(root=str(root))
        assert len(data.all_clips) == 3
        assert [problem.what for problem in data.problems] == [f"{locked} cannot be read (Permission denied)"]

    def test_a_link_to_itself_does_no_harm(self, tmp_path):
        root = trees.casme2(tmp_path / "data", LONG)
        (root / "loop").symlink_to("loop")
        assert len(CASME2(root=str(root)).all_clips) == 4


class TestCrops:
    @pytest.mark.parametrize(
        ("folder", "registered"),
        [
            ("b_uncropped", False),
            ("macrocrop", False),
            ("not-cropped", False),
            ("microphone", False),
            ("cropped_backup/CASME2_RAW_selected", False),
            ("Cropped", True),
            ("Cropped-updated/all", True),
            ("CASME2Cropped", True),
            ("faces_crop2", True),
        ],
    )
    def test_folders_are_read_in_whole_words(self, tmp_path, folder, registered):
        data = CASME2(root=str(trees.casme2(tmp_path / "data", LONG, folder=folder)))
        assert data.release.registered is registered
        assert data.layout == ("raw cropped" if registered else "raw")

    def test_the_name_of_the_root_says_nothing(self, tmp_path):
        assert CASME2(root=str(trees.casme2(tmp_path / "cropped", LONG, folder="faces"))).layout == "raw"

    def test_also_where_the_root_is_the_release(self, tmp_path):
        root = trees.casme2(tmp_path / "data", LONG, folder="Cropped") / "Cropped"
        assert CASME2(root=str(root)).layout == "raw"
        assert CASME2(root=str(root), registered=True).layout == "raw cropped"

    def test_what_macos_leaves_behind_is_no_image(self, tmp_path):
        root = trees.casme2(tmp_path / "data", LONG, folder="faces", frame="reg_{}.jpg")
        for folder in (root / "faces/sub01").iterdir():
            trees.write_frames(folder, ["._reg_40.jpg"])
        assert CASME2(root=str(root)).layout == "raw cropped"

    def test_the_user_knows_better(self, tmp_path):
        root = trees.casme2(tmp_path / "data", LONG, folder="faces")
        plain, crops = CASME2(root=str(root)), CASME2(root=str(root), registered=True)
        assert crops.layout == "raw cropped" and crops.fingerprint != plain.fingerprint and not plain.release.registered
        assert CASME2(root=str(root), registered=False).fingerprint == plain.fingerprint
        trees.casme2(root, LONG, folder="Cropped")
        assert CASME2(root=str(root)).release.folder.name == "faces"
        assert CASME2(root=str(root), registered=True).release.folder.name == "Cropped"


class TestSheets:
    def test_what_is_read_is_named_and_so_is_what_would_fit(self, tmp_path):
        root = trees.casme2(tmp_path / "data", LONG)
        trees.write_workbook(root / "CASME2-coding-20140508_old.xlsx", {"Sheet1": [trees.CASME2_HEADER, *LONG[:2]]})
        table = [trees.CASME2_HEADER, *LONG]
        trees.write_workbook(root / SHEET, {"Sheet1": table, "Sheet2": table})
        classes = [("Subject", "Filename", "Objective Class"), ("01", "EP01_01f", 3)]
        trees.write_workbook(root / "CASME2-ObjectiveClasses.xlsx", {"classes": classes})
        data = CASME2(root=str(root))
        assert len(data.all_clips) == 4
        old = root / "CASME2-coding-20140508_old.xlsx"
        assert data.sources == [
            f"frames in {root / 'CASME2_RAW_selected'}",
            f"sheet {root / SHEET}, worksheet 'Sheet1'; not read: worksheet 'Sheet2', {old}",
            f"sheet {root / 'CASME2-ObjectiveClasses.xlsx'}, worksheet 'classes'",
        ]

    @pytest.mark.parametrize("place", ["", "CASME2_RAW_selected", "annotation", ".."])
    def test_where_a_sheet_may_lie(self, tmp_path, place):
        root = trees.casme2(tmp_path / "above/data", LONG)
        (root / place).mkdir(exist_ok=True)
        os.rename(root / SHEET, root / place / SHEET)
        assert len(CASME2(root=str(root)).all_clips) == 4

    def test_a_sheet_of_a_sibling_is_anothers(self, tmp_path):
        root = trees.casme2(tmp_path / "mine", LONG)
        (tmp_path / "sibling").mkdir()
        os.rename(root / SHEET, tmp_path / "sibling" / SHEET)
        with pytest.raises(InputError, match="holds no CASME2.coding.*--data.sheet=FILE"):
            CASME2(root=str(root)).all_clips  # noqa: B018
        given = CASME2(root=str(root), sheet=str(tmp_path / "sibling" / SHEET))
        assert len(given.all_clips) == 4

    def test_ones_own_sheet_beside_a_link_to_shared_frames(self, tmp_path):
        shared = trees.casme2(tmp_path / "shared/casme2", LONG)
        own = tmp_path / "own"
        own.mkdir()
        (own / "CASME2_RAW_selected").symlink_to(shared / "CASME2_RAW_selected")
        assert CASME2(root=str(own)).sources[1].startswith(f"sheet {shared / SHEET}")
        trees.write_workbook(own / SHEET, {"Sheet1": [trees.CASME2_HEADER, *LONG[:2]]})
        assert len(CASME2(root=str(own)).all_clips) == 2
        (tmp_path / "link").symlink_to(own)
        assert len(CASME2(root=str(tmp_path / "link/../own")).all_clips) == 2

    def test_a_sheet_that_is_named(self, tmp_path, monkeypatch):
        root = trees.casme2(tmp_path / "data", LONG)
        trees.write_workbook(
            tmp_path / "mine.xlsx",
            {"all": [trees.CASME2_HEADER, *LONG], "two": [("Sub", "Clip", "Onset", "Apex", "Offset", "Label"),
                     *[(*row[:2], *row[3:6], row[8]) for row in LONG[:2]]]},
        )  # fmt: skip
        usual = CASME2(root=str(root))
        given = CASME2(root=str(root), sheet=f"{tmp_path / 'mine.xlsx'}:two")
        assert len(given.all_clips) == 2 and given.fingerprint != usual.fingerprint
        assert given.sources[1] == f"sheet {tmp_path / 'mine.xlsx'}, worksheet 'two'"
        same = CASME2(root=str(root), sheet=f"{tmp_path / 'mine.xlsx'}:all")
        assert same.fingerprint == usual.fingerprint  # where a sheet lies changes no tensor
        monkeypatch.chdir(tmp_path)
        assert len(CASME2(root=str(root), sheet="mine.xlsx").all_clips) == 4
        assert len(CASME2(root=str(root), sheet=SHEET).all_clips) == 4  # below the root
        with pytest.raises(InputError, match="mine.xls: there is no such sheet; write --data.sheet=FILE"):
            CASME2(root=str(root), sheet="mine.xls").all_clips  # noqa: B018

    def test_the_digest_has_what_a_sheet_and_registered_faces_change_in_the_data(self, tmp_path):
        root = trees.casme2(tmp_path / "data", LONG)
        table = [trees.CASME2_HEADER, *LONG]
        path = trees.write_workbook(tmp_path / "mine.xlsx", {"all": table, "fewer": table[:-1]})

        def digest(*options: str) -> str:
            return Experiment(Job("casme2", "ststnet", root=str(root), options=options)).digest

        usual, fewer, crops = digest(), digest(f"--data.sheet={path}:fewer"), digest("--data.registered=true")
        assert len({usual, fewer, crops}) == 3
        assert digest(f"--data.sheet={path}:all") == digest("--data.registered=false") == usual


class TestApexesOfSMIC:
    def test_an_apex_column_of_the_extended_sheet_is_read(self, tmp_path):
        root = trees.smic_extended(tmp_path / "data")
        without = SMIC(root=str(root))
        assert without.all_clips["apex"].isna().all()
        header = ("Subject", "Filename", "OnsetF", "ApexF", "OffsetF", "Emotion")
        table = [(1, "s1_ne_01", 103, 105, 107, "negative"), (3, "s3_po_01", 104, None, 108, "positive")]
        trees.write_workbook(root / "SMIC-HS-E_annotation.xlsx", {"HS": [header, *table]})
        data = SMIC(root=str(root))
        assert data.all_clips["apex"].fillna(0).tolist() == [105, 0]
        assert "no apex is named; it is spotted" in str(data.problems[0])

    def test_a_release_without_a_sheet_takes_one(self, tmp_path):
        root = trees.smic(tmp_path / "data")
        table = [("Subject", "Filename", "Apex"), ("s1", "s1_ne_01", 100000), (3, "s03_po_01", "100001"), (9, "x", 3)]
        trees.write_workbook(tmp_path / "apexes.xlsx", {"mine": table})
        usual, data = SMIC(root=str(root)), SMIC(root=str(root), sheet=str(tmp_path / "apexes.xlsx"))
        apexes = data.all_clips.set_index("clip")["apex"].dropna()
        assert apexes.to_dict() == {"s01_ne_01": 100000, "s03_po_01": 100001}
        assert data.fingerprint != usual.fingerprint and data.layout == usual.layout
        unused = [problem for problem in data.problems if not problem.used]
        assert [str(problem) for problem in unused] == [
            f"s09 x: stands in {tmp_path / 'apexes.xlsx'} and has no folder of frames; not used"
        ]


def test_a_search_that_is_given_up_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(detect, "MOST_FOLDERS", 30)
    for number in range(40):
        (tmp_path / f"a{number}").mkdir()
    trees.casme2(tmp_path / "data", LONG)
    with pytest.raises(InputError, match="in the first 30 folders, and more were not looked into"):
        CASME2(root=str(tmp_path)).all_clips  # noqa: B018
    with pytest.raises(InputError, match="holds no CASME II as it is distributed. CASME II"):
        CASME2(root=str(tmp_path / "a1")).all_clips  # noqa: B018

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_modules.base import FlowDataModule
from data_modules.casme2 import CASME2
from data_modules.release.clip_table import is_number, is_plain, split_people
from mer import InputError
from mer.preprocessing.frame_files import damage, list_frames
from tests import trees


def people(*names: tuple[str, str]) -> pd.DataFrame:
    rows = [(*name, f"c{number}") for number, name in enumerate(names)]
    return pd.DataFrame(rows, columns=["dataset", "subject", "clip"])


@pytest.mark.parametrize(
    ("first", "second"),
    [("sub01", "SUB01"), ("sub01", "sub1"), ("01", "1"), ("s 1", "s1 "), ("\uff11", "1"), ("a007b01", "A7b1")],
)
def test_two_names_of_one_person_are_noticed(first, second):
    (line,) = split_people(people(("x", first), ("x", "sub10"), ("x", second), ("y", second)))
    assert line == f"subject '{first}' (clip c0) and '{second}' (clip c2)"
    (line,) = split_people(people(("SMIC", "1"), ("smic", "1")), lambda number: f"line {number + 2}")
    assert line == "dataset 'SMIC' (line 2) and 'smic' (line 3)"


def test_names_of_two_people_are_let_be():
    names = ("s1", "s10", "s100", "s2", "1_11", "11_1", "a1", "b1", "0", "s1.5", "s15")
    assert split_people(people(*[("x", name) for name in names])) == []


def test_every_dataset_has_one_name_for_a_person(tmp_path):
    class MyLab(FlowDataModule):
        name, default_protocol, database = "my_lab", "smic-3", "smic"

        def read_clips(self) -> pd.DataFrame:
            return people(("my_lab", "anna"), ("my_lab", "Anna")).assign(emotion="negative")

    with pytest.raises(InputError, match=r"'anna' \(clip c0\) and 'Anna' \(clip c1\)"):
        MyLab(root=str(tmp_path)).folds  # noqa: B018


def test_frames_are_found_by_the_last_number(tmp_path):
    names = [
        "img10.jpg",
        "img9.jpg",
        "006_0011.jpg",
        "reg_img00008.JPG",
        "Thumbs.db",
        ".img3.jpg",
        "notes12.txt",
        "x.jpg",
    ]
    for name in names:
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "img12.jpg").mkdir()
    found = list_frames(tmp_path)
    assert [frame.number for frame in found] == [8, 9, 10, 11] and found[0].size == 1


@given(st.lists(st.integers(0, 10**9), unique=True, min_size=1, max_size=20), st.integers(1, 9))
def test_padding_and_order_do_not_matter(tmp_path_factory, numbers, digits):
    folder = tmp_path_factory.mktemp("frames")
    for number in numbers:
        (folder / f"s1_2_{number:0{digits}d}.png").write_bytes(b"1")
    assert [frame.number for frame in list_frames(folder)] == sorted(numbers)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_damage_shows_at_the_ends(tmp_path, suffix):
    whole = trees.IMAGES[suffix]
    contents = [whole, whole + b"\0" * 100, whole[: len(whole) // 2], b"", b"\0" * 400, b"<html>no</html>"]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}{suffix}").write_bytes(content)
    assert [damage(frame) for frame in list_frames(tmp_path)] == [
        *("", "", "is cut off", "is empty"),
        *("is no image", "is no image"),
    ]


@given(st.text(max_size=120))
def test_plain_names_stay_in_their_folder(text):
    if is_plain(text):
        assert text and not set(text) & set("/\\\0 \n\t:*?\"'<>|") and text not in (".", "..")
    if is_number(text):
        assert 0 <= int(text) < 2**63


@pytest.mark.parametrize(
    ("place", "text"),
    [(1, "../../etc/passwd"), (1, "/etc/passwd"), (0, "..\\up"), (1, ".."), (0, "/"), (1, "C:\\Windows\\x")],
)
def test_a_name_that_leads_elsewhere_stops_everything(tmp_path, place, text):
    rows = trees.casme2_rows()
    root = trees.casme2(tmp_path / "data", rows)
    rows[3] = tuple(text if index == place else cell for index, cell in enumerate(rows[3]))
    trees.write_workbook(root / "CASME2-coding-20140508.xlsx", {"Sheet1": [trees.CASME2_HEADER, *rows]})
    with pytest.raises(InputError, match="row 5.*leads to another folder"):
        CASME2(root=str(root)).all_clips  # noqa: B018


def test_twenty_faults_are_listed_in_one_run(tmp_path):
    """Twenty faults of different kinds; the clips without one are used, and so are those that can be corrected."""
    first = [
        (f"{s:02d}", f"EP{c:02d}_01", None, 10, 14, 20, None, 4, "disgust") for s in (1, 2, 3) for c in range(1, 11)
    ]
    root = trees.casme2(tmp_path / "data", first)
    frames = root / "CASME2_RAW_selected"
    rows, faults = [list(row) for row in first], {}

    def fault(row: int, words: str, used: bool = False, **cells) -> str:
        places = {"subject": 0, "clip": 1, "onset": 3, "apex": 4, "offset": 5, "emotion": 8}
        for name, value in cells.items():
            rows[row][places[name]] = value
        faults[words] = used
        return frames / f"sub{first[row][0]}" / first[row][1]

    fault(0, "emotion 'boredom' is none of", emotion="boredom")
    fault(1, "emotion '' is none of", emotion=None)
    fault(2, "onset 'ten' is no frame number", onset="ten")
    fault(3, "offset '-20' is no frame number", offset=-20)
    fault(4, "offset 5 is not after onset 10", offset=5)
    fault(5, "apex 10 is not after onset 10", True, apex=10)
    fault(6, "apex 25 is after offset 20", True, apex=25)
    fault(7, "apex '?' is no frame number", True, apex="?")
    fault(8, "row 10: the clip is empty", clip=None)
    fault(9, "row 11: the subject is empty", subject=None)
    fault(10, "'EP 01' is no plain name", clip="EP 01")
    fault(11, "there is no folder of its frames", clip="EP99_99")
    fault(12, "stands twice; row 2 is used", subject="01", clip="EP01_01")
    for file in fault(13, "holds no image").iterdir():
        file.unlink()
    folder = fault(14, "no frames of 10 to 20 can be used")
    for number in range(10, 21):
        (folder / f"img{number}.jpg").rename(folder / f"img{number + 100}.jpg")
    for number in range(11, 21):
        (fault(15, "1 frame of 10 to 20 can be used") / f"img{number}.jpg").unlink()
    (fault(16, "frame 14, the apex, cannot be used", True) / "img14.jpg").unlink()
    (fault(17, "frame 10, the onset, cannot be used", True) / "img10.jpg").unlink()
    (fault(18, "1 damaged: frame 12 is empty", True) / "img12.jpg").write_bytes(b"")
    (fault(19, "1 damaged: frame 20 is cut off", True) / "img20.jpg").write_bytes(trees.IMAGES[".jpg"][:300])
    for file in fault(20, "11 damaged: 10 is no image").iterdir():
        file.write_bytes(b"no image")
    (fault(21, "3 of 11 frames are missing", True) / "img12.jpg").unlink()
    for number in (16, 17):
        (frames / "sub03/EP02_01" / f"img{number}.jpg").unlink()
    trees.write_frames(frames / "sub02/EP50_01", ["img1.jpg"])
    faults["folder sub02/EP50_01 has no label"] = False
    trees.write_frames(frames / "sub2/EP03_01", ["img10.jpg"])
    faults["is a second folder of it"] = True
    trees.write_workbook(root / "CASME2-coding-20140508.xlsx", {"Sheet1": [trees.CASME2_HEADER, *rows]})

    data = CASME2(root=str(root))
    listed = {str(problem): problem for problem in data.problems}
    for words, used in faults.items():
        matches = [problem for text, problem in listed.items() if words in text]
        assert matches and all(problem.used is used for problem in matches), (words, list(listed))
    assert len(faults) >= 20
    good = {(f"sub{row[0]}", row[1]) for row in first[22:]}
    corrected = {(f"sub{first[row][0]}", first[row][1]) for row in (5, 6, 7, 16, 17, 18, 19, 21)}
    used = set(zip(data.all_clips["subject"], data.all_clips["clip"]))
    assert used == good | corrected and np.array_equal(data.all_clips["offset"].unique(), [20])
    apexes = data.all_clips.set_index(["subject", "clip"])["apex"]
    assert apexes["sub01", "EP06_01"] is apexes.dtype.na_value and apexes["sub02", "EP07_01"] == 14
    clip = data.clip_frames(
        next(row for row in data.all_clips.itertuples() if row.clip == "EP08_01" and row.subject == "sub02")
    )
    assert [frame.number for frame in clip.frames] == list(range(11, 21))

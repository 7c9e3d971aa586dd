import csv
import hashlib
import re
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pandas as pd
import pytest
from safetensors.numpy import load_file

from data_modules.synthesis.action_units import ACTION_UNITS, objective_class, parse
from data_modules.synthesis.layouts import LAYOUTS
from data_modules.synthesis.layouts.layout import span, write_workbook
from data_modules.synthesis.synthesize import synthesize
from experiments.cli import main
from mer.preprocessing.depth import crop_depth, find_depth
from mer.preprocessing.frame_files import read_depth

SMALL = {"subjects": 2, "size": (320, 240), "workers": 1, "seed": 5}
SINGLE = {name: parts[""] for name, parts in LAYOUTS.items() if "" in parts}
IMAGES = {".jpg", ".bmp"}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """One folder of moving faces in each layout but the default one."""
    folder = tmp_path_factory.mktemp("layouts")
    sizes = {"samm": 3, "smic": 4, "casme3": 5, "megc2019": 1}
    return {name: synthesize(folder / name, layout=name, clips=clips, **SMALL) for name, clips in sizes.items()}


def digests(root: Path) -> dict[str, str]:
    files = (file for file in root.rglob("*") if file.is_file())
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def cells(file: Path) -> dict[str, list[tuple]]:
    return {sheet.title: list(sheet.iter_rows(values_only=True)) for sheet in openpyxl.load_workbook(file)}


def images(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if file.suffix in IMAGES}


def test_samm(roots):
    (title, rows), *more = cells(roots["samm"] / "SAMM_Micro_FACS_Codes_v2.xlsx").items()
    assert title == "MICRO_ONLY" and not more
    assert rows[0][0] and not any(row[0] == "Subject" for row in rows[:13])
    assert rows[13][:6] == ("Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame")
    assert len(rows) == 20
    digits = set()
    for row in rows[14:]:
        subject, clip, _, onset, apex, offset = row[:6]
        assert clip.startswith(f"{subject}_") and onset < apex < offset
        assert row[6].startswith("=SUM(") and row[9] == row[9].capitalize() and 1 <= row[10] <= 7
        names = images(roots["samm"] / "SAMM" / subject / clip)
        assert {int(name[4:-4]) for name in names} == set(range(onset, offset + 1))
        digits |= {len(name[4:-4]) for name in names if onset < 1000}
        image = cv2.imread(str(roots["samm"] / "SAMM" / subject / clip / min(names)), cv2.IMREAD_UNCHANGED)
        assert image.shape == (240, 320)
    assert (roots["samm"] / "SAMM" / "Thumbs.db").exists()
    names = {layout.frame(clip, 83)[-9:-4] for layout in [SINGLE["samm"]] for clip in layout.plan(0, 1, 9)}
    assert names == {"_0083", "00083"}


def test_smic(roots):
    root = roots["smic"] / "SMIC_all_raw"
    assert not list(roots["smic"].glob("*.xlsx"))
    assert list(root.glob("HS/s1/non_micro/*/*.bmp"))
    clips = list(root.glob("HS/*/micro/*/*"))
    assert len(clips) == 8
    for clip in clips:
        subject, _, emotion, name = clip.parts[-4:]
        code = {"negative": "ne", "positive": "po", "surprise": "sur"}[emotion]
        assert re.fullmatch(rf"{subject}_{code}_\d\d", name)
        numbers = sorted(int(re.fullmatch(r"image(\d{6,8})\.bmp", image)[1]) for image in images(clip))
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) >= 9
    assert cv2.imread(str(next(clips[0].glob("*.bmp"))), cv2.IMREAD_UNCHANGED).shape == (240, 320, 3)


def test_casme3(roots):
    sheets = cells(roots["casme3"] / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx")
    assert list(sheets) == ["label", "Sheet1", "Sheet3"]
    header, *rows = sheets["label"]
    assert header == ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion")
    assert all(isinstance(cell, str) for row in rows for cell in row)
    assert len({row[:2] for row in rows}) < len({row[:3] for row in rows}) == len(rows) == 10
    assert sum(row[2] == row[3] for row in rows) == 1
    videos = {path.relative_to(roots["casme3"]).as_posix().lower(): path for path in roots["casme3"].glob("*/*/*/*/*")}
    lost, other_case = 0, 0
    for subject, name, onset, _, offset, *_ in rows:
        video = videos[f"part_a/data/part_a/{subject}/{name}".lower()]
        other_case += video.parts[-2:] != (subject, name)
        colour, depth = ({int(path.stem) for path in video.glob(f"{kind}/*.*g")} for kind in ("color", "depth"))
        assert colour == depth
        wanted = set(range(int(onset), int(offset) + 1))
        assert int(offset) in colour and min(colour) < int(onset) and max(colour) > int(offset)
        lost += len(wanted - colour)
    assert lost and other_case
    assert cv2.imread(str(next(video.glob("depth/*"))), cv2.IMREAD_UNCHANGED).dtype == "uint16"


def test_depth_moves_with_the_face(roots):
    layout, unmoved, left = SINGLE["casme3"], 0.0, 0.0
    x, y = np.meshgrid(*[np.arange(128, dtype=np.float32)] * 2)
    for clip in layout.plan(5, 1, 5):
        truth = load_file(roots["casme3"] / layout.truth(clip))
        transform, (u, v) = truth["transform"], truth["flow"].astype(np.float32)
        if {clip.onset, clip.apex} & set(clip.dropped):
            continue
        files = [find_depth(roots["casme3"] / layout.frame(clip, number)) for number in (clip.onset, clip.apex)]
        onset, apex = (crop_depth(read_depth(file), transform, 128, transform) for file in files)
        row, column = np.unravel_index(np.nanargmin(onset), onset.shape)
        assert abs(column - 64) < 4 and abs(row - 70) < 5  # the nose
        face = slice(40, 100), slice(44, 84)
        onset, apex = (cv2.GaussianBlur(np.nan_to_num(crop), (0, 0), 3) for crop in (onset, apex))  # less its grain
        unmoved += np.abs(apex - onset)[face].mean()
        left += np.abs(cv2.remap(apex, x + u, y + v, cv2.INTER_LINEAR) - onset)[face].mean()
    assert left < 0.4 * unmoved


def test_truth_is_kept_for_every_clip(roots):
    for name in ("samm", "smic", "casme3"):
        plans = [
            clip for number in (1, 2) for clip in SINGLE[name].plan(5, number, {"samm": 3, "smic": 4}.get(name, 5))
        ]
        truths = sorted(path.name for path in (roots[name] / "truth").iterdir())
        assert truths == sorted(Path(SINGLE[name].truth(clip)).name for clip in plans)
        assert set(load_file(roots[name] / "truth" / truths[0])) == {"flow", "expression", "transform"}


def test_the_composite_holds_three_layouts_and_three_casts(roots):
    folders = {path.name: path for path in roots["megc2019"].iterdir()}
    assert set(folders) == {"casme2", "samm", "smic"}
    assert list(folders["casme2"].glob("CASME2_RAW_selected/sub02/*/*.jpg"))
    assert list(folders["samm"].glob("SAMM/007/*/*.jpg")) and list(folders["smic"].glob("SMIC_all_raw/HS/s2/*/*/*/*"))
    people = [{clip.person for clip in part.plan(0, 1, 1)} for part in LAYOUTS["megc2019"].values()]
    assert len(set.union(*people)) == 3


def test_the_same_seed_gives_the_same_bytes(roots, tmp_path):
    again = synthesize(tmp_path / "again", layout="casme3", clips=5, **{**SMALL, "workers": 2})
    assert digests(again) == digests(roots["casme3"])


@pytest.mark.parametrize("name", SINGLE)
def test_plans(name):
    layout = SINGLE[name]
    rows = [clip for number in range(1, 13) for clip in layout.plan(0, number, 14)]
    assert rows != [clip for number in range(1, 13) for clip in layout.plan(1, number, 14)]
    assert len({layout.truth(clip) for clip in rows}) == len({layout.frame(clip, clip.onset) for clip in rows}) == 168
    assert len(layout.plan(0, 1, 999)) == 999
    counts = pd.Series([clip.emotion for clip in rows]).value_counts()
    assert set(counts.index) == set(layout.emotions)
    assert counts[list(layout.cycle)].min() > 0.6 * 168 / len(layout.cycle)
    for clip in rows:
        assert clip.onset < clip.apex < clip.offset
        assert set(clip.dropped) <= set(range(clip.onset, clip.offset))
    for codes in layout.emotions.values():
        assert {unit for code in codes for _, unit in parse(code)} <= set(ACTION_UNITS)
        assert all(1 <= objective_class(code) <= 7 for code in codes)


def test_clips_of_one_video_do_not_meet_and_some_miss_frames():
    rows = [clip for number in range(1, 21) for clip in SINGLE["casme3"].plan(0, number, 15)]
    videos: dict[tuple[str, str], list] = {}
    for clip in rows:
        videos.setdefault((clip.subject, clip.name), []).append(clip)
    for clips in videos.values():
        for first, second in zip(clips, clips[1:], strict=False):
            assert first.offset + first.tail < second.onset - second.lead
    share = sum(bool(clip.dropped) for clip in rows) / len(rows)
    assert 0.05 < share < 0.16 and max(len(clip.dropped) for clip in rows) > 1
    assert any(clip.onset in clip.dropped for clip in rows)
    assert any(clip.dropped and not {clip.onset, clip.apex} & set(clip.dropped) for clip in rows)


# Real sheets, in small. Nothing below comes from one.


def sheet(name: str, folder: Path) -> Path:
    """A sheet in the real shape."""
    file, rows = {
        "casme2": (
            "CASME2-coding-20190701.xlsx",
            {
                "Sheet1": [
                    ("Subject", "Filename", None, "OnsetFrame", "ApexFrame", "OffsetFrame", None, "Action Units",
                     "Estimated Emotion"),
                    ("01", "EP01_2", None, 11, 19, 24, None, 4, "others"),
                    ("01", "EP03_01f", None, 9, "/", 14, None, "4+7", "disgust"),
                    ("2", "EP01_2", None, 5, 5, 9, None, "?", "fear"),
                ],
                "Sheet2": [],
            },
        ),
        "samm": (
            "SAMM_Micro_FACS_Codes_v2.xlsx",
            {
                "MICRO_ONLY": [
                    ("Codes",), (None,),
                    ("Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration",
                     "Micro", "Action Units", "Estimated Emotion", "Objective Classes", "Notes"),
                    ("006", "006_1_1", 1, 995, 1000, 1004, "=SUM(F4-D4)+1", "Micro - 1/2", "4+7", "Anger", 3, None),
                    ("007", "007_1_12", 1, 83, 88, 90, "=SUM(F5-D5)+1", "Micro - 1/2", "12 ", "Happiness", 1, None),
                ]
            },
        ),
        "smic": (
            "SMIC-HS-E_annotation.xlsx",
            {
                "HS": [
                    ("Subject", "Filename", None, "OnsetF", "OffsetF", None, "TotalMF1", "Emotion"),
                    (20, "s20_ne_03", None, 17000001, "=D2+G2-1", None, 7, "negative"),
                    (1, "s1_po_01", None, 500000, "=D3+G3-1", None, 5, "negative"),
                    (2, "s2_sur_04", None, 600000, "=D4+G4-1", None, 5, "surprise"),
                    (None, None, None, None, None, None, None, None),
                ],
                "VIS": [
                    ("Subject", "Filename", None, "OnsetF", "TotalMF1", "Emotion"),
                    (20, "s20_ne_03", None, 1, 2, "x"),
                ],
            },
        ),
        "casme3": (
            "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
            {
                "label": [
                    ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"),
                    ("spNO.1", "a", "355", "359", "360", "5", "II", "others"),
                    ("spNO.1", "a", "362", "366", "370", "4", "III", "Others"),
                    ("spNO.14", "J", "3000", "2900", "2925", "4", "III", "fear"),
                    ("spNO.4", "e", "1800", "1811", "0", "4", "III", "sad"),
                ],
                "Sheet1": [(None, None, 1)],
            },
        ),
    }[name]  # fmt: skip
    folder.mkdir(exist_ok=True)
    write_workbook(folder / file, rows)
    return folder / file


def test_stand_ins_of_casme2(tmp_path):
    file = sheet("casme2", tmp_path / "given")
    root = synthesize(tmp_path / "root", sheets=[file])
    assert (root / file.name).read_bytes() == file.read_bytes()
    frames = root / "CASME2_RAW_selected"
    assert images(frames / "sub01" / "EP01_2") == {f"img{i}.jpg" for i in range(11, 25)}
    assert images(frames / "sub01" / "EP03_01f") == {f"img{i}.jpg" for i in range(9, 15)}
    assert images(frames / "sub02" / "EP01_2") == {f"img{i}.jpg" for i in range(5, 10)}
    onset, apex = (cv2.imread(str(frames / "sub01/EP01_2" / f"img{i}.jpg")).astype(float) for i in (11, 19))
    assert onset.shape == (84, 112, 3) and abs(onset - apex).mean() > 0.5
    assert digests(synthesize(tmp_path / "again", sheets=[file])) == digests(root)


def test_stand_ins_of_casme3_cover_numbers_that_are_wrong(tmp_path):
    root = synthesize(tmp_path / "root", layout="casme3", sheets=[sheet("casme3", tmp_path / "given")])
    videos = root / "part_A/data/part_A"
    assert images(videos / "spNO.1/a/color") == {f"{i}.jpg" for i in (*range(355, 361), *range(362, 371))}
    assert {f"{i}.jpg" for i in range(2895, 3001)} <= images(videos / "spNO.14/J/color")
    late = images(videos / "spNO.4/e/color")
    assert {f"{i}.jpg" for i in range(1800, 1850)} <= late and len(late) < 200
    assert len(list((videos / "spNO.4/e/depth").iterdir())) == len(late)


def test_stand_ins_of_the_composite(tmp_path):
    files = [sheet(name, tmp_path / "given") for name in ("smic", "casme2", "samm")]
    root = synthesize(tmp_path / "root", layout="megc2019", sheets=files)
    assert {path.name for path in root.iterdir()} == {"casme2", "samm", "smic"}
    assert (root / "casme2" / files[1].name).exists() and (root / "samm" / files[2].name).exists()
    assert len(list(root.glob("samm/SAMM/006/006_1_1/006_*.jpg"))) == 10
    smic = root / "smic" / "SMIC_all_raw" / "HS"
    # The class is that of the name; gaps are filled, and the one clip that SMIC-E lacks at an end is there.
    assert {path.relative_to(smic).as_posix() for path in smic.glob("*/*/*/*")} == {
        "s1/micro/positive/s1_po_01",
        *(f"s2/micro/surprise/s2_sur_0{i}" for i in range(1, 6)),
        *(f"s20/micro/negative/s20_ne_0{i}" for i in range(1, 4)),
    }
    assert images(smic / "s20/micro/negative/s20_ne_03") == {f"image{i}.bmp" for i in range(17000001, 17000008)}


def test_a_list_of_clips_serves_for_smic(tmp_path):
    rows = [
        ("dataset", "subject", "clip", "emotion"),
        ("casme2", "sub01", "EP01", "negative"),
        ("smic", "s03", "s03_po_02", "positive"),
        ("smic", "s20", "s20_sur_01", "surprise"),
    ]
    with (tmp_path / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    root = synthesize(tmp_path / "root", layout="smic", sheets=[tmp_path / "list.csv"])
    clips = {"/".join(path.parts[-3:]) for path in root.glob("SMIC_all_raw/HS/*/*/*/*")}
    assert clips == {"micro/positive/s3_po_02", "micro/surprise/s20_sur_01"}


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (("46", "59", "86"), (46, 86, 59)),
        (("46", "/", "86"), (46, 86, 66)),
        (("8.0", "8", "400"), (8, 400, 204)),
        (("0", "0", "25"), (1, 25, 13)),
        (("112", "83", "358"), (3, 438, 83)),
        (("5", "5", "3460"), (1, 85, 5)),
        (("3600", "2668", "2694"), (2588, 2774, 2668)),
    ],
)
def test_span(numbers, expected):
    row = dict(zip(("onset", "apex", "offset"), numbers, strict=True))
    assert span({"subject": "1", "name": "a", **row}, Path("sheet")) == expected


def test_errors_are_one_line_and_leave_nothing(tmp_path, capsys):
    given = tmp_path / "given"
    casme2, samm, smic = (str(sheet(name, given)) for name in ("casme2", "samm", "smic"))
    (given / "broken.xlsx").write_bytes(b"PK\x03\x04 no workbook")
    (given / "broken.csv").write_text("a,b\n1,2\n")
    unsafe = given / "unsafe.xlsx"
    header, row, *_ = cells(Path(casme2))["Sheet1"]
    write_workbook(unsafe, {"Sheet1": [header, row, row, ("01", "../EP02", *row[2:])]})
    write_workbook(given / "bad.xlsx", {"Sheet1": [header, (*row[:3], "x", *row[4:])]})
    write_workbook(given / "other.xlsx", {"Sheet1": [("Subject", "Filename", "Objective Class"), ("01", "EP01", 3)]})
    for options, message in (
        (["--layout", "casme"], "unknown layout 'casme'; there are casme2, samm"),
        (["--sheet", str(given / "none.xlsx")], "none.xlsx: is no file"),
        (["--sheet", str(given / "broken.xlsx")], "broken.xlsx: is not a workbook that opens"),
        (["--sheet", str(given / "other.xlsx")], "other.xlsx: lacks the column"),
        (["--sheet", samm], "is a sheet of SAMM; layout casme2 takes one of CASME II"),
        (["--layout", "smic", "--sheet", str(given / "broken.csv")], "is not a list of clips"),
        (["--sheet", casme2, "--sheet", casme2], "CASME II has a sheet already"),
        (["--layout", "megc2019", "--sheet", casme2, "--sheet", smic], "needs a sheet of SAMM too"),
        (["--sheet", str(unsafe)], "'../EP02' is not a plain name"),
        (["--sheet", str(given / "bad.xlsx")], "onset 'x' and offset '24' are not both numbers"),
        (["--sheet", casme2, "--clips", "3"], "leave out the numbers"),
    ):
        assert main(["synthesize", "--root", str(tmp_path / "root"), *options]) == 2
        error = capsys.readouterr().err.split("mer: ", 1)[1]
        assert message in error and error.count("\n") == 1, error
    assert main(["synthesize", "--root", str(given), "--layout", "samm"]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["given"]

import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data_modules import DATASETS
from data_modules.base import Selection
from data_modules.cache import extract, store
from data_modules.composite import Composite
from data_modules.protocols import PROTOCOLS
from data_modules.release.clip_table import COLUMNS
from data_modules.release.sheets import find
from experiments.jobs import load_class
from mer import InputError
from mer.transforms import normalise_flow
from tests import trees

ANNOTATIONS = os.environ.get("MER_ANNOTATIONS", "")


@pytest.fixture(autouse=True)
def no_faces(monkeypatch):
    """Prepare clips without looking for a face in noise."""

    monkeypatch.setattr(extract, "run", trees.prepare_without_faces)


def load(name: str, root: Path, **options):
    inputs = ("flow", "onset", "apex", "frames")
    options = {"cache": str(root.parent / "cache"), "crop_size": 16, "inputs": inputs, **options}
    return load_class(DATASETS[name])(root=str(root), **options)


def state(root: Path) -> dict:
    paths = sorted(root.rglob("*"))
    return {str(path): (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in paths}


@pytest.mark.parametrize("case", trees.LAYOUTS)
class TestContract:
    """What holds for every dataset in every layout."""

    @pytest.fixture
    def data(self, case, tmp_path):
        name, _, write = trees.LAYOUTS[case]
        return load(name, write(tmp_path / "data"))

    def test_layout_is_recognised(self, data, case):
        assert data.layout == trees.LAYOUTS[case][1]

    def test_table_is_whole(self, data):
        clips = data.all_clips
        assert list(clips.columns) == list(COLUMNS) and len(clips) >= 9
        assert clips["apex"].dtype == "Int64" and clips["onset"].dtype == clips["offset"].dtype == "int64"
        assert (clips["onset"] < clips["offset"]).all()
        apexes = clips.dropna(subset="apex")
        assert ((apexes["onset"] < apexes["apex"]) & (apexes["apex"] <= apexes["offset"])).all()
        assert not clips.duplicated(["dataset", "subject", "clip"]).any()
        assert [problem for problem in data.problems if not problem.used] == []

    def test_every_clip_is_tested_once_by_strangers(self, data):
        data.prepare_data()
        for split in ("loso", "groups2"):
            data.split = split
            data.selection = Selection(data)
            tested = [row for rows in data.folds.values() for row in rows]
            assert sorted(tested) == list(range(len(data.clips)))
            held_out = [
                set(zip(data.clips["dataset"][rows], data.clips["subject"][rows])) for rows in data.folds.values()
            ]
            assert len(set.union(*held_out)) == sum(map(len, held_out))

    def test_classes_are_those_of_every_known_protocol(self, data):
        assert data.default_protocol in data.known_protocols()
        for name in data.known_protocols():
            labelled = data.label(data.all_clips, name)
            assert set(labelled["target"]) <= set(PROTOCOLS[name].classes) and len(labelled) > 0

    def test_batches_hold_what_was_cached(self, data):
        data.prepare_data()
        data.hold_out(next(iter(data.folds)), seed=0)
        data.setup()
        (batch,) = data.test_dataloader()
        clips, picture = len(batch["target"]), (3, data.input_size, data.input_size)
        assert batch["flow"].shape == batch["onset"].shape == batch["apex"].shape == (clips, *picture)
        assert batch["frames"].shape == (clips, 6, *picture) and batch["frames"].dtype == torch.uint8
        assert [*batch["frames"][0, :, 0, 0, 0]] == [*range(6)]
        tested = data.clips.iloc[batch["clip"].tolist()]
        flow = data.load(tested)["flow"]
        assert flow[:, 0, 0, 0].tolist() == tested["apex"].fillna(0).astype(float).tolist()
        assert torch.equal(batch["flow"], normalise_flow(flow))

    def test_raw_folder_is_not_touched(self, data):
        before = state(data.root)
        modes = {path: path.stat().st_mode for path in (data.root, *data.root.rglob("*"))}
        for path, mode in modes.items():
            path.chmod(mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
        try:
            data.prepare_data()
            data.setup()
        finally:
            for path, mode in modes.items():
                path.chmod(mode)
        assert state(data.root) == before

    def test_a_second_run_touches_nothing(self, data, case):
        data.prepare_data()
        before = state(data.root.parent / "cache")
        again = load(data.name, data.root)
        again.prepare_data()
        assert state(data.root.parent / "cache") == before
        assert again.fingerprint == data.fingerprint

    def test_another_recipe_has_another_folder(self, data):
        others = [
            load(data.name, data.root, **option)
            for option in (
                {"crop_size": 24},
                {"method": "dis"},
                {"apex": "spotted"},
                {"head_motion": "removed"},
                {"motion": "both"},
                {"motion": "pairs"},
            )  # fmt: skip
        ]
        folders = [part.folder for one in (data, *others) for part in one.parts.values()]
        assert len(set(folders)) == len(folders)

    def test_other_bytes_are_other_data(self, data):
        part = next(iter(data.parts.values()))
        file = part.clip_frames(next(part.all_clips.itertuples())).frames[1].path
        file.write_bytes(file.read_bytes()[:2] + b"\0\0" + file.read_bytes()[2:])
        assert load(data.name, data.root).fingerprint != data.fingerprint

    def test_the_folder_may_be_named_from_above(self, data, case, tmp_path):
        if data.name != "megc2019":
            above = tmp_path / "above"
            above.mkdir()
            shutil.move(data.root, above / "Release 1")
            assert len(load(data.name, above).all_clips) == len(load(data.name, above / "Release 1").all_clips)


@pytest.mark.parametrize(
    ("case", "inside"),
    [("casme2-raw", "CASME2_RAW_selected"), ("samm", "SAMM"), ("casme3-clips", "Part_A_ME_clip"), ("smic-hs", "HS")],
)
def test_the_folder_may_be_named_from_below(tmp_path, case, inside):
    name, layout, write = trees.LAYOUTS[case]
    whole = load(name, write(tmp_path / "data"))
    (folder,) = (path for path in whole.root.rglob(inside) if path.is_dir())
    below = load(name, folder)
    assert below.layout == layout and below.fingerprint == whole.fingerprint


def test_raw_is_preferred_and_each_has_its_own_cache(tmp_path):
    root = trees.casme2(tmp_path / "data")
    trees.casme2(root, folder="Cropped", frame="reg_img{}.jpg")
    both = load("casme2", root)
    assert both.layout == "raw" and both.fingerprint
    shutil.rmtree(root / "CASME2_RAW_selected")
    cropped = load("casme2", root)
    assert cropped.layout == "raw cropped"
    assert cropped.release.registered and not both.release.registered
    assert both.fingerprint != cropped.fingerprint


def test_all_sorts_of_subject_folders(tmp_path):
    for subject in ("sub{}", "{}", "Sub{}"):
        root = trees.casme2(tmp_path / subject.format("x"), subject=subject)
        assert sorted(set(load("casme2", root).all_clips["subject"])) == ["sub01", "sub02", "sub03"]
    root = trees.smic_extended(tmp_path / "smic")
    assert load("smic", root).all_clips["clip"][0] == "s01_ne_01"
    assert load("smic", trees.smic(tmp_path / "hs")).all_clips["clip"][0] == "s01_ne_01"


def test_smic_has_no_apex_and_says_so(tmp_path):
    data = load("smic", trees.smic(tmp_path / "data"))
    assert data.all_clips["apex"].isna().all()
    assert [problem.action for problem in data.problems] == ["it is spotted"]
    assert data.all_clips["offset"][0] == 100002  # frame numbers are compared as numbers


def test_cameras_have_their_rates(tmp_path):
    root = trees.smic(trees.smic(tmp_path / "data"), "SMIC_all_raw/VIS")
    assert set(load("smic", root).all_clips["frames_per_second"]) == {100}
    assert set(load("smic", root / "SMIC_all_raw/VIS").all_clips["frames_per_second"]) == {25}


def test_objective_classes_have_a_sheet_of_their_own(tmp_path):
    root = trees.casme2(tmp_path / "data")
    rows = [("Subject", "Filename", "Objective Class"), ("01", "EP01_01f", 3), ("02", "EP02_02f", 7)]
    trees.write_workbook(root / "CASME2-ObjectiveClasses.xlsx", {"Sheet1": rows})
    classes = load("casme2", root).all_clips.set_index(["subject", "clip"])["objective_class"]
    assert classes["sub01", "EP01_01f"] == "3" and classes["sub02", "EP02_02f"] == "7" and classes["sub03"].eq("").all()


def test_the_newest_sheet_is_read_and_locks_are_passed_over(tmp_path):
    root = trees.casme2(tmp_path / "data")
    newer = [trees.CASME2_HEADER, *trees.casme2_rows()[:-1]]
    trees.write_workbook(root / "CASME2-coding-20190701.xlsx", {"Sheet1": newer})
    (root / "~$CASME2-coding-20200101.xlsx").write_bytes(b"lock")
    assert len(load("casme2", root).all_clips) == len(newer) - 1


def test_errata_of_casme3(tmp_path):
    header = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion")
    rows = [
        ("spNO.149", "d", "112", "83", "358", "", "", "fear"),
        ("spNO.216", "d", "3647", "2668", "2694", "", "", "others"),
        ("spNO.40", "e", "1812", "1824", "0", "", "", "others"),
        ("spNO.214", "c", "5", "8", "3460", "", "", "fear"),
        ("spNO.216", "e", "0", "0", "40", "", "", "sad"),
        ("spNO.7", "a", "9", "9", "30", "", "", "sad"),
    ]
    root = tmp_path / "data"
    trees.write_workbook(root / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", {"label": [header, *rows]})
    for subject, video, onset, *_ in rows:
        first = 2640 if onset == "3647" else int(onset)
        trees.write_frames(
            root / "Part_A_ME_clip/frame" / f"{subject}_{video}_{onset}",
            [f"{n}.jpg" for n in range(first, first + 600)],
        )
    data = load("casme3", root)
    found = data.all_clips.set_index("clip")[["onset", "apex", "offset"]].astype(object)
    assert found.loc["d_112"].tolist() == [112, 123, 358] and found.loc["d_3647"].tolist() == [2647, 2668, 2694]
    assert found.loc["e_1812"].tolist() == [1812, 1824, 1845] and found.loc["c_5"].tolist() == [5, 8, 34]
    assert found.loc["e_0"].tolist() == [1, 12, 40] and found.loc["a_9", "apex"] is pd.NA
    assert len(data.problems) == 7 and all(problem.used for problem in data.problems)


def test_a_composite_lists_its_databases(tmp_path):
    root = trees.megc2019(tmp_path / "data")
    whole = load("megc2019", root)
    assert set(whole.clips["dataset"]) == {"casme2", "samm", "smic"} and len(whole.folds) == 9
    two = Composite(root=str(root), databases="casme2,samm", protocol="union-3", split="lodo", crop_size=16)
    assert list(two.folds) == ["casme2", "samm"]
    with pytest.raises(InputError, match="no folder casme3"):
        Composite(root=str(root), databases="casme2,casme3").all_clips  # noqa: B018
    with pytest.raises(InputError, match="sam.*did you mean samm"):
        Composite(root=str(root), databases="casme2,sam")
    with pytest.raises(InputError, match="'casme2-5' has no classes for 'samm'"):
        Composite(root=str(root), databases="casme2,samm", protocol="casme2-5")


def test_a_database_is_one_class_and_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "my_lab", "tests.my_lab.MyLab")
    rows = [(who, f"c{n}", 10, 12, 15, felt) for who in (1, 2) for n, felt in enumerate(("joy", "fear"))]
    root = tmp_path / "data/my_lab"
    header = ("Who", "What", "From", "Peak", "To", "Felt")
    trees.write_workbook(root / "labels.xlsx", {"all": [header, *rows]})
    for who, clip, *_ in rows:
        trees.write_frames(root / "MyLab" / str(who) / clip, [f"{number}.jpg" for number in range(10, 16)])
    alone = load("my_lab", root)
    alone.prepare_data()
    assert alone.classes == ("joy", "other") and alone.known_protocols() == ["my_lab-2"]
    assert alone.clips["target"].tolist() == ["joy", "other"] * 2 and list(alone.folds) == ["my_lab-1", "my_lab-2"]
    union = Composite(root=str(root.parent), databases="my_lab", protocol="my_lab-2", cache=str(tmp_path / "cache"))
    assert union.all_clips["clip"].tolist() == ["c0", "c1"] * 2


def test_parts_of_a_composite_are_cached_under_their_own_names(tmp_path):
    root = trees.megc2019(tmp_path / "data")
    load("megc2019", root).prepare_data()
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"casme2", "samm", "smic"}


def test_a_clip_that_cannot_be_prepared_is_left_out_once(tmp_path, monkeypatch, capsys):
    calls = []

    def run(preparations, workers):
        for index, preparation in enumerate(preparations):
            calls.append(preparation.target)
            if index == 3:
                yield "no face is found"
            else:
                store.write(preparation.target, {"flow": np.zeros((3, 16, 16), np.float32), "apex": np.array([1])})
                yield None

    monkeypatch.setattr(extract, "run", run)
    data = load("casme2", trees.casme2(tmp_path / "data"), inputs=("flow",))
    data.prepare_data()
    assert len(data.clips) == len(data.all_clips) - 1 == len(calls) - 1
    lost = data.all_clips.iloc[3]
    assert f"{lost['subject']} {lost['clip']}: no face is found" in capsys.readouterr().err
    load("casme2", data.root, inputs=("flow",)).prepare_data()
    assert len(calls) == len(data.all_clips)


@pytest.mark.parametrize("name", ["casme2", "samm", "smic", "casme3", "megc2019"])
def test_an_empty_folder_says_what_was_expected(tmp_path, name):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=str(root)) as caught:
            load(name, root).all_clips  # noqa: B018
        text = str(caught.value)
        assert "DATA=" in text and (name == "megc2019" or ("ask" in text and "{subject}" in text))


@pytest.mark.skipif(not ANNOTATIONS, reason="MER_ANNOTATIONS names no folder of real sheets")
@pytest.mark.parametrize("name", ["casme2", "samm", "casme3"])
def test_real_sheets_give_the_published_counts(tmp_path, name):
    data = load_class(DATASETS[name])
    sheet = data.variants[0].sheet
    (path,) = find(sheet.file, [Path(ANNOTATIONS)])
    shutil.copy(path, tmp_path)
    for row in sheet.read(path).rows.to_dict("records"):
        subject = data.subject_name(row["subject"])
        numbers = [int(row[key]) for key in ("onset", "apex", "offset") if row[key].isdecimal()]
        clip = f"{subject}_{row['video']}_{row['onset']}" if name == "casme3" else f"{subject}/{row['clip']}"
        names = sorted({n for number in numbers for n in (number, number + 1, max(number - 1, 0))} | {1, 34})
        trees.write_frames(tmp_path / "frame" / clip, [f"{number}.jpg" for number in names])
    clips = load(name, tmp_path)
    for protocol in clips.known_protocols():
        chosen = clips.label(clips.all_clips, protocol)
        rules = PROTOCOLS[protocol]
        classes = tuple(int((chosen["target"] == one).sum()) for one in rules.classes)
        assert (len(chosen), chosen["subject"].nunique(), classes) == rules.parts[name], protocol

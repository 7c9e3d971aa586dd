import hashlib
import os
from pathlib import Path

import cv2
import numpy as np
import openpyxl
import pandas as pd
import pytest
from safetensors.numpy import load_file

from data_modules import synthetic
from data_modules.synthesis.action_units import ACTION_UNITS, EMOTIONS, Field, parse
from data_modules.synthesis.filming import Sway, true_flow
from data_modules.synthesis.layouts import LAYOUTS
from data_modules.synthesis.synthesize import synthesize
from mer import InputError
from mer.preprocessing.faces import FaceFinder, alignment, crop

plan = LAYOUTS["casme2"][""].plan

COLUMNS = [
    "Subject",
    "Filename",
    None,
    "OnsetFrame",
    "ApexFrame",
    "OffsetFrame",
    None,
    "Action Units",
    "Estimated Emotion",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return synthesize(tmp_path_factory.mktemp("synthetic") / "data", subjects=2, clips=3, seed=7, workers=1)


@pytest.fixture(scope="module")
def clips(root):
    """Each clip as (name, onset crop, apex crop, truth), crops grey."""
    rows = []
    for row in table(root).itertuples():
        truth = load_file(root / "truth" / f"sub{row.Subject}_{row.Filename}.safetensors")
        folder = root / "CASME2_RAW_selected" / f"sub{row.Subject}" / row.Filename
        images = [
            cv2.imread(str(folder / f"img{i}.jpg"), cv2.IMREAD_GRAYSCALE) for i in (row.OnsetFrame, row.ApexFrame)
        ]
        rows.append((f"{row.Subject} {row.Filename}", *(crop(i, truth["transform"]) for i in images), truth))
    return rows


def table(root: Path) -> pd.DataFrame:
    return pd.read_excel(root / "CASME2-coding-20140508.xlsx", dtype={"Subject": str})


def digests(root: Path) -> dict[str, str]:
    files = (file for file in root.rglob("*") if file.is_file())
    return {str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture(scope="module")
def face():
    from skimage.data import astronaut

    with FaceFinder() as finder:
        return finder.landmarks(astronaut())


def test_bytes_do_not_depend_on_workers(tmp_path):
    alone = synthesize(tmp_path / "alone", subjects=2, clips=1, seed=3, size=(320, 240), workers=1)
    together = synthesize(tmp_path / "together", subjects=2, clips=1, seed=3, size=(320, 240), workers=2)
    assert digests(alone) == digests(together)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "together"]


def test_layout_is_that_of_casme2(root):
    sheet = openpyxl.load_workbook(root / "CASME2-coding-20140508.xlsx").worksheets[0]
    rows = list(sheet.iter_rows(values_only=True))
    assert list(rows[0]) == COLUMNS
    assert len(rows) == 7
    assert {row[0] for row in rows[1:]} == {"01", "02"}
    for subject, name, _, onset, apex, offset, _, units, emotion in rows[1:]:
        assert onset < apex < offset
        assert emotion in EMOTIONS
        assert isinstance(units, int) == str(units).isdigit()
        frames = {file.name for file in (root / "CASME2_RAW_selected" / f"sub{subject}" / name).iterdir()}
        assert frames == {f"img{i}.jpg" for i in range(onset, offset + 1)}
        assert cv2.imread(str(root / "CASME2_RAW_selected" / f"sub{subject}" / name / f"img{apex}.jpg")).shape == (
            480,
            640,
            3,
        )
        assert (root / "truth" / f"sub{subject}_{name}.safetensors").is_file()


def test_plans_are_close_to_balanced_and_differ():
    rows = [clip for subject in range(1, 11) for clip in plan(0, subject, 15)]
    counts = pd.Series([clip.emotion for clip in rows]).value_counts()
    assert set(counts.index) == set(EMOTIONS)
    assert counts.min() >= 20 and counts.max() <= 40
    assert len({(clip.subject, clip.name) for clip in rows}) == 150
    assert rows == [clip for subject in range(1, 11) for clip in plan(0, subject, 15)]
    assert rows != [clip for subject in range(1, 11) for clip in plan(1, subject, 15)]
    assert len(plan(0, 1, 999)) == 999


def test_peaks_lie_in_range(clips):
    for name, _, _, truth in clips:
        peak = np.hypot(*truth["expression"].astype(float)).max()
        assert 0.3 <= peak <= 2.0, name
        head = np.hypot(*(truth["flow"].astype(float) - truth["expression"])).max()
        assert head < 0.8, name


def test_truth_was_taken_in_the_alignment_of_the_onset_frame(root):
    row = table(root).iloc[0]
    folder = root / "CASME2_RAW_selected" / f"sub{row.Subject}" / row.Filename
    onset = cv2.imread(str(folder / f"img{row.OnsetFrame}.jpg"), cv2.IMREAD_COLOR_RGB)
    truth = load_file(root / "truth" / f"sub{row.Subject}_{row.Filename}.safetensors")
    assert truth["flow"].shape == truth["expression"].shape == (2, 128, 128)
    assert truth["flow"].dtype == np.float16
    with FaceFinder() as finder:
        np.testing.assert_allclose(truth["transform"], alignment(finder.landmarks(onset)), atol=1e-6)


def test_truth_takes_the_apex_back_to_the_onset(clips):
    y, x = np.mgrid[:128, :128].astype(np.float32)
    for name, onset, apex, truth in clips:
        flow = truth["flow"].astype(np.float32)
        moving = np.hypot(*truth["expression"].astype(float)) > 0.2
        first, last = (cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.8) for image in (onset, apex))
        back = cv2.remap(last, x + flow[0], y + flow[1], cv2.INTER_CUBIC)
        wrong = cv2.remap(last, x - flow[0], y - flow[1], cv2.INTER_CUBIC)
        errors = [np.square(image - first)[moving].mean() for image in (back, last, wrong)]
        assert errors[0] < 0.5 * errors[1] < 0.5 * errors[2], (name, errors)


def test_opencv_sees_thetrue_flow(clips):
    tvl1 = cv2.optflow.DualTVL1OpticalFlow_create()
    errors, lengths = [], []
    for _, onset, apex, truth in clips:
        seen, flow = np.moveaxis(tvl1.calc(onset, apex, None), -1, 0), truth["flow"].astype(float)
        errors.append(np.hypot(*(seen - flow)).mean())
        lengths.append(np.hypot(*flow).mean())
    assert np.mean(errors) < 0.55 * np.mean(lengths)
    assert np.mean(errors) < 0.12


def test_true_flow_inverts_the_map_that_draws(face):
    transform = alignment(face)
    scale = np.hypot(*transform[0, :2])
    field = Field([("", 4, 1.0), ("L", 12, 1.0), ("", 7, 0.5)], face, np.random.default_rng(0))
    x, y = np.meshgrid(np.arange(120, 330.0), np.arange(20, 230.0))
    field.gain = 2 / scale / np.hypot(*field(x, y)).max()
    sway = Sway(np.random.default_rng(1), 30, np.array([225.0, 130]), field.eye_distance, 1 / scale)
    flow, expression = true_flow(transform, field, sway, 29)
    pixels = np.stack(np.meshgrid(np.arange(128), np.arange(128))).reshape(2, -1)

    def to_image(points):
        return np.linalg.solve(transform[:, :2], points - transform[:, 2:])

    start = to_image(pixels)
    for moved, time in ((flow, 29), (expression, 0)):
        end = to_image(pixels + moved.reshape(2, -1))
        drawn = sway.back(*(end - np.stack(field(*end))), time)
        assert scale * np.abs(np.stack(drawn) - start).max() < 0.001
    assert np.hypot(*expression).max() == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize(
    ("units", "landmark", "out", "down"),
    [
        ("1+2", 105, 0, -1),
        ("4", 107, -1, 1),
        ("12", 61, 1, -1),
        ("15", 61, 0, 1),
        ("17", 152, 0, -1),
        ("9", 49, 0, -1),
        ("6", 50, 0, -1),
        ("20", 61, 1, 0),
        ("25", 17, 0, 1),
    ],
)
def test_action_units_push_where_anatomy_says(face, units, landmark, out, down):
    field = Field([(side, unit, 1.0) for side, unit in parse(units)], face)
    dx, dy = field(*face[landmark].astype(float))
    # The landmarks above are on the subject's right, which is left in the image.
    for sign, pushed in ((out, -dx), (down, dy)):
        if sign:
            assert np.sign(pushed) == sign and abs(pushed) > 0.08


def test_one_sided_units_leave_the_other_side_alone(face):
    right, left = (Field([(side, 12, 1.0)], face) for side in "RL")
    assert np.hypot(*right(*face[61].astype(float))) > 20 * np.hypot(*right(*face[291].astype(float)))
    assert np.hypot(*left(*face[291].astype(float))) > 20 * np.hypot(*left(*face[61].astype(float)))


def test_every_code_of_every_emotion_is_known():
    assert parse("L1+25") == [("L", 1), ("", 25)]
    units = {unit for codes in EMOTIONS.values() for code in codes for _, unit in parse(code)}
    assert units <= set(ACTION_UNITS)
    with pytest.raises(ValueError, match="X9"):
        parse("4+X9")


@pytest.mark.parametrize(
    "wrong",
    [
        {"subjects": 0},
        {"subjects": 100},
        {"clips": 0},
        {"seed": -1},
        {"size": (64, 64)},
        {"workers": 0},
        {"clips": 1.5},
        {"layout": "smic", "subjects": 100},
    ],
    ids=str,
)
def test_numbers_out_of_range(tmp_path, wrong):
    with pytest.raises(InputError, match="must be a whole number from"):
        synthesize(tmp_path / "data", **wrong)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=str(tmp_path)):
        synthesize(tmp_path, subjects=1, clips=1)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupt_leaves_nothing_behind(tmp_path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path / "data", subjects=1, clips=2, size=(320, 240), workers=1, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_who_comes_second_leaves_the_folder_of_the_first_alone(tmp_path):
    def other(done: int, total: int) -> None:
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data/of the first").touch()

    with pytest.raises(InputError, match="made by another process meanwhile"):
        synthesize(tmp_path / "data", subjects=1, clips=1, size=(320, 240), workers=1, progress=other)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "of the first"]


def test_faces_that_another_sweep_has_made_meanwhile_are_taken(tmp_path, monkeypatch):
    def second(root, **options):
        synthesize(root, subjects=2, clips=2, size=(320, 240), workers=1)
        raise InputError(f"{root} was made by another process meanwhile")

    left = tmp_path / "data/.synthetic.00c0ffee-7-00000000.tmp"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synthetic, "synthesize", second)
    assert len(synthetic.Synthetic().all_clips) == 4 and not left.exists()

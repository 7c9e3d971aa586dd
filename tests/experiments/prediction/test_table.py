import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from experiments.prediction.table import FRAMES, as_csv, as_json, show


def printed(predictions, width):
    console = Console(width=width, record=True, file=io.StringIO())
    show(predictions, console)
    return console.export_text()


def test_json_has_all_numbers(brows, bare):
    first, second = json.loads(as_json([brows, bare]))
    assert set(first) == {
        "clip", "prediction", "probabilities", *FRAMES, "frames_per_second", "face_width", "warnings",
    }  # fmt: skip
    assert (first["clip"], first["prediction"]) == ("sub03/EP01_02.avi", "surprise")
    assert first["probabilities"]["positive"] == {"mean": 0.17, "spread": 0.08}
    assert [first[name] for name in FRAMES] == [
        {"frame": 40, "seconds": 0.2}, {"frame": 46, "seconds": 0.23}, {"frame": 52, "seconds": 0.26},
    ]  # fmt: skip
    assert first["face_width"] == brows.face_width and first["warnings"] == list(brows.warnings)
    assert second["apex"] == {"frame": 1, "seconds": None}
    assert second["face_width"] is second["frames_per_second"] is None


def test_probabilities_read_back_as_the_same_float32(brows):
    draws = np.random.default_rng(0).dirichlet(np.ones(3), 50).astype(np.float32)
    records = json.loads(as_json([replace(brows, probabilities=chances) for chances in draws]))
    read = [[chance["mean"] for chance in record["probabilities"].values()] for record in records]
    assert np.array_equal(np.array(read, np.float32), draws)


def test_csv_has_a_row_per_clip(brows, bare, hostile):
    header, *rows = csv.reader(io.StringIO(as_csv([brows, bare, replace(hostile, classes=brows.classes)])))
    assert header == [
        "clip", "prediction", "p_negative", "p_positive", "p_surprise", "sd_negative", "sd_positive", "sd_surprise",
        "onset", "apex", "offset", "onset_seconds", "apex_seconds", "offset_seconds", "face_width", "warnings",
    ]  # fmt: skip
    numbers = "0.21 0.17 0.62 0.04 0.08 0.11 40 46 52 0.2 0.23 0.26"
    assert " ".join(rows[0][1:14]) == f"surprise {numbers}"
    assert rows[0][15] == "; ".join(brows.warnings)
    assert rows[1][8:] == ["0", "1", "1", "", "", "", "", ""]
    assert rows[2][0] == hostile.clip and len(rows) == 3


def test_no_clip_is_a_header_and_an_empty_list():
    assert json.loads(as_json([])) == [] and as_csv([]).count("\n") == 1


def test_the_terminal_has_what_is_asked_for_in_80_columns(brows, bare):
    text = printed([brows, bare], 80)
    assert all(len(line) <= 80 for line in text.splitlines()[:7])
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["clip", "class", "probability", "onset", "apex", "offset", "face", "warnings"]
    width = f"{brows.face_width:.0f}"
    assert rows[2][1:] == ["surprise", "0.62", "±", "0.11", "40", "46", "52", width, "px", "2"]
    assert rows[3][-6:] == ["0.20", "s", "0.23", "s", "0.26", "s"]
    assert rows[4][1:] == ["surprise", "0.62", "0", "1", "1"]
    assert text.splitlines()[-2:] == [f"sub03/EP01_02.avi: {warning}" for warning in brows.warnings]


def test_names_steer_no_terminal(hostile):
    text = printed([hostile], 600)
    assert "<script>alert('x')</script>&\\x1b[31m\\u202e\\n[bold]=1\\udc80" in text
    assert not {"\x1b", "\u202e", "\x07"} & set(text) and "onerror=alert(1)>\\x07" in text


@pytest.mark.parametrize(
    ("start", "frame", "rate", "expected"),
    [(0, 0, 30.0, 0.0), (0, 10, 30.0, 0.333333), (1, 1, 30.0, 0.0), (1, 11, 30.0, 0.333333), (1, 7, None, None)],
)
def test_seconds_are_counted_from_the_first_frame(brows, start, frame, rate, expected):
    assert replace(brows, start=start, frames_per_second=rate).seconds(frame) == expected

"""The command ``mer predict``: what it takes, what it prints and writes, and what it says of wrong input."""

import csv
import json
import shutil
import wave
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest

from data_modules.synthesis.long_videos import LongVideo
from experiments import predict
from experiments.cli import main
from mer import InputError
from mer.trained import Model, load
from tests import fitted


@pytest.fixture(scope="module")
def model(films, films_cache, tmp_path_factory) -> Path:
    """STSTNet's folder, two seeds. Read only."""
    folder = tmp_path_factory.mktemp("models") / "ststnet"
    fitted.write(folder, fitted.recipe(films, films_cache, "ststnet"))
    return folder


def frames_of(films: Path, subject: str) -> list[np.ndarray]:
    """The frames of a subject's first clip, BGR."""
    folder = min(films.glob(f"CASME2_RAW_selected/{subject}/*"))
    return [cv2.imread(str(path)) for path in sorted(folder.glob("*.jpg"), key=lambda path: int(path.stem[3:]))]


def write_video(path: Path, frames: list[np.ndarray], rate: float = 100) -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"FFV1"), rate, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def write_frames(folder: Path, frames: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        cv2.imwrite(str(folder / f"{number}.png"), frame)
    return folder


@pytest.fixture(scope="module")
def clips(films, tmp_path_factory) -> Path:
    """Good clips, and one of every wrong kind. Read only."""
    root = tmp_path_factory.mktemp("clips")
    first, second = frames_of(films, "sub01"), frames_of(films, "sub02")
    (root / "good").mkdir()
    video = write_video(root / "good/face.avi", first)
    write_frames(root / "good/frames", second)
    (root / "good/notes.txt").write_text("no clip")
    wrong = root / "wrong"
    wrong.mkdir()
    draws = np.random.default_rng(0)
    noise = [draws.integers(0, 255, (240, 320, 3), np.uint8) for _ in range(3)]
    write_frames(wrong / "no_face", noise)
    write_frames(wrong / "two_faces", [np.hstack(pair) for pair in zip(first[:4], second[:4])])
    write_frames(wrong / "one_frame", first[:1])
    (wrong / "empty").mkdir()
    content = video.read_bytes()
    (wrong / "broken.avi").write_bytes(content[: len(content) // 2])
    (wrong / "nonsense.mp4").write_bytes(b"no video at all" * 1000)
    with wave.open(str(wrong / "sound.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    return root


def run(model: Path, *words: object) -> int:
    return main(["predict", *map(str, words), "--model", str(model), "--device", "cpu"])


def test_one_clip_on_the_terminal(model, clips, capsys):
    assert run(model, clips / "good/face.avi") == 0
    out, err = capsys.readouterr()
    prediction = load(model, "cpu").predict(clips / "good/face.avi")
    assert prediction.label in out and "face.avi" in out and f"{prediction.probabilities.max():.2f}" in out
    assert "Traceback" not in err


def test_what_is_printed_and_written_is_the_prediction(model, clips, tmp_path, capsys):
    names = [clips / "good/face.avi", clips / "good/frames"]
    assert run(model, *names, "--json", "--out", tmp_path / "out") == 0
    out, err = capsys.readouterr()
    records = json.loads(out)
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == records and "index.html" in err
    with (tmp_path / "out/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    loaded = load(model, "cpu")
    for name, record, row in zip(names, records, rows, strict=True):
        prediction = loaded.predict(name)
        assert record["clip"] == row["clip"] == str(name)
        assert record["prediction"] == row["prediction"] == prediction.label
        for place, label in enumerate(prediction.classes):
            mean, spread = np.float32(prediction.probabilities[place]), np.float32(prediction.spread[place])
            assert np.float32(record["probabilities"][label]["mean"]) == np.float32(row[f"p_{label}"]) == mean
            assert np.float32(record["probabilities"][label]["spread"]) == np.float32(row[f"sd_{label}"]) == spread
        for place in ("onset", "apex", "offset"):
            assert record[place]["frame"] == int(row[place]) == getattr(prediction, place)
    assert records[0]["apex"]["seconds"] == records[0]["apex"]["frame"] / 100 and records[1]["apex"]["seconds"] is None
    pages = sorted(path.name for path in (tmp_path / "out").glob("*.html"))
    assert len(pages) == 3 and "index.html" in pages
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".html", ".json", ".csv"}


def test_a_folder_of_clips(model, clips, capsys):
    assert run(model, clips / "good", "--json") == 0
    names = [record["clip"] for record in json.loads(capsys.readouterr().out)]
    assert names == [str(clips / "good/face.avi"), str(clips / "good/frames")]


def test_places_in_seconds_and_frames(model, clips, capsys):
    clip = clips / "good/face.avi"
    assert run(model, clip, "--json", "--onset", "0.02s", "--apex", "0.1s", "--offset", "15") == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert [record[place]["frame"] for place in ("onset", "apex", "offset")] == [2, 10, 15]
    assert run(model, clip, "--json", "--apex", "0.1s", "--frames-per-second", "50") == 0
    assert json.loads(capsys.readouterr().out)[0]["apex"] == {"frame": 5, "seconds": 0.1}


def write_table(path: Path, rows: list[dict]) -> Path:
    table = pd.DataFrame(rows)
    table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_excel(path, index=False)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_a_table_with_places_and_a_wrong_row(model, clips, tmp_path, capsys, suffix):
    shutil.copytree(clips / "good", tmp_path / "good")
    rows = [
        {"path": "good/face.avi", "onset": 2, "apex": "0.1s", "offset": 15, "frames_per_second": None},
        {"path": "good/frames", "onset": 3, "apex": None, "offset": None, "frames_per_second": 100},
        {"path": "good/frames/1.png:good/frames/9.png", "onset": None, "apex": None, "offset": None},
        {"path": "good/frames", "onset": 9999, "apex": None, "offset": None, "frames_per_second": 100},
    ]
    table = write_table(tmp_path / f"clips{suffix}", rows)
    assert run(model, table, "--json", "--out", tmp_path / "out") == 1
    out, err = capsys.readouterr()
    records = json.loads(out)
    assert [record["onset"]["frame"] for record in records] == [2, 3, 0]
    assert [record["frames_per_second"] for record in records] == [100, 100, None]
    assert [record["apex"]["frame"] for record in records][::2] == [10, 1]
    (line,) = [line for line in err.splitlines() if line.startswith("mer: ")]
    assert "good/frames: frame 9999 lies outside the clip" in line
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == records


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", b"", "is no table"),
        ("a.csv", b"clip,onset\nx,1\n", "has no column 'path'"),
        ("a.csv", b"path\n", "has no column 'path' with clips"),
        ("a.csv", b"path,frames_per_second\nx.avi,fast\n", "line 2: frames_per_second 'fast' is no number"),
        ("a.csv", b"path,frames_per_second\nx.avi,-5\n", "line 2: frames_per_second '-5' is no number"),
        ("a.csv", b"path,frames_per_second\nx.avi,inf\n", "line 2"),
        ("a.csv", b"path,onset\nx.avi,1\n,2\n", "line 3: names no clip"),
        ("a.csv", b"path\n" + b"x" * 5000 + b".avi\n", "there is no such file"),
        ("a.csv", b"path\n\0\n", "a.csv"),
        ("a.csv", b"\xff\xfe\x00\x01", "a.csv"),
        ("a.xlsx", b"", "is no table"),
        ("a.xlsx", b"no workbook", "is no table"),
        ("a.xlsx", b"PK\x03\x04 cut off", "is no table"),
    ],
    ids=range(13),
)
def test_a_table_that_is_none(model, tmp_path, capsys, name, content, says):
    (tmp_path / name).write_bytes(content)
    assert run(model, tmp_path / name, "--out", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert "mer: " in err and str(tmp_path) in err and says in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_spoilt_workbook_is_one_message(model, clips, tmp_path, capsys):
    whole = write_table(tmp_path / "whole.xlsx", [{"path": "face.avi"}]).read_bytes()
    for place in range(100, len(whole), len(whole) // 12):
        (tmp_path / "a.xlsx").write_bytes(whole[:place] + b"spoilt" + whole[place + 6 :])
        assert run(model, tmp_path / "a.xlsx") == 2
        assert capsys.readouterr().err.startswith(f"mer: {tmp_path}")


WRONG = {
    "no_face": "no face is found",
    "two_faces": "there are two faces in frame 1",
    "one_frame": "1",
    "empty": "holds no frames",
    "broken.avi": "breaks off after",
    "nonsense.mp4": "is no video that opens",
    "sound.wav": "is no video",
    "nothing.mp4": "there is no such file",
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_clip_is_one_line_and_nothing_is_written(model, clips, tmp_path, capfd, name):
    assert run(model, clips / "wrong" / name, "--out", tmp_path / "out") == 2
    out, err = capfd.readouterr()
    (line,) = [line for line in err.splitlines() if line.startswith("mer: ")]
    assert str(clips / "wrong" / name) in line and WRONG[name] in line
    assert not out and "Traceback" not in err and not (tmp_path / "out").exists()


def test_bad_clips_among_good_ones(model, clips, tmp_path, capfd):
    wrong = [name for name in WRONG if name not in ("empty",)]
    words = [clips / "wrong" / name for name in wrong]
    assert run(model, *words[:3], clips / "good/face.avi", *words[3:], "--json", "--out", tmp_path / "out") == 1
    out, err = capfd.readouterr()
    assert [record["clip"] for record in json.loads(out)] == [str(clips / "good/face.avi")]
    lines = [line for line in err.splitlines() if line.startswith("mer: ")]
    assert len(lines) == len(wrong)
    for name, line in zip(wrong, lines, strict=True):
        assert name in line and WRONG[name] in line
    assert len(list((tmp_path / "out").iterdir())) == 3


def test_all_bad_is_a_line_for_each(model, clips, tmp_path, capfd):
    assert run(model, clips / "wrong/sound.wav", clips / "wrong/no_face", "--out", tmp_path / "out") == 2
    lines = capfd.readouterr().err.splitlines()
    assert [line.startswith("mer: ") for line in lines if "mer: " in line] == [True, True]
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> tuple[Path, LongVideo]:
    """2.8 s with one micro-expression."""
    video = LongVideo(5, 2.8, 25, (320, 240))
    assert [event.kind for event in video.events] == ["micro"]
    frames = [frame[..., ::-1].copy() for frame in video.frames()]
    return write_video(tmp_path_factory.mktemp("long") / "long.avi", frames, 25), video


def test_a_long_video_is_spotted(model, long, tmp_path, capfd):
    path, video = long
    assert run(model, path, "--json", "--out", tmp_path / "out") == 0
    out, err = capfd.readouterr()
    (record,), (event,) = json.loads(out), video.events
    assert abs(record["apex"]["frame"] - event.apex) <= 2 and f"{path}, frames " in record["clip"]
    assert "1 micro-expression spotted" in err and "px of a face of 128" in err
    assert len(list((tmp_path / "out").glob("*.html"))) == 1


def test_of_a_long_video_a_part_may_be_named(model, long, capfd):
    path, video = long
    (event,) = video.events
    assert run(model, path, "--json", "--onset", event.onset, "--offset", event.offset) == 0
    assert json.loads(capfd.readouterr().out)[0]["offset"]["frame"] == event.offset
    for words, says in (
        (["--apex", event.apex], "name its onset and offset"),
        (["--onset", event.onset], "name its onset and offset"),
        (["--registered"], "name its onset and offset"),
    ):
        assert run(model, path, *words) == 2
        assert says in capfd.readouterr().err


def test_a_long_video_without_an_expression(model, long, tmp_path, capfd):
    capture, frames = cv2.VideoCapture(str(long[0])), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    path = write_video(tmp_path / "calm.avi", [frames[0]] * 60, 25)
    assert run(model, path, "--out", tmp_path / "out", "--json") == 0
    out, err = capfd.readouterr()
    assert json.loads(out) == [] and "no micro-expressions spotted" in err
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == []


@pytest.mark.parametrize(("predicted", "status"), [(True, 1), (False, 2)])
def test_of_a_long_video_some_cannot_be_classified(model, clips, monkeypatch, capfd, predicted, status):
    clip = clips / "good/frames"
    predictions = [load(model, "cpu").predict(clip)] if predicted else []
    spotted = SimpleNamespace(threshold=0.3), predictions, [InputError("frames 5 to 9: left out")]
    monkeypatch.setattr(Model, "predict_long", lambda *_: spotted)
    assert run(model, clip, "--json", "--frames-per-second", 1) == status
    out, err = capfd.readouterr()
    assert "mer: frames 5 to 9: left out" in err and (len(json.loads(out)) == 1 if predicted else not out)


def test_registered_faces(model, clips, tmp_path, capfd):
    frames = [cv2.imread(str(path))[20:220, 70:250] for path in sorted((clips / "good/frames").glob("*.png"))]
    folder = write_frames(tmp_path / "cropped", frames)
    assert run(model, folder, "--registered", "--json") == 0
    assert json.loads(capfd.readouterr().out)[0]["face_width"] is None


def test_a_wrong_model_is_one_line(clips, tmp_path, capsys):
    assert run(tmp_path / "none", clips / "good/face.avi", "--out", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "mer fit" in err and not (tmp_path / "out").exists()


def test_a_device_that_is_not_there(model, clips, capsys):
    words = ["predict", str(clips / "good/face.avi"), "--model", str(model), "--device", "cuda:99"]
    assert main(words) == 2
    assert "'cuda:99' cannot be used here" in capsys.readouterr().err


def test_out_is_a_file(model, clips, tmp_path, capsys):
    (tmp_path / "out").write_text("mine")
    assert run(model, clips / "good/face.avi", "--out", tmp_path / "out") == 2
    assert "cannot be written" in capsys.readouterr().err and (tmp_path / "out").read_text() == "mine"


def test_a_folder_that_cannot_be_read(model, clips, tmp_path, monkeypatch, capsys):
    def locked(path: Path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(predict.Path, "iterdir", locked)
    assert run(model, clips / "good") == 2
    assert f"{clips}/good: cannot be read (Permission denied)" in capsys.readouterr().err

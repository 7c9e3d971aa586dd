import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from data_modules import protocols
from data_modules.cache import extract, store
from data_modules.clips import Clips
from data_modules.composite import Composite
from data_modules.protocols import PROTOCOLS, own_protocol
from data_modules.release.clip_table import COLUMNS
from data_modules.synthesis.synthesize import synthesize
from experiments.cli import main
from experiments.experiment import Experiment
from experiments.fold import train
from experiments.inspection import findings, gallery
from experiments.jobs import Job
from experiments.results import cells
from mer import InputError
from mer.preprocessing.clip import read_frame
from mer.preprocessing.video import FrameOfVideo
from tests import trees

HEADER = ("subject", "clip", "path", "emotion", "onset", "apex", "offset", "frames_per_second", "action_units")
EMOTIONS = ("disgust", "happiness", "surprise")


@pytest.fixture
def no_faces(monkeypatch):
    monkeypatch.setattr(extract, "run", trees.prepare_without_faces)


def write_video(path: Path, frames: int, rate: int = 100) -> None:
    """A video whose frames are grey, each lighter than the one before by five."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 5 * number, np.uint8))
    writer.release()


def write_table(root: Path, rows, header=HEADER, separator: str = ",", encoding: str = "utf-8") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    with (root / "clips.csv").open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=separator).writerows([header, *rows])
    return root


def rows_of(subjects: int = 3) -> list[tuple]:
    """A folder, an interval of a video and a whole video of each subject."""
    rows = []
    for s in range(1, subjects + 1):
        rows += [
            (f"s{s}", "a", f"frames/s{s}", EMOTIONS[0], 10, 13, 18, 200, "4"),
            (f"s{s}", "b", f"films/s{s}.avi", EMOTIONS[1], 5, "", 15, "", "12"),
            (f"s{s}", "c", f"films/s{s}_whole.avi", EMOTIONS[2], "", "", "", "", "1+2"),
        ]
    return rows


def write(root: Path, rows=None, subjects: int = 3, **how) -> Path:
    for s in range(1, subjects + 1):
        trees.write_frames(root / f"frames/s{s}", [f"img{number}.jpg" for number in range(8, 21)])
        write_video(root / f"films/s{s}.avi", 20)
        write_video(root / f"films/s{s}_whole.avi", 6)
    return write_table(root, rows_of(subjects) if rows is None else rows, **how)


def load(root: Path, **options) -> Clips:
    inputs = ("flow", "onset", "apex", "frames")
    return Clips(root=str(root), **{"cache": str(root.parent / "cache"), "crop_size": 16, "inputs": inputs, **options})


def test_folders_and_videos_are_clips(tmp_path, no_faces):
    data = load(write(tmp_path / "data"))
    assert list(data.all_clips.columns) == list(COLUMNS) and len(data.all_clips) == 9
    table = data.all_clips.set_index(["subject", "clip"])
    assert table.loc[("s1", "a"), ["onset", "apex", "offset", "frames_per_second"]].tolist() == [10, 13, 18, 200]
    assert table.loc[("s1", "b"), ["onset", "offset", "frames_per_second"]].tolist() == [5, 15, 100]
    assert table.loc[("s2", "c"), ["onset", "offset"]].tolist() == [0, 5] and table["apex"].isna().sum() == 6
    assert set(table["dataset"]) == {"clips"} and data.classes == ("disgust", "happiness", "surprise")
    assert all(problem.used for problem in data.problems)
    data.prepare_data()
    assert list(data.folds) == ["clips-s1", "clips-s2", "clips-s3"]
    assert sorted(row for rows in data.folds.values() for row in rows) == list(range(9))
    data.hold_out("clips-s2", seed=0)
    data.setup()
    (batch,) = data.test_dataloader()
    assert batch["flow"].shape == (3, 3, 28, 28) and batch["frames"].shape == (3, 6, 3, 28, 28)


def test_a_frame_of_a_video_is_the_one_that_the_table_means(tmp_path):
    data = load(write(tmp_path / "data"))
    row = next(row for row in data.all_clips.itertuples() if row.clip == "b")
    sources = dict(data.frame_sources(row))
    assert list(sources) == list(range(5, 16))
    for number in (5, 15, 9, 5, 14):  # forwards, backwards, again
        assert abs(read_frame(sources[number]).mean() - 5 * number) < 1.5
    with pytest.raises(InputError, match=r"s1\.avi: frame 20 cannot be decoded; it breaks off after 20 frames"):
        FrameOfVideo(20, data.root / "films/s1.avi", 1).image  # noqa: B018


def test_a_video_gives_what_its_frames_give(film, tmp_path):
    """Real faces, prepared in processes: the flow of a lossless video is that of the same pictures as files."""
    folder = film / "frames/p01/c01"
    images = [cv2.imread(str(folder / f"{number}.jpg")) for number in range(len(list(folder.iterdir())))]
    root = tmp_path / "data"
    (root / "v").mkdir(parents=True)
    shutil.copytree(folder, root / "f")
    writer = cv2.VideoWriter(str(root / "v/one.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), 60, (320, 240))
    for image in images:
        writer.write(image)
    writer.release()
    places = (("f", "x"), ("v/one.avi", "y"))
    spotted = [(f"s{n}", "spotted", path, emotion, 3, "", 12, "", "") for n, (path, emotion) in enumerate(places)]
    given = [(f"s{n}", "given", path, emotion, 4, 8, 12, "", "") for n, (path, emotion) in enumerate(places)]
    data = load(write_table(root, [*spotted, *given]), workers=2, crop_size=64)
    data.prepare_data()
    assert len(data.clips) == 4
    tensors = data.load(data.clips)
    for name, values in tensors.items():
        near = (values[0::2].float() - values[1::2].float()).abs().mean()  # YUV rounds the colours
        assert near < (0.05 if name == "flow" else 2), name
    assert data.read(next(data.clips.itertuples()))["apex_frame"].item() > 3


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """What ``mer synthesize --layout clips`` writes, small. Read only."""
    root = tmp_path_factory.mktemp("film") / "clips"
    return synthesize(root, layout="clips", subjects=1, clips=5, size=(320, 240), workers=1)


def test_half_of_the_synthetic_clips_are_videos(film, tmp_path):
    data = load(film, inputs=("flow",), crop_size=128, input_size=128, cache=str(tmp_path))
    clips = data.all_clips.set_index("clip")
    assert sorted(path.name for path in (film / "videos").iterdir()) == ["p01_c02.avi", "p01_c04.avi"]
    assert sorted(path.name for path in (film / "frames/p01").iterdir()) == ["c01", "c03", "c05"]
    assert clips["apex"].isna().tolist() == [False, False, True, True, False] and clips["onset"]["c04"] == 0
    assert set(clips["frames_per_second"]) == {60} and all(problem.used for problem in data.problems)
    data.prepare_data()
    video = next(row for row in data.clips.itertuples() if row.clip == "c02")
    flow, truth = data.read(video)["flow"][:2].numpy(), load_file(film / "truth/p01_c02.safetensors")["flow"]
    assert video.onset > 0 and np.corrcoef(flow.ravel(), truth.astype(float).ravel())[0, 1] > 0.8


def test_labels_are_joined_by_protocol_yaml(tmp_path, no_faces):
    root = write(tmp_path / "data")
    apart = load(root)
    (root / "protocol.yaml").write_text("classes: {other: [Happiness], negative: disgust}\nleave_out: [surprise]\n")
    data = load(root)
    assert data.classes == ("other", "negative") and len(data.clips) == 6
    assert data.clips["target"].tolist() == ["negative", "other"] * 3
    assert data.protocol.startswith("own-other+negative-") and data.fingerprint == apart.fingerprint
    (root / "protocol.yaml").write_text("classes: {other: [disgust], negative: happiness}\nleave_out: [surprise]\n")
    assert load(root).protocol != data.protocol and load(root).classes == data.classes
    with pytest.raises(InputError, match="not that of the table any more"):
        load(root, protocol=data.protocol)
    assert protocols.protocol(data.protocol).classes == data.classes  # the name alone says them


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("classes: [a]", ["no mapping"]),
        ("classes: {a: [disgust], b: [disgust, 3]}\nleave: [x]", ["b is no list", "'leave' is neither"]),
        ("classes: {a: [disgust], b: [happiness, disgust]}", ["'disgust' stands in a and in b"]),
        ("classes: {a: [disgust, happiness, surprise]}", ["classes a: two or more"]),
        ("classes: {a: disgust, b: happiness}", ["line 4: emotion 'surprise' is unknown", "protocol.yaml"]),
        ("classes: {a: ", ["cannot be read"]),
    ],
)
def test_a_protocol_that_is_none_is_named(tmp_path, text, words):
    root = write(tmp_path / "data", subjects=1)
    (root / "protocol.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load(root).all_clips  # noqa: B018
    assert all(word in str(caught.value) for word in words), caught.value


def test_words_of_a_known_protocol(tmp_path, no_faces):
    root = write(tmp_path / "data")
    data = load(root, protocol="union-3")
    assert data.classes == ("negative", "positive", "surprise") and len(data.clips) == 9
    assert data.known_protocols()[0] == load(root).protocol and "union-3" in data.known_protocols()
    rows = [(*row[:3], "hapiness" if row[3] == "happiness" else row[3], *row[4:]) for row in rows_of()]
    write_table(root, rows)
    with pytest.raises(InputError, match=r"line 3: emotion 'hapiness' is unknown .*did you mean happiness"):
        load(root, protocol="union-3").all_clips  # noqa: B018
    assert load(root).classes == ("disgust", "hapiness", "surprise")


def test_no_word_stands_for_two_classes():
    for rules in PROTOCOLS.values():
        words = rules.words("somebody's")
        assert all(words[word] == name for words_of in rules.emotions.values() for word, name in words_of.items())
    assert PROTOCOLS["megc2019"].words("casme3") == {}


def test_names_of_own_protocols():
    assert own_protocol(["joy", "sorrow"]) == "own-joy+sorrow"
    for classes in ([], ["joy"], ["joy", "joy"], ["a+b", "c"], ["a/b", "c"], ["x" * 100, "y" * 100]):
        with pytest.raises(InputError):
            own_protocol(classes)
    assert not protocols.is_protocol("own") and not protocols.is_protocol("own-joy")


@pytest.mark.parametrize("how", [{"separator": ";"}, {"separator": "\t"}, {"encoding": "utf-8-sig"}])
def test_a_table_as_spreadsheets_write_it(tmp_path, how):
    rows = [tuple(f"{cell}.0" if isinstance(cell, int) else f" {cell} " for cell in row) for row in rows_of()]
    data = load(write(tmp_path / "data", rows, header=tuple(name.replace("_", " ").title() for name in HEADER), **how))
    assert data.fingerprint == load(write(tmp_path / "plain")).fingerprint


def test_a_workbook_is_read(tmp_path):
    plain = load(write(tmp_path / "plain"))
    root = write(tmp_path / "data")
    (root / "clips.csv").unlink()
    trees.write_workbook(root / "clips.xlsx", {"mine": [HEADER, *rows_of()]})
    assert load(root).fingerprint == plain.fingerprint
    write_table(root, rows_of())
    with pytest.raises(InputError, match=r"clips\.csv and clips\.xlsx; keep"):
        load(root)


def test_every_problem_is_listed_with_its_line(tmp_path):
    root, good = write(tmp_path / "data"), rows_of()
    (root / "one.png").write_bytes(trees.IMAGES[".png"])
    rows = [
        *good,
        ("s1", "A", "frames/s2", "disgust", 11, "", 12, "", ""),  # 11
        ("s1", "d", "../data/frames/s1", "disgust", 1, "", 2, "", ""),
        ("s1", "e", "/etc", "disgust", 1, "", 2, "", ""),
        ("s1", "f", "nowhere.avi", "disgust", 1, "", 2, "", ""),
        ("s1", "g", "frames/s1", "disgust", 18, "", 10, "", ""),
        ("s1", "h", "frames/s1", "disgust", 9, 9, 18, "", ""),
        ("s1", "i", "frames/s1", "disgust", 9, 20, 19, "", ""),
        ("s1", "j", "frames/s1", "", 9, "x", 20, "fast", ""),
        ("s1", "k", "films/s1_whole.avi", "disgust", 0, "", 5, "", ""),
        ("S01", "l", "frames/s1", "disgust", 9, "", 17, "", ""),  # 20
        ("s 1", "m", "frames/s1", "disgust", 9, "", 16, "", ""),
        ("s1", "n", "one.png", "disgust", "", "", "", "", ""),
        ("s1", "", "", "disgust", "", "", "", "", ""),
    ]
    with pytest.raises(InputError) as caught:
        load(write_table(root, rows)).all_clips  # noqa: B018
    text = str(caught.value)
    for words in (
        "line 11: clip clips s1 A stands in line 2 too",
        "line 12: path '../data/frames/s1' leads out",
        "line 13: path '/etc' leads out",
        "line 14: path 'nowhere.avi' does not exist",
        "line 15: offset 10 is not after onset 18",
        "line 16: apex 9 is not after onset 9",
        "line 17: apex 20 is after offset 19",
        "line 18: emotion is empty",
        "line 18: apex 'x' is no frame number",
        "line 18: frames_per_second 'fast'",
        "line 19: has the same frames of 'films/s1_whole.avi' as line 4",
        "line 20: subject 'S01' differs from 's1' in line 2 only in case, padding or blanks",
        "line 21: subject 's 1' is not a plain name",
        "line 22: path 'one.png' is one picture",
        "line 23: clip is empty",
        "line 23: path is empty",
    ):
        assert words in text, words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["column subject is missing", "column emotion is missing"]),
        (b"subject,clip,emotion,onset\na,b,c,1\n", ["column path is missing", "Needed are"]),
        (b"subject,clip,path,emotion\n", ["no clip"]),
        (b"subject,clip,path,path,emotion\n", ["column path stands twice"]),
        (b"subject,clip,path,emotion,action units\na,b,c,d,4,7\n", ["line 2: has 6 cells", "quotes"]),
        (b"\xff\xfe\x00" * 50, ["not a table"]),
    ],
)
def test_a_table_that_is_none_is_named(tmp_path, content, words):
    (tmp_path / "clips.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_missing_table_says_what_is_expected(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"clips\.csv.*subject, clip, path, emotion.*DATA="):
            load(root)


def test_frames_that_are_missing_or_broken_cost_no_more_than_their_clip(tmp_path, no_faces):
    rows = [*rows_of(), ("s3", "d", "films/broken.avi", "disgust", "", "", "", "", "")]
    rows += [
        ("s3", "e", "films/s3.avi", "disgust", 40, 45, 50, "", ""),
        ("s3", "f", "films/s2.avi", "disgust", 2, 9, 25, "", ""),
    ]
    root = write(tmp_path / "data", rows)
    (root / "films/broken.avi").write_bytes(b"RIFF\0\0\0\0AVI " + bytes(200))
    (root / "frames/s1/img13.jpg").unlink()
    data = load(root)
    assert len(data.all_clips) == 10
    told = {(problem.clip, problem.what) for problem in data.problems if not problem.used}
    assert {clip for clip, _ in told} == {"d", "e"}
    assert any("broken.avi" in what and "no video" in what for _, what in told)
    assert any(problem.clip == "a" and "frame 12 is taken" in problem.action for problem in data.problems)
    assert any(problem.clip == "f" and "frame 19 is taken" in problem.action for problem in data.problems)


def test_several_databases_in_one_table(tmp_path, no_faces):
    rows = [("Lab1" if n % 2 else "lab2", *row[:2], *row[2:]) for n, row in enumerate(rows_of())]
    rows = [*rows, ("lab1", "s1", "a", "frames/s3", "disgust", 8, "", 12, "", "")]
    root = write(tmp_path / "data", rows, header=("dataset", *HEADER))
    data = load(root, split="lodo", protocol="union-3")
    data.prepare_data()
    assert list(data.folds) == ["lab1", "lab2"] and len(set(data.clips["cached"])) == len(data.clips) == 10
    content = findings.inspect(data)
    assert content["subjects"] == 6 and content["protocols"]["union-3"]["clips"] == 10
    page = gallery.write(data, tmp_path / "gallery").read_text()
    assert page.count("<figure>") == 10 == len(list((tmp_path / "gallery").glob("*.jpg")))


def test_a_union_with_a_database(tmp_path, no_faces):
    root = tmp_path / "data"
    trees.casme2(root / "casme2")
    write(root / "clips", [("mine", *row) for row in rows_of()], header=("dataset", *HEADER))
    shared = {"databases": "casme2,clips", "cache": str(tmp_path / "cache"), "crop_size": 16}
    data = Composite(root=str(root), **shared)
    data.prepare_data()
    assert data.clips["dataset"].value_counts().to_dict() == {"casme2": 12, "mine": 9}
    assert data.load(data.clips)["flow"].shape[0] == 21 and "union-3" in data.known_protocols()
    assert findings.inspect(data)["clips"] == 21
    write(root / "clips", [("casme2", *row) for row in rows_of()], header=("dataset", *HEADER))
    with pytest.raises(InputError, match="has clips of casme2, which is a part of its own"):
        Composite(root=str(root), **shared).all_clips  # noqa: B018


def test_the_fingerprint_knows_every_file(tmp_path):
    root = write(tmp_path / "data")
    before = load(root)
    assert {"films/s1.avi", "frames/s3/img10.jpg"} <= before.source_files(before.all_clips).keys()
    with (root / "films/s1.avi").open("ab") as file:
        file.write(b"\0")
    assert load(root).fingerprint != before.fingerprint
    assert load(root, registered=True).layout == "table cropped"


def test_a_sweep_from_the_command_line(tmp_path, capsys, monkeypatch):
    """Frames and videos that are crops already, so that no face is looked for; the report knows the classes by name."""
    monkeypatch.chdir(tmp_path)
    root = write(tmp_path / "data")
    shared = ["--dataset", "clips", "--root", str(root), "--model", "ststnet,hsta", "--devices", "cpu"]
    options = ["--data.registered=true", "--data.crop_size=32", "--trainer.max_steps=2"]
    assert main(["sweep", *shared, *options]) == 0
    assert "clips, own-disgust+happiness+surprise, loso" in capsys.readouterr().out
    (first, second) = cells(tmp_path / "results")
    assert first.classes == second.classes == ("disgust", "happiness", "surprise")
    assert len(first.done(0)) == len(second.done(0)) == 3 and len(first.pooled(0)) == 9
    assert main(["report"]) == 0 and main(["status", "--json"]) == 0
    assert "own-disgust+happiness+surprise" in (tmp_path / "results/report/report.md").read_text()
    assert main(["sweep", *shared, *options, "--protocol", "own-x+y"]) == 2
    assert "not that of the table any more" in capsys.readouterr().err
    assert store.read(next((tmp_path / "cache/clips").glob("tvl1-*/*.safetensors"))) is not None
    assert torch.isfinite(torch.tensor(first.pooled(0)["p_disgust"].astype(float).to_numpy())).all()


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("ahmsa_net", ("--model.network.widths=[4,8]", "--model.network.depths=[1,1]", "--model.network.heads=[1,2]")),
        ("mfvan", ("--model.first_stage_steps=2",)),
        ("timm_baseline", ("--model.network.name=resnet10t",)),
        ("off_apexnet", ()),
        ("rcn", ()),
        ("htnet", ()),
    ],
)
def test_every_other_network_learns_from_them(model, options, tmp_path, no_faces):
    few = ("--trainer.max_steps=2", "--data.batch_size=4", "--data.crop_size=32")
    root, places = write(tmp_path / "data"), {name: str(tmp_path / name) for name in ("cache", "results")}
    experiment = Experiment(Job("clips", model, root=str(root), options=(*few, *options), **places))
    experiment.data.prepare_data()
    outcome = train(experiment, experiment.folds()[0])
    assert len(outcome.predictions) == 3 and np.isfinite(outcome.predictions.filter(like="p_").to_numpy()).all()


def test_one_label_alone_is_enough_for_a_union(tmp_path):
    root = write(tmp_path / "data", [row for row in rows_of() if row[3] == "happiness"])
    data = load(root, protocol="union-3")
    assert len(data.all_clips) == 3 and data.known_protocols() == []
    with pytest.raises(InputError, match=r"clips\.csv, column emotion: classes happiness: two or more"):
        load(root)

"""The input ``depth``: CAS(ME)^3 has it, others refuse it, and a model that reads it is trained and predicts."""

import json
import shutil
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from data_modules.cache import extract
from data_modules.cache.extract import Entry
from data_modules.casme3 import CASME3
from data_modules.release.clip_table import rows
from experiments.cli import main
from experiments.experiment import Experiment
from experiments.inspection import findings
from experiments.jobs import Job
from experiments.results import cells
from mer import InputError
from mer.trained import _one_thread, load
from tests import fitted, trees

DEPTH = "--model.network.special=depth"
SMALL = ("--data.crop_size=32", "--data.input_size=32", "--data.registered=true", DEPTH)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(extract, "run", lambda entries, workers: map(Entry.write, entries))


def data(root, inputs=("depth", "frames"), **options) -> CASME3:
    given = {"crop_size": 32, "registered": True, "cache": str(root.parent / "cache"), **options}
    return CASME3(root=str(root), inputs=inputs, **given)


def depth_of(casme3: CASME3, clip: str) -> list[Any]:
    """The depth frames of a clip of the first subject."""
    row = next(row for row in rows(casme3.all_clips) if row.clip == clip)
    return casme3.depth_files(row)


@pytest.mark.parametrize("whole", [True, False])
def test_only_what_is_read_is_prepared(tmp_path, whole):
    casme3 = data(trees.casme3(tmp_path / "data", whole))
    casme3.prepare_data()
    kinds = sorted(folder.name.split("-")[0] for folder in (tmp_path / "cache/casme3").iterdir())
    assert kinds == ["depth", "frames6"] and len(casme3.clips) == 12
    casme3.setup()
    assert casme3.store["depth"].shape == (12, 3, 28, 28) and casme3.store["depth"].dtype == torch.float32
    assert findings.inspect(data(casme3.root))["depth"] == 15


def test_a_clip_without_depth_is_left_out_by_name_by_those_that_read_it(tmp_path, capsys):
    root = trees.casme3(tmp_path / "data")
    (onset, *_, offset) = depth_of(data(root), "a_20")
    onset.unlink()
    depth_of(data(root), "a_40")[1].write_bytes(b"")  # neither onset nor apex
    casme3, others = data(root), data(root, inputs=("flow",))
    for one in (casme3, others):
        one.prepare_data()
    assert len(others.clips) == 12 and len(casme3.clips) == 11
    assert "spNO.1 a_20: " in (said := capsys.readouterr().err) and "20.jpg: has no depth frame" in said
    assert findings.inspect(casme3)["depth"] == 14
    for folder in root.rglob("depth"):
        shutil.rmtree(folder)
    empty = data(root)
    empty.prepare_data()
    with pytest.raises(InputError, match=r"not one clip can be prepared; .*depth-32.* has no depth frame"):
        empty.clips  # noqa: B018


def test_depth_is_part_of_the_data_of_those_that_read_it(tmp_path):
    root = trees.casme3(tmp_path / "data")
    before, others = data(root), data(root, inputs=("flow", "frames"))
    assert before.fingerprint != others.fingerprint
    (_, later, *_) = depth_of(before, "a_20")
    later.write_bytes(later.read_bytes() + b"0")
    assert data(root).fingerprint != before.fingerprint and data(root).depth_folder != before.depth_folder
    assert data(root, inputs=("flow", "frames")).fingerprint == others.fingerprint


@pytest.mark.parametrize("dataset", ["casme2", "smic", "megc2019", "clips", "flow_maps"])
def test_others_refuse_it(dataset, tmp_path, capsys):
    (tmp_path / "clips.csv").write_text("subject,clip,path,emotion\ns1,a,x,joy\ns2,b,y,fear\n")
    words = ["sweep", "--dataset", dataset, "--root", str(tmp_path), "--model", "hsta", "--devices", "cpu", DEPTH]
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and f"dataset '{dataset}' has no depth" in lines[0]


def test_a_sweep_and_a_model_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    root = trees.casme3(tmp_path / "data")
    words = ["--dataset", "casme3", "--root", str(root), "--model", "hsta", "--devices", "cpu"]
    few = ["--trainer.max_steps=2", "--data.batch_size=4"]
    assert main(["sweep", *words, *SMALL, *few]) == 0 and capsys.readouterr()
    (cell,) = cells(tmp_path / "results")
    assert len(cell.done(0)) == 3 and np.isfinite(cell.pooled(0).filter(like="p_").to_numpy(float)).all()
    assert main(["inspect", "casme3", "--root", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["depth"] == 15


def test_a_model_predicts_with_the_depth_beside_a_folder(tmp_path):
    root = trees.casme3(tmp_path / "data")
    options = (*SMALL, "--trainer.max_steps=2", "--data.batch_size=4")
    experiment = Experiment(
        Job("casme3", "hsta", root=str(root), cache=str(tmp_path / "cache"), results=str(tmp_path / "results"),
            options=options)
    )  # fmt: skip
    experiment.data.prepare_data()
    weights = fitted.write(tmp_path / "model", experiment, (0,))
    experiment.data.setup()
    task = experiment.instantiate().model.eval()
    task.load_state_dict({name: torch.from_numpy(x) for name, x in weights[0].items()})
    with torch.no_grad(), _one_thread():
        expected = task.predict_step({name: x[:1] for name, x in experiment.data.store.items()}).numpy()
    row = next(rows(experiment.data.clips))
    frames = experiment.data.clip_frames(row)
    folder, model = frames.frames[0].path.parent, load(tmp_path / "model", "cpu")
    places = {"onset": row.onset, "apex": frames.apex, "offset": row.offset}
    np.testing.assert_array_equal(model.predict(folder, **places, registered=True).probabilities, expected[0])
    assert model.predict(f"{folder}/20.jpg:{folder}/22.jpg", registered=True).apex == 1
    shutil.copytree(folder, tmp_path / "alone/color")
    with pytest.raises(InputError, match=r"20\.jpg: has no depth frame, of the same name in a folder depth/ beside"):
        model.predict(tmp_path / "alone/color", **places, registered=True)
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30, (48, 48))
    for frame in frames.frames:
        writer.write(cv2.imread(str(frame.path)))
    writer.release()
    with pytest.raises(InputError, match=r"film\.avi, frame 0: has no depth frame"):
        model.predict(tmp_path / "film.avi", registered=True)

"""The network, loss, callback and datasets of docs/extending.md, run as they stand, from a folder of their own."""

import json
import re
import sys
from multiprocessing import process
from pathlib import Path

import cv2
import numpy as np
import pytest

from experiments.cli import main

HERE = Path(__file__).parents[1]
TEXT = (HERE / "docs/extending.md").read_text()
EXAMPLES = dict(re.findall(r"`lab/([\w/]+\.\w+)`[^`]*(?:`[^`]+`[^`]*)*?:\n\n```\w+\n(.*?)```", TEXT, flags=re.S))
LABELS = ("joy", "anger", "surprise")


def test_the_examples_are_there():
    assert sorted(EXAMPLES) == ["my_lab.py", "my_net.py", "my_net.yaml", "my_study.py", "my_task.py", "my_watch.py"]


@pytest.fixture
def mer(tmp_path, monkeypatch, capsys):
    """The command line in a folder that has the examples in ``lab``, where Python finds them."""
    (tmp_path / "lab").mkdir()
    for name, content in EXAMPLES.items():
        (tmp_path / "lab" / name).write_text(content)
        monkeypatch.delitem(sys.modules, Path(name).stem, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "ORIGINAL_DIR", str(tmp_path))  # where workers begin
    monkeypatch.syspath_prepend(tmp_path / "lab")

    def run(*arguments: str) -> str:
        assert main(list(arguments)) == 0
        return capsys.readouterr().out

    return run


def test_an_own_model_with_an_own_loss_on_own_maps_is_watched(tmp_path, mer):
    (tmp_path / "maps").mkdir()
    draws = np.random.default_rng(0)
    for subject in ("anna", "ben"):
        for clip, emotion in enumerate(("happiness", "surprise", "disgust") * 2):
            np.save(tmp_path / f"maps/{subject}_{clip}_{emotion}.npy", draws.normal(size=(3, 40, 40)))
    allowed = [word for name in ("my_net", "my_task", "my_watch") for word in ("--allow", name)]
    options = ["--model.class_path=my_task.SureTask", "--model.sure_weight=0.2", "--trainer.max_steps=10"]
    options += ["--trainer.callbacks+=my_watch.GradientLength"]
    mer("sweep", "--dataset", "my_lab.MyLab", "--root", "maps", "--model", "lab/my_net.yaml", *allowed, *options)
    folds = tmp_path.glob("results/my_lab/casme2-3/loso/*/seed0/*.json")
    curves = [json.loads(path.read_text())["curve"] for path in folds]
    assert len(curves) == 2
    for curve in curves:
        assert {"train/sure", "train/gradient"} <= {name for row in curve for name in row}


def test_an_own_database_is_read_and_mended(tmp_path, mer):
    lines = ["Person,Recording,Start,Peak,End,Label"]
    for subject in ("p01", "p02"):
        for number, label in enumerate(LABELS):
            folder = tmp_path / f"study/frames/{subject}/r{number}"
            folder.mkdir(parents=True)
            for frame in range(1, 6):
                cv2.imwrite(str(folder / f"img{frame:04d}.jpg"), np.full((64, 64, 3), 40 * frame, np.uint8))
            lines.append(f"{subject},r{number},1,{99 if (subject, number) == ('p02', 1) else 3},5,{label}")
    (tmp_path / "study/my_study.csv").write_text("\n".join(lines))
    seen = json.loads(mer("inspect", "my_study.MyStudy", "--root", "study", "--json"))
    assert seen["protocols"]["my_study-3"]["classes"] == {"negative": 2, "positive": 2, "surprise": 2}
    (mended,) = seen["problems"]
    assert (mended["subject"], mended["clip"], mended["action"]) == ("p02", "r1", "3 is taken")

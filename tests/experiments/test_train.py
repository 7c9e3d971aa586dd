"""How a fold is trained and tested."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from experiments import callbacks
from experiments.cli import main
from experiments.jobs import Job
from experiments.train import Experiment

OPTIONS = ("--trainer.max_steps=6", "--data.batch_size=8")


def test_the_optimistic_choice_is_the_first_best_epoch(flow_maps, monkeypatch):
    experiment = Experiment(Job("flow_maps", "ststnet", root=str(flow_maps), options=OPTIONS))
    right = torch.eye(3)[[0, 1, 2, 0, 1, 2]]  # the classes of the six clips of a subject
    wrong, half = right.roll(1, dims=1), torch.cat([right[:3], right[3:].roll(1, dims=1)])
    answers = iter([wrong, half, right * 0.9 + 0.03, wrong])
    monkeypatch.setattr(callbacks, "predict", lambda *_: [next(answers)])
    # Twelve training clips, batches of eight: a pass takes two steps, so six steps are three passes.
    table = experiment.train("smic-s2", seed=0).predictions
    assert (table["optimistic_prediction"] == table["target"]).all()
    assert (table["prediction"] != table["target"]).all()


def test_two_processes_share_a_fold(flow_maps, tmp_path):
    options = ("--data.size=32", "--data.batch_size=8", "--trainer.max_steps=4", "--model.balance=0")
    options += ("--model.network.name=test_vit", "--trainer.log_every_n_steps=1")
    shared = ("--dataset", "flow_maps", "--root", str(flow_maps), "--model", "timm_baseline", "--fold", "smic-s2")
    shared += ("--results", str(tmp_path), "--devices", "cpu", "--trainer.devices=2", "--trainer.strategy=ddp")
    paths = os.pathsep.join(str(Path(__file__).parents[2] / folder) for folder in ("src", "."))
    subprocess.run(
        [sys.executable, "-m", "experiments.cli", "train", *shared, *options],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
        capture_output=True,
    )
    (file,) = tmp_path.glob("*/*/loso/*/seed0/*.csv")
    alone = Experiment(Job("flow_maps", "timm_baseline", root=str(flow_maps), options=options)).train("smic-s2", 0)
    together = pd.read_csv(file)
    assert together["clip"].tolist() == alone.predictions["clip"].tolist()  # every clip once
    columns = [name for name in together if name.startswith("p_")]
    assert together[columns].to_numpy() == pytest.approx(alone.predictions[columns].to_numpy(), abs=1e-4)


def test_a_sweep_leaves_sharing_a_fold_to_train(flow_maps, tmp_path, capsys):
    shared = ["--dataset", "flow_maps", "--root", str(flow_maps), "--model", "ststnet", "--results", str(tmp_path)]
    assert main(["sweep", *shared, "--trainer.devices=2", "--trainer.strategy=ddp"]) == 2
    assert "mer train" in capsys.readouterr().err

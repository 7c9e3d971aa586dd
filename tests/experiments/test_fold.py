"""How a fold is trained and tested."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from experiments import callbacks, fold
from experiments.cli import main
from experiments.experiment import Experiment
from experiments.fold import train
from experiments.jobs import Job
from experiments.results import Fold
from mer.training.first_stage import FirstStage

OPTIONS = ("--trainer.max_steps=6", "--data.batch_size=8")


def test_the_optimistic_choice_is_the_first_best_epoch(flow_maps, monkeypatch):
    experiment = Experiment(Job("flow_maps", "ststnet", root=str(flow_maps), options=OPTIONS))
    right = torch.eye(3)[[0, 1, 2, 0, 1, 2]]  # the classes of the six clips of a subject
    wrong, half = right.roll(1, dims=1), torch.cat([right[:3], right[3:].roll(1, dims=1)])
    answers = iter([wrong, half, right * 0.9 + 0.03, wrong])
    monkeypatch.setattr(callbacks, "predict", lambda *_: next(answers))
    # Twelve training clips, batches of eight: a pass takes two steps, so six steps are three passes.
    table = train(experiment, Fold(experiment.cell, "smic-s2", 0)).predictions
    assert (table["optimistic_prediction"] == table["target"]).all()
    assert (table["prediction"] != table["target"]).all()


class Shrink(FirstStage):
    """A scale of the flow, which it learns to be smaller."""

    def __init__(self):
        super().__init__(3, lr=0.1)
        self.scale = nn.Parameter(torch.ones(1))

    def loss(self, batch):
        return {"size": (batch["flow"] * self.scale).square().mean()}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_damaged_weights_of_a_first_stage_are_trained_again(flow_maps, tmp_path, recwarn):
    experiment = Experiment(Job("flow_maps", "ststnet", root=str(flow_maps), cache=str(tmp_path), options=OPTIONS))
    held_out = Fold(experiment.cell, "smic-s2", 0)
    experiment.data.hold_out(held_out.name, held_out.seed)

    def weight() -> float:
        arguments = fold._initial(experiment, 0)[1]
        weights = fold._first_stage_weights(experiment, Shrink(), held_out, arguments, callbacks.Curve())
        return weights["scale"].item()

    learnt, (file,) = weight(), tmp_path.glob("flow_maps/first_stage/*.safetensors")
    whole, time = file.read_bytes(), file.stat().st_mtime_ns
    assert learnt < 1 and weight() == learnt and file.stat().st_mtime_ns == time
    recwarn.clear()
    file.write_bytes(whole[:-1] + b"!")
    assert weight() == learnt and file.read_bytes() == whole and weight() == learnt
    assert [str(one.message) for one in recwarn.list if "damaged" in str(one.message)] == [
        f"{file}: damaged, trained again"
    ]


def test_two_processes_share_a_fold(flow_maps, tmp_path):
    options = ("--data.input_size=32", "--data.batch_size=8", "--trainer.max_steps=4", "--model.class_weight_power=0")
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
    experiment = Experiment(Job("flow_maps", "timm_baseline", root=str(flow_maps), options=options))
    alone = train(experiment, Fold(experiment.cell, "smic-s2", 0))
    together = pd.read_csv(file)
    assert together["clip"].tolist() == alone.predictions["clip"].tolist()  # every clip once
    columns = [name for name in together if name.startswith("p_")]
    assert together[columns].to_numpy() == pytest.approx(alone.predictions[columns].to_numpy(), abs=1e-4)


def test_a_sweep_leaves_sharing_a_fold_to_train(flow_maps, tmp_path, capsys):
    shared = ["--dataset", "flow_maps", "--root", str(flow_maps), "--model", "ststnet", "--results", str(tmp_path)]
    assert main(["sweep", *shared, "--trainer.devices=2", "--trainer.strategy=ddp"]) == 2
    assert "mer train" in capsys.readouterr().err

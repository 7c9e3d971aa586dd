"""How a fold is trained and tested."""

import torch

from experiments import callbacks
from experiments.jobs import Job
from experiments.train import Experiment

OPTIONS = ("--trainer.max_steps=6", "--data.batch_size=8")


def test_the_optimistic_choice_is_the_first_best_epoch(flow_maps, monkeypatch):
    experiment = Experiment(Job("flow_maps", "ststnet", root=str(flow_maps), options=OPTIONS))
    right = torch.eye(3)[[0, 1, 2, 0, 1, 2]]  # the classes of the six clips of a subject
    wrong, half = right.roll(1, dims=1), torch.cat([right[:3], right[3:].roll(1, dims=1)])
    answers = iter([wrong, half, right * 0.9 + 0.03, wrong])
    monkeypatch.setattr(callbacks, "predict", lambda *_: next(answers))
    # Twelve training clips, batches of eight: a pass takes two steps, so six steps are three passes.
    table = experiment.train("smic-s2", seed=0).predictions
    assert (table["optimistic_prediction"] == table["target"]).all()
    assert (table["prediction"] != table["target"]).all()

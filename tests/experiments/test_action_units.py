"""The auxiliary loss of action units, from the command line to a fitted model."""

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.cli import main
from experiments.experiment import Experiment
from experiments.fold import train
from experiments.jobs import Job
from experiments.results import Fold
from mer.onnx_export import export
from mer.trained import load
from tests import fitted
from tests.conftest import write_flow_maps

P = ["p_negative", "p_positive", "p_surprise"]


@pytest.fixture
def root(tmp_path):
    """Six subjects with a clip of each class; those of surprise have no code."""
    root = write_flow_maps(tmp_path / "coded", subjects=6, clips=3)
    return recode(root, lambda clips: clips["emotion"].map({"negative": "4+L7", "positive": "R12", "surprise": "?"}))


def recode(root, codes):
    clips = pd.read_csv(root / "clips.csv")
    clips.assign(action_units=codes).to_csv(root / "clips.csv", index=False)
    return root


def experiment(root, *options: str) -> Experiment:
    few = ("--trainer.max_steps=3", "--data.batch_size=8")
    return Experiment(Job("flow_maps", "ststnet", root=str(root), options=(*few, *options)))


def predictions(root, *options: str) -> pd.DataFrame:
    chosen = experiment(root, *options)
    return train(chosen, Fold(chosen.cell, "smic-s1", 0)).predictions[P]


def test_without_a_weight_nothing_changes(root):
    before = predictions(root)
    assert experiment(root, "--model.action_units=0").digest == experiment(root).digest
    assert experiment(root).parameters == 1683
    recode(root, lambda clips: "1+2")
    assert predictions(root, "--model.action_units=0").equals(before)


def test_codes_of_training_clips_alone_change_what_is_learned(root):
    weight = "--model.action_units=1"
    before = predictions(root, weight)
    recode(root, lambda clips: clips["action_units"].where(clips["subject"] != "s1", "1+12"))
    assert predictions(root, weight).equals(before)
    recode(root, lambda clips: clips["action_units"].where(clips["subject"] != "s2", "4+12"))
    assert not predictions(root, weight).equals(before)


def test_each_weight_has_a_cell_of_its_own(root):
    assert len({experiment(root, f"--model.action_units={weight}").digest for weight in (0, 0.1, 0.3, 1)}) == 4


def test_data_without_codes_are_refused(flow_maps, tmp_path, capsys):
    command = ["sweep", "--dataset", "flow_maps", "--root", str(flow_maps), "--model", "ststnet", "--results"]
    assert main([*command, str(tmp_path / "results"), "--model.action_units=0.3"]) == 2
    assert "no action unit is coded in 5 of the 18 clips" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_fitted_model_tells_classes(root, tmp_path):
    chosen = experiment(root, "--model.action_units=0.3")
    fitted.write(tmp_path / "model", chosen)
    model, flow = load(tmp_path / "model", "cpu"), torch.randn(3, 28, 28)
    probabilities, _ = model.classify({"flow": flow})
    assert probabilities.shape == (2, 3)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    _, difference = export(model.tasks, {"flow": flow[None]})
    assert difference < 1e-5

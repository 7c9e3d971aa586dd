"""What the held-out subject may not do: change what is learnt from the others."""

import pandas as pd
import pytest
import torch

from experiments import callbacks
from experiments.jobs import DEFAULT_MODELS, Job
from experiments.train import Experiment

OPTIONS = ("--trainer.max_steps=6", "--data.batch_size=8")


@pytest.fixture
def weights_of(monkeypatch):
    """Trains a fold; gives the weights that its predictions would be made with."""

    def run(root, model: str, spoil=lambda experiment: None) -> dict[str, torch.Tensor]:
        experiment = Experiment(Job("flow_maps", model, root=str(root), options=OPTIONS))
        experiment.data.setup()
        spoil(experiment)
        seen = {}

        def keep(trainer, task):
            seen.update({name: tensor.clone() for name, tensor in task.state_dict().items()})
            return torch.full((len(experiment.data.folds["smic-s2"]), 3), 1 / 3)

        monkeypatch.setattr(callbacks, "predict", keep)
        experiment.train("smic-s2", seed=0)
        return seen

    return run


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def blind(experiment: Experiment) -> None:
    data = experiment.data
    data.store["flow"][data.folds["smic-s2"]] = torch.nan


def relabel(experiment: Experiment) -> None:
    data = experiment.data
    rows = data.folds["smic-s2"]
    data.store["target"][rows] = (data.store["target"][rows] + 1) % 3


@pytest.mark.parametrize("model", DEFAULT_MODELS)
def test_the_held_out_subject_changes_no_weight(flow_maps, own_flow_maps, weights_of, model):
    learnt = weights_of(flow_maps, model)
    assert same(learnt, weights_of(flow_maps, model))
    assert same(learnt, weights_of(flow_maps, model, blind))
    assert same(learnt, weights_of(flow_maps, model, relabel))

    def relabel_another(experiment):
        experiment.data.store["target"][0] = 2

    assert not same(learnt, weights_of(flow_maps, model, relabel_another))

    # Without its pictures and labels; one clip remains, or there would be no such fold.
    clips = pd.read_csv(own_flow_maps / "clips.csv")
    clips = clips[(clips["subject"] != "s2") | (clips["clip"] == "c0")]
    clips.to_csv(own_flow_maps / "clips.csv", index=False)
    assert same(learnt, weights_of(own_flow_maps, model))


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

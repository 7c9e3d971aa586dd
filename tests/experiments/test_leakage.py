"""What the held-out subject may not do: change what is learnt from the others."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from data_modules.cache import extract, store
from experiments import callbacks
from experiments.experiment import Experiment
from experiments.fold import train
from experiments.jobs import DEFAULT_MODELS, Job
from experiments.results import Fold
from tests import trees

FOLD = "casme2-sub02"
OPTIONS = ("--trainer.max_steps=4", "--data.batch_size=4", "--data.crop_size=32")
OF_MODEL = {
    "ahmsa_net": ("--data.batch_size=32",),  # a stack of smaller batches has more slots
    "hsta": ("--data.input_size=32",),
    "mfvan": ("--data.input_size=32", "--model.first_stage_steps=3", "--model.network.grid=2"),
}


@pytest.fixture(autouse=True)
def no_faces(monkeypatch):
    """Prepare clips as noise that depends on nothing but the clip."""

    def run(preparations, workers):
        for one, outcome in zip(preparations, trees.prepare_without_faces(preparations, workers)):
            draws = np.random.default_rng(list(one.target.name.encode()))
            tensors = {
                name: draws.normal(size=tensor.shape).astype(np.float32)
                if name == "flow"
                else draws.integers(256, size=tensor.shape).astype(tensor.dtype)
                for name, tensor in store.read(one.target).items()
            }
            store.write(one.target, tensors)
            yield outcome

    monkeypatch.setattr(extract, "run", run)


@pytest.fixture
def weights_of(monkeypatch, tmp_path):
    """Trains a fold, from an empty cache; gives the weights that its predictions would be made with."""

    def run(model: str, rows: list, spoil: Callable = lambda data: None) -> dict[str, torch.Tensor]:
        home = tmp_path / str(len(list(tmp_path.iterdir())))
        root = trees.casme2(home / "data", rows)
        options = (*OPTIONS, *OF_MODEL.get(model, ()))
        experiment = Experiment(Job("casme2", model, root=str(root), cache=str(home / "cache"), options=options))
        experiment.data.prepare_data()
        experiment.data.setup()
        spoil(experiment.data)
        seen = {}

        def keep(trainer, task, clips):
            seen.update({name: tensor.clone() for name, tensor in task.state_dict().items()})
            return torch.full((*clips["target"].shape, 5), 1 / 5)

        monkeypatch.setattr(callbacks, "predict", keep)
        monkeypatch.setattr(callbacks, "pictures", lambda trainer, task, clips: {})
        train(experiment, Fold(experiment.cell, FOLD, 0))
        assert all(weight.isfinite().all() for weight in seen.values())
        return seen

    return run


def same(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def blind(data) -> None:
    """Every frame and flow of the subject becomes NaN."""
    for name in data.inputs:
        data.store[name] = data.store[name].float()
        data.store[name][data.folds[FOLD]] = torch.nan


def relabel(data) -> None:
    data.store["target"][data.folds[FOLD]] = (data.store["target"][data.folds[FOLD]] + 1) % 5


def relabel_another(data) -> None:
    data.store["target"][0] = (data.store["target"][0] + 1) % 5


@pytest.mark.parametrize("model", DEFAULT_MODELS)
def test_the_held_out_subject_changes_no_weight(weights_of, model):
    rows = trees.casme2_rows()
    learnt = weights_of(model, rows)
    assert same(learnt, weights_of(model, rows, blind))
    assert same(learnt, weights_of(model, rows, relabel))
    assert not same(learnt, weights_of(model, rows, relabel_another))
    # Without its pictures and labels; one clip remains, or there would be no such fold.
    others = [row for row in rows if row[0] != "02"]
    assert same(learnt, weights_of(model, sorted([*others, next(row for row in rows if row[0] == "02")])))

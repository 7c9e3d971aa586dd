"""What a fold leaves is taken while the trainer holds the device: what becomes of the weights then changes nothing.

Lightning takes the weights off a GPU in the teardown at the end of ``fit``; here the teardown spoils them.
"""

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from rich.console import Console

import data_modules
from experiments import fold, search, workers
from experiments.experiment import Experiment
from experiments.fold import Outcome, train, train_stack
from experiments.jobs import Job
from experiments.results import Fold

OPTIONS = ("--trainer.max_steps=4", "--data.batch_size=8", "--data.input_size=32")
MODELS = {
    "ahmsa_net": ("--model.network.finest=16", "--model.ema_decay=0.5"),
    "hsta": ("--model.ema_decay=0.5",),
    "mfvan": ("--model.network.grid=2", "--model.first_stage_steps=3", "--model.ema_decay=0.5"),
    "ststnet": (),
    "timm_baseline": ("--model.network.name=test_resnet",),
}


class Spoiling(SingleDeviceStrategy):
    """A CPU whose weights are useless when training has ended: NaN, or on a device that cannot compute."""

    def __init__(self, way: str):
        super().__init__(torch.device("cpu"))
        self.way = way

    def teardown(self) -> None:
        module = self.lightning_module
        super().teardown()
        if self.way == "elsewhere":
            module.to("meta")
        for tensor in (*module.parameters(), *module.buffers()) if self.way == "nan" else ():
            tensor.detach().fill_(torch.nan if tensor.is_floating_point() else -1)


@pytest.fixture
def spoil(monkeypatch):
    """Lets trainers spoil their weights from now on, in one of two ways."""

    def spoil(way: str) -> None:
        monkeypatch.setattr(fold, "Trainer", lambda **options: Trainer(**{**options, "strategy": Spoiling(way)}))

    return spoil


def assert_same(outcome: Outcome, expected: Outcome) -> None:
    assert outcome.predictions.equals(expected.predictions)
    assert outcome.facts["curve"] == expected.facts["curve"]
    assert outcome.pictures.keys() == expected.pictures.keys()
    assert all((outcome.pictures[name] == maps).all() for name, maps in expected.pictures.items())


@pytest.mark.parametrize(
    ("model", "stacked"),
    [*((model, False) for model in MODELS), ("ahmsa_net", True), ("hsta", True), ("ststnet", True)],
)
def test_a_spoilt_teardown_changes_nothing(flow_maps, tmp_path, monkeypatch, spoil, model, stacked):
    monkeypatch.setitem(data_modules.DATASETS, "flow_maps", "tests.filmed.Filmed")

    def outcomes(cache: str) -> list[Outcome]:
        options = (*OPTIONS, *MODELS[model], f"--stacked={stacked}")
        if stacked:  # on a CPU a stack of smaller batches is filled with more slots
            options = (*options, "--data.batch_size=32")
        chosen = Experiment(Job("flow_maps", model, root=str(flow_maps), cache=str(tmp_path / cache), options=options))
        if stacked:
            return train_stack(chosen, [Fold(chosen.cell, "smic-s1", 0), Fold(chosen.cell, "smic-s2", 1)])
        return [train(chosen, Fold(chosen.cell, "smic-s1", 0))]

    whole = outcomes("whole")
    for way in ("nan", "elsewhere"):
        spoil(way)
        for outcome, expected in zip(outcomes(way), whole, strict=True):
            assert_same(outcome, expected)


def test_a_search_stands_a_spoilt_teardown(flow_maps, tmp_path, spoil, monkeypatch):
    monkeypatch.setattr(workers, "run", lambda work, jobs, devices: enumerate(work(*job) for job in jobs))
    monkeypatch.setattr(search, "OUTER", 3)
    monkeypatch.setattr(search, "INNER", 2)

    def results(name: str) -> dict[str, bytes]:
        options = ("--trainer.max_steps=2", "--data.batch_size=8", "--stacked=false")
        job = Job("flow_maps", "ststnet", root=str(flow_maps), results=str(tmp_path / name), options=options)
        assert search.search(job, (0,), ("cpu",), Console(quiet=True), trials=1) == 0
        return {file.name: file.read_bytes() for file in (tmp_path / name).glob("flow_maps/*/*/*/*/*.csv")}

    whole = results("whole")
    spoil("nan")
    assert results("spoilt") == whole and len(whole) == 3

"""Recorded steps, with a stand-in for the GPU that records: see ``tests/recording.py``."""

import pytest
import torch

import data_modules
from experiments.experiment import Experiment
from experiments.fold import train_stack
from experiments.jobs import Job
from experiments.results import Fold
from mer.training import recorded_step
from mer.training.recorded_step import WARM_UP, RecordedStep
from tests.recording import Cuda

OPTIONS = ("--stacked=true", "--trainer.max_steps=6", "--data.batch_size=32", "--data.shift=1")
MODELS = {
    "ahmsa_net": ("--model.ema_decay=0.5", "--trainer.gradient_clip_val=0.1"),
    "hsta": ("--data.input_size=24", "--model.network.stages=1", "--model.network.dropout=0.1"),
    "ststnet": ("--model.class_weight_power=0.5",),
    "timm_baseline": ("--model.network.name=test_resnet", "--data.input_size=16"),
}


@pytest.fixture(autouse=True)
def one_thread():
    """As in a worker."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def recording(monkeypatch):
    monkeypatch.setattr(recorded_step, "cuda", Cuda)
    monkeypatch.setattr(recorded_step, "RECORDING", ("cpu",))


def test_a_replay_reads_the_new_inputs_and_leaves_a_trace_of_every_call(recording):
    counter, seen = torch.zeros(()), []

    def function(inputs):
        seen.append(1)
        counter.add_(1)
        return inputs["x"] * 2 + counter

    step = RecordedStep(function)
    outputs = [step({"x": torch.full((3,), float(number))}).clone() for number in range(8)]
    assert torch.equal(torch.stack(outputs)[:, 0], torch.arange(8) * 2.0 + torch.arange(1, 9))
    assert len(seen) == WARM_UP + 1 and step.graph.replays == 8 - WARM_UP and counter == 8


@pytest.mark.parametrize(
    "function", [lambda inputs: inputs["x"] * inputs["x"].sum().item(), lambda i: i["x"].bernoulli()]
)
def test_what_cannot_be_recorded_is_called(recording, function):
    step = RecordedStep(function)
    with pytest.warns(UserWarning, match="cannot be recorded") as warned:
        for _ in range(WARM_UP + 3):
            assert step({"x": torch.ones(2)}).shape == (2,)
    assert len(warned) == 1 and step.graph is None


def test_a_full_memory_is_not_taken_for_that(recording):
    def function(inputs):
        if step.calls >= WARM_UP:
            raise torch.OutOfMemoryError("no memory left")
        return inputs["x"]

    step = RecordedStep(function)
    with pytest.raises(torch.OutOfMemoryError):
        for _ in range(WARM_UP + 1):
            step({"x": torch.ones(2)})


@pytest.mark.parametrize("model", MODELS)
def test_a_recorded_stack_learns_what_a_stack_learns(model, flow_maps, monkeypatch, request):
    monkeypatch.setitem(data_modules.DATASETS, "flow_maps", "tests.filmed.Filmed")

    def outcomes():
        job = Job("flow_maps", model, root=str(flow_maps), options=(*OPTIONS, *MODELS[model]))
        experiment = Experiment(job)
        return train_stack(experiment, [Fold(experiment.cell, "smic-s1", 0), Fold(experiment.cell, "smic-s2", 1)])

    plain = outcomes()
    request.getfixturevalue("recording")
    replays, record = [], Cuda.CUDAGraph.replay
    monkeypatch.setattr(Cuda.CUDAGraph, "replay", lambda graph: replays.append(record(graph)))
    for recorded, expected in zip(outcomes(), plain, strict=True):
        assert recorded.predictions.equals(expected.predictions) and recorded.facts["curve"] == expected.facts["curve"]
    assert len(replays) == 6 - WARM_UP

"""``mer sweep --dry-run``."""

import re

import pytest
import torch

from experiments import plan, workers
from experiments.cli import main
from experiments.experiment import Experiment
from experiments.jobs import Job

timed = plan._timed
SMALL = ("--model.network.widths=[4,8]", "--model.network.depths=[1,1]", "--model.network.heads=[1,2]")


@pytest.fixture(autouse=True)
def trained(monkeypatch) -> list:
    """For every step: the leading dimensions of the batch, the threads, and whether it is in bfloat16."""
    steps = []

    class Watch(plan.Clock):
        def on_train_batch_end(self, trainer, task, outputs, batch, index):
            steps.append((tuple(batch["flow"].shape[:-3]), torch.get_num_threads(), trainer.precision == "bf16-mixed"))
            super().on_train_batch_end(trainer)

    monkeypatch.setattr(plan, "Clock", Watch)
    return steps


def build(root, model: str, *options: str) -> Experiment:
    return Experiment(Job("flow_maps", model, root=str(root), options=options))


def test_a_stacked_recipe_is_timed_as_a_stack(flow_maps, monkeypatch, trained):
    experiment = build(flow_maps, "ahmsa_net", *SMALL, "--data.batch_size=16", "--trainer.precision=bf16-mixed")
    threads = torch.get_num_threads()
    monkeypatch.setattr(plan, "_timed", lambda *given: 0.5 * (timed(*given) > 0))
    estimate = plan.estimate(experiment, experiment.folds(range(4)), ["cpu", "cpu"])
    assert estimate == plan.Estimate(0.5 * 300 / 6, stack=6)  # twelve folds, six for each worker
    assert set(trained) == {((8, clips), 1, True) for clips in (2, 16)}  # eight slots leave nothing over
    assert torch.get_num_threads() == threads and not experiment.data.store and experiment.data.batch_size == 16
    assert plan.estimate(experiment, experiment.folds(range(9)), ["cpu", "cpu"]).stack == workers.FEW


def test_a_stack_that_does_not_fit_is_halved(flow_maps, monkeypatch):
    def short(task, *others):
        if task.network.size > 2:
            raise torch.OutOfMemoryError("no memory left")
        return 0.1

    monkeypatch.setattr(plan, "_timed", short)
    experiment = build(flow_maps, "ststnet", "--stacked=true", "--trainer.max_steps=10", "--data.batch_size=32")
    assert plan.estimate(experiment, experiment.folds(range(3)), ["cpu"]) == plan.Estimate(0.5, stack=2)


@pytest.mark.parametrize(
    ("options", "steps"),
    [(("--trainer.max_steps=50",), 50), (("--trainer.max_epochs=4", "--data.batch_size=8"), 8)],
)
def test_a_fold_alone_takes_all_its_steps(flow_maps, monkeypatch, options, steps):
    monkeypatch.setattr(plan, "_timed", lambda *given: 0.01 * (timed(*given) > 0))
    experiment = build(flow_maps, "ststnet", *options)
    if steps == 8:
        experiment.config.trainer.max_steps = -1
    assert plan.estimate(experiment, experiment.folds(), ["cpu"]).seconds == pytest.approx(0.01 * steps)


def test_a_long_step_is_estimated_from_a_few_clips(flow_maps, monkeypatch):
    monkeypatch.setattr(plan, "_timed", lambda task, data, arguments: 4.0 * data.data.batch_size)
    experiment = build(flow_maps, "ststnet", "--data.batch_size=32", "--trainer.max_steps=10")
    assert plan.estimate(experiment, experiment.folds(), ["cpu"]).seconds == 4.0 * 32 * 10
    assert experiment.data.batch_size == 32


def test_a_clock_takes_the_median_of_the_later_steps():
    clock = plan.Clock(steps=4)
    clock.ends = [0.0, 9.0, 10.0, 10.5, 11.1]
    assert clock.seconds == pytest.approx(0.55)
    clock.ends = clock.ends[:2]
    assert clock.seconds == 9.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(30, "0.5 min"), (7200, "120.0 min"), (7260, "2 hours"), (133_200, "37 hours"), (8e6, "2,222 hours")],
)
def test_long_times_are_in_hours(seconds, words):
    assert plan.duration(seconds) == words


def test_devices_are_counted():
    assert [plan.named(devices) for devices in (["0"], ["0", "3"], ["cpu"] * 2)] == ["1 GPU", "2 GPUs", "2 cores"]


def test_a_dry_run_prints_folds_and_times(flow_maps, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plan, "_timed", lambda *given: 60.0)
    arguments = ["--dataset", "flow_maps", "--root", str(flow_maps), "--model", "ststnet", "--seeds", "0,1"]
    arguments += ["--results", str(tmp_path), "--workers", "2", "--dry-run", "--trainer.max_steps=100"]
    assert main(["sweep", *arguments, "--devices", "cpu"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"flow_maps megc2019 ststnet-\w+: 6 folds, 0 done, 6 to train, about 192,000 s each", first)
    assert last == "6 folds to train, about 160 hours on 2 cores"
    assert not any(tmp_path.iterdir())

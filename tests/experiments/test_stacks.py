"""Folds trained as a stack are the folds trained one by one, whatever the stack."""

import gc
import weakref

import pandas as pd
import pytest
import torch

import data_modules
from experiments import fold, workers
from experiments.cli import main
from experiments.experiment import Experiment
from experiments.fold import fit, train, train_stack
from experiments.jobs import Job
from experiments.results import Fold
from mer import InputError
from mer.training import stacked_task
from mer.training.stacked_task import CPU_CHUNK, StackedTask, padded_size
from tests.conftest import write_flow_maps

P = ["p_negative", "p_positive", "p_surprise"]
SMALL = {
    "ahmsa_net": ("--model.network.widths=[4,8]", "--model.network.depths=[1,1]", "--model.network.heads=[1,2]"),
    "hsta": ("--data.input_size=26", "--model.layer_decay=0.8", "--model.network.drop_path=0.3"),
    "ststnet": ("--trainer.gradient_clip_val=0.5",),
    "timm_baseline": ("--model.network.name=test_resnet",),
}
CALM = {  # no dropout, no drop-path
    "ahmsa_net": ("--model.network.dropout=0", "--model.network.drop_path=0", "--model.network.feature_dropout=0"),
    "hsta": ("--model.network.drop_path=0",),
    "ststnet": ("--model.network.dropout=0",),
    "timm_baseline": (),
}
EXACT = ("--trainer.precision=64-true", "--trainer.gradient_clip_val=0.1")
UNITS = "--model.action_units=0.5"
STEPS = 6  # of 18 clips 15 to 17 are trained on, 16 are in a batch: three to six passes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Eight subjects of one to three clips: passes differ in length, classes in number, and not all have codes."""
    root = write_flow_maps(tmp_path_factory.mktemp("data") / "flow_maps", subjects=8, clips=3)
    clips = pd.read_csv(root / "clips.csv")
    gone = clips["subject"].eq("s1") & clips["clip"].ne("c0")
    gone |= clips["subject"].isin(["s5", "s6", "s7", "s8"]) & clips["clip"].eq("c2")
    clips["action_units"] = clips["emotion"].map({"negative": "4+L7", "positive": "R12", "surprise": ""})
    clips[~gone].to_csv(root / "clips.csv", index=False)
    return root


@pytest.fixture(autouse=True)
def as_in_a_worker(monkeypatch):
    monkeypatch.setitem(data_modules.DATASETS, "flow_maps", "tests.filmed.Filmed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def experiment(root, model: str, *options: str, clips: int = 16, steps: int = STEPS, **others) -> Experiment:
    size = (f"--data.batch_size={clips}", f"--trainer.max_steps={steps}")
    return Experiment(
        Job("flow_maps", model, root=str(root), options=(*size, *SMALL.get(model, ()), *options), **others)
    )


class Stopped(BaseException):
    """As a signal would, and nothing else here does."""


def folds_of(chosen: Experiment) -> list[Fold]:
    return [Fold(chosen.cell, name, index % 2) for index, name in enumerate(chosen.data.folds)]


@pytest.mark.parametrize(
    ("model", "options"),
    [
        *((model, ()) for model in SMALL),
        ("hsta", ("--model.network.special=depth", "--model.network.stages=1")),
        ("ststnet", EXACT),
        ("ahmsa_net", EXACT),
        ("ahmsa_net", (UNITS,)),
        ("ststnet", (UNITS, *EXACT)),
    ],
)
def test_a_stack_of_eight_is_eight_folds(root, model, options):
    options = (*CALM[model], *options)
    alone, together = (experiment(root, model, *options, f"--stacked={stacked}") for stacked in ("false", "true"))
    assert alone.digest != together.digest
    near = 1e-6 if EXACT[0] in options else 1e-4
    folds = folds_of(alone)
    for slot, stacked in zip(folds, train_stack(together, folds), strict=True):
        single = train(alone, slot)
        apart = (stacked.predictions[P] - single.predictions[P]).abs().to_numpy().max()
        assert apart < near, slot
        assert stacked.predictions["clip"].tolist() == single.predictions["clip"].tolist()
        assert stacked.predictions["optimistic_prediction"].equals(single.predictions["optimistic_prediction"])
        assert stacked.pictures.keys() == single.pictures.keys() >= {"flow"}
        for name, maps in single.pictures.items():
            torch.testing.assert_close(torch.tensor(stacked.pictures[name]), torch.tensor(maps), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("ahmsa_net", ()),
        ("ahmsa_net", (UNITS,)),
        ("hsta", ()),
        ("ststnet", ()),
        ("ststnet", (UNITS,)),
        (
            "timm_baseline",
            ("--model.network.name=test_efficientnet",),
        ),  # it weighs its maps by what they have in one pixel
    ],
)
def test_neither_size_nor_order_of_a_stack_changes_a_bit(root, model, options):
    chosen = experiment(root, model, "--stacked=true", *options, clips=32, steps=2)
    folds = folds_of(chosen)
    whole = dict(zip(folds, train_stack(chosen, folds), strict=True))
    for part in (folds[5:1:-1], folds[1:3], folds[7:]):
        for slot, outcome in zip(part, train_stack(chosen, part), strict=True):
            assert outcome.predictions.equals(whole[slot].predictions)


@pytest.mark.parametrize("options", [(), (UNITS,)])
@pytest.mark.parametrize("model", ["ahmsa_net", "ststnet"])
def test_neither_size_nor_order_of_a_stack_changes_a_bit_of_the_weights(root, monkeypatch, model, options):
    """Widths of the recipe: weights of 3, 9 and 18 numbers, which fill no vector of a CPU."""
    monkeypatch.delitem(SMALL, model)
    chosen = experiment(root, model, "--stacked=true", *options, clips=32, steps=10)
    whole = fit(chosen, range(8))
    for seeds in ([1, 0], [5, 2, 7, 4]):
        for seed, weights in zip(seeds, fit(chosen, seeds), strict=True):
            assert [name for name in weights if (weights[name] != whole[seed][name]).any()] == []


@pytest.mark.parametrize("clips", [1, 8, 10, 16, 32, 33, 64, 256])
def test_a_stack_leaves_nothing_over(clips):
    for slots in (1, 2, 5, 68):
        size = padded_size(slots, clips, cpu=True)
        assert size >= max(2, slots) and size % 2 == 0 and size * clips % CPU_CHUNK == 0
    assert (padded_size(1, clips, cpu=False), padded_size(5, clips, cpu=False)) == (2, 5)


@pytest.mark.parametrize(("model", "options"), [("ststnet", ()), ("hsta", ("--model.network.stages=1",))])
def test_a_stack_learns_in_bfloat16(root, monkeypatch, model, options):
    monkeypatch.setattr(stacked_task, "CURVE_INTERVAL", 3)
    chosen = experiment(root, model, "--stacked=true", "--trainer.precision=bf16-mixed", *options, steps=3)
    outcome, _ = train_stack(chosen, folds_of(chosen)[:2])
    losses = [row["train/loss"] for row in outcome.facts["curve"]]
    assert len(losses) == 1 and 0 < losses[0] < 2
    assert outcome.predictions[P].sum(axis=1).tolist() == pytest.approx([1])


@pytest.mark.parametrize(
    ("model", "option", "words"),
    [
        ("timm_baseline", "--model.network.drop_rate=0.2", "TimmBaseline cannot be stacked: vmap"),
        ("hsta", "--model.network.checkpoint=true", "HSTA cannot be stacked"),
        ("ststnet", "--trainer.max_epochs=3", "counts steps"),
        ("ststnet", "--trainer.precision=16-mixed", "bf16-mixed"),
        ("ststnet", "--trainer.strategy=ddp", "one process on one device"),
        ("ststnet", "--trainer.accumulate_grad_batches=2", "accumulates no gradients"),
    ],
)
def test_what_cannot_be_stacked_says_why(root, model, option, words):
    with pytest.raises(InputError, match=words):
        experiment(root, model, "--stacked=true", option)


def test_a_stack_that_has_ended_holds_no_memory(root, monkeypatch):
    stacks, start = [], StackedTask.on_fit_start
    monkeypatch.setattr(StackedTask, "on_fit_start", lambda stack: stacks.append(weakref.ref(stack)) or start(stack))
    trained = experiment(root, "ststnet", "--stacked=true", steps=1)
    train_stack(trained, folds_of(trained)[:2])
    gc.collect()
    assert [stack() for stack in stacks] == [None]


def test_a_size_of_stacks_needs_stacks(root, tmp_path, capsys):
    shared = ["--dataset", "flow_maps", "--root", str(root), "--model", "ststnet", "--results", str(tmp_path)]
    assert main(["sweep", *shared, "--stack-size", "4"]) == 2
    assert "add --stacked" in capsys.readouterr().err


def test_a_stack_that_does_not_fit_is_halved(root, tmp_path, monkeypatch):
    chosen = experiment(root, "ststnet", "--stacked=true", steps=1, results=str(tmp_path), stack_size=8)
    tried = []

    def short(experiment, folds):
        tried.append(len(folds))
        if len(folds) > 3:
            raise torch.OutOfMemoryError("no memory left")
        return train_stack(experiment, folds)

    monkeypatch.setattr(fold, "train_stack", short)
    monkeypatch.setattr(workers, "latest_experiment", lambda job, config: chosen)
    chosen.cell.write_header(chosen.data.clips, chosen.yaml)
    folds = folds_of(chosen)[:5]
    workers.run_folds(chosen.job, chosen.config, folds)
    assert tried == [5, 2, 2, 1]
    assert all(fold.is_done for fold in folds)
    workers.run_folds(chosen.job, chosen.config, folds)  # what is done is not done again
    assert len(tried) == 4


@pytest.mark.parametrize(("place", "done"), [("training", 3), ("writing", 4)])
def test_what_an_interrupted_stack_has_finished_is_kept(root, tmp_path, monkeypatch, place, done):
    """Stopped in the second of three stacks, in a step or between two files; then run again."""

    def files(name: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / name).glob("*/*/loso/*/seed*/*.csv")}

    def run(name: str, stops: bool = False) -> None:
        sizes = {"clips": 32, "steps": 4, "stack_size": 3}
        chosen = experiment(root, "ststnet", "--stacked=true", results=str(tmp_path / name), **sizes)
        monkeypatch.setattr(workers, "latest_experiment", lambda job, config: chosen)
        chosen.cell.write_header(chosen.data.clips, chosen.yaml)
        folds, begun = chosen.folds(), []
        with monkeypatch.context() as patched:
            step, write = StackedTask.training_step, Fold.write

            def stopped_step(task, *batch):
                begun.append(task)
                if stops and place == "training" and len(begun) == 6:  # the second step of the second stack
                    raise Stopped
                return step(task, *batch)

            def stopped_write(*result):
                if stops and len(files(name)) == done:
                    raise Stopped
                write(*result)

            patched.setattr(StackedTask, "training_step", stopped_step)
            patched.setattr(Fold, "write", stopped_write)
            workers.run_folds(chosen.job, chosen.config, folds)

    run("whole")
    with pytest.raises(Stopped):
        run("parts", stops=True)
    kept = files("parts")
    assert len(kept) == done and len(files("whole")) == 8
    run("parts")  # the stacks that are left hold other folds than before
    assert files("parts") == files("whole")
    assert {name: files("parts")[name] for name in kept} == kept


def test_a_stacked_sweep_gives_the_folds_of_mer_train(root, tmp_path, capsys, monkeypatch):
    monkeypatch.undo()  # the workers know the real data
    shared = ["--dataset", "flow_maps", "--root", str(root), "--model", "ststnet", "--stacked"]
    shared += ["--trainer.max_steps=4", "--data.batch_size=32"]

    def files(results) -> dict[str, bytes]:
        return {str(path.relative_to(results)): path.read_bytes() for path in results.glob("*/*/loso/*/seed*/*.csv")}

    whole, parts, one = (tmp_path / name for name in ("whole", "parts", "one"))
    assert main(["sweep", *shared, "--results", str(whole), "--workers", "1"]) == 0
    assert "8 of 8 folds" in capsys.readouterr().out
    assert main(["sweep", *shared, "--results", str(parts), "--workers", "2", "--stack-size", "3"]) == 0
    assert main(["train", *shared, "--results", str(one), "--fold", "smic-s5"]) == 0
    assert files(whole) == files(parts) and len(files(whole)) == 8
    ((name, content),) = files(one).items()
    assert files(whole)[name] == content

"""The weights that ``mer fit`` writes: those of every seed, trained with all subjects."""

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from data_modules.base import NOBODY
from data_modules.batches import Batches
from experiments.cli import main
from experiments.experiment import Experiment
from experiments.jobs import Job
from mer.trained import load
from mer.training.task import Task
from tests import fitted
from tests.experiments.fitting.command import FEW, FILES, contents, experiment, names_nothing, run


def test_the_weights_of_all_seeds_are_there(place):
    folder = place / "models/flow_maps-ststnet"
    assert sorted(contents(folder)) == FILES
    tensors = load_file(folder / "model.safetensors")
    by_seed = [{name for name in tensors if name.startswith(f"seed{seed}.")} for seed in (0, 1)]
    assert len(by_seed[0]) == len(by_seed[1]) == len(tensors) / 2
    model = load(folder, "cpu")
    assert len(model.tasks) == 2 and model.classes == ("negative", "positive", "surprise")
    probabilities, _ = model.classify({"flow": torch.randn(3, 28, 28, generator=torch.Generator().manual_seed(0))})
    assert probabilities.shape == (2, 3) and not np.array_equal(*probabilities)


@pytest.mark.parametrize("model", ["ststnet", "ahmsa_net"])  # seeds one by one, and as one program
def test_the_same_seeds_give_the_same_bytes_for_any_number_of_workers(flow_maps, place, tmp_path, model):
    if model == "ahmsa_net":
        place = tmp_path / "first"
        assert run(flow_maps, place, model=model) == 0
    assert run(flow_maps, tmp_path, "--workers", "1", model=model) == 0
    name = f"flow_maps-{model}"
    assert contents(tmp_path / "models" / name) == contents(place / "models" / name)
    assert run(flow_maps, tmp_path / "alone", model=model, seeds="1") == 0
    alone, both = (load_file(folder / "models" / name / FILES[2]) for folder in (tmp_path / "alone", place))
    assert alone
    for key, x in alone.items():  # in a stack the place of a seed decides where its numbers lie, and so how they round
        np.testing.assert_allclose(both[key], x, rtol=0, atol=0 if model == "ststnet" else 1e-6)


def test_stacked_or_not_is_nearly_the_same(flow_maps, tmp_path):
    weights = []
    for stacked in ("false", "true"):
        options = (f"--stacked={stacked}", "--model.network.dropout=0", *FEW)
        job = Job("flow_maps", "ststnet", root=str(flow_maps), cache=str(tmp_path), options=options)
        weights.append(fitted.weights(Experiment(job), (0, 2)))
    for seed in (0, 2):
        single, stacked = (each[seed] for each in weights)
        assert single.keys() == stacked.keys()
        for name in single:
            np.testing.assert_allclose(stacked[name], single[name], atol=1e-4)


@pytest.mark.parametrize("stacked", ["false", "true"])
def test_the_moving_average_is_what_is_written(flow_maps, stacked):
    options = ("--model.schedule=constant", "--model.warmup=0", f"--stacked={stacked}", "--data.batch_size=16")
    (averaged,) = fitted.weights(experiment(flow_maps, "--model.ema_decay=0.6", *options, steps=2), (0,)).values()
    steps = [fitted.weights(experiment(flow_maps, *options, steps=steps), (0,))[0] for steps in (1, 2)]
    for name, average in averaged.items():
        if np.issubdtype(average.dtype, np.floating):
            first, second = (weights[name] for weights in steps)
            np.testing.assert_allclose(average, 0.6 * first + 0.4 * second, atol=1e-6)
            assert not np.allclose(average, second, atol=1e-6) or np.allclose(first, second, atol=1e-6)


def test_nobody_is_held_out(flow_maps, monkeypatch):
    chosen, drawn, draw = experiment(flow_maps, steps=2), [], Batches.draw

    def watched(self):
        rows, changes = draw(self)
        drawn.extend(rows.tolist())
        return rows, changes

    monkeypatch.setattr(Batches, "draw", watched)
    fitted.weights(chosen, (0,))
    assert chosen.data.fold == NOBODY and chosen.data.test_rows == []
    assert sorted(drawn) == list(range(18))  # two batches of nine are one pass


def test_classes_are_weighted_by_all_clips(own_flow_maps, monkeypatch):
    clips = pd.read_csv(own_flow_maps / "clips.csv")
    clips[(clips["emotion"] != "surprise") | (clips["subject"] == "s1")].to_csv(
        own_flow_maps / "clips.csv", index=False
    )
    counted, weigh = [], Task.rarity_weights

    def watched(self, targets, num_classes):
        counted.append(torch.bincount(targets).tolist())
        return weigh(self, targets, num_classes)

    monkeypatch.setattr(Task, "rarity_weights", watched)
    weighted, plain = (
        fitted.weights(experiment(own_flow_maps, f"--model.class_weight_power={power}"), (0,))[0] for power in (1, 0)
    )
    assert counted == [[6, 6, 2]]
    assert any(not np.array_equal(x, plain[name]) for name, x in weighted.items())


def test_the_first_stage_of_mfvan_is_trained_for_each_seed_and_kept(films, films_cache, tmp_path):
    words = ["fit", "--dataset", "synthetic", "--root", str(films), "--model", "mfvan", "--seeds", "5,6", "--workers"]
    words += ["2", "--devices", "cpu", "--results", str(tmp_path), "--cache", str(films_cache), *fitted.FEW]
    words += ["--model.first_stage_steps=3", "--model.network.grid=2", "--data.input_size=32"]
    assert main([*words, "--models", str(tmp_path / "a")]) == 0
    kept = sorted(films_cache.glob(f"synthetic/first_stage/{NOBODY}-seed[56]-*.safetensors"))
    assert [path.name.split("-")[1] for path in kept] == ["seed5", "seed6"]
    kept[0].unlink()
    assert main([*words, "--models", str(tmp_path / "b")]) == 0  # one first stage is read, the other is trained again
    assert contents(tmp_path / "a/synthetic-mfvan") == contents(tmp_path / "b/synthetic-mfvan")
    assert len(load(tmp_path / "a/synthetic-mfvan", "cpu").tasks) == 2
    names_nothing(tmp_path / "a/synthetic-mfvan", films, r"\bsub0\d|EP\d\d_|img\d")

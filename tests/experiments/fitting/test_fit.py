"""The command ``mer fit``: the weights, how the folder appears, what it is refused, and its card."""

import errno
import json
import os
import re
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.numpy import load_file

from data_modules.base import NOBODY
from data_modules.batches import Batches
from data_modules.processes import pool
from data_modules.processes.pool import Failure
from data_modules.processes.whole_files import WriteError
from experiments import workers
from experiments.cli import main
from experiments.experiment import Experiment
from experiments.fitting import card
from experiments.fitting import fit as fitting
from experiments.jobs import Job
from mer.trained import load
from mer.training.task import Task
from tests import fitted

FEW = ("--trainer.max_steps=4", "--data.batch_size=8")
FILES = ["README.md", "config.yaml", "model.safetensors"]


def run(root: Path, place: Path, *more: str, model: str = "ststnet", command: str = "fit", seeds: str = "0,1") -> int:
    """A command on flow maps, with its results, cache and models in a folder."""
    own = ["--models", str(place / "models")] if command == "fit" else []
    shared = ["--dataset", "flow_maps", "--root", str(root), "--model", model, "--results", str(place / "results")]
    shared += ["--cache", str(place / "cache"), "--seeds", seeds, "--devices", "cpu", *own]
    return main([command, *shared, *FEW, *(("--workers", "2") if "--workers" not in more else ()), *more])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def folders(place: Path) -> list[str]:
    """What lies in the folder of models, hidden files too."""
    return sorted(os.listdir(place / "models")) if (place / "models").exists() else []


def body(folder: Path) -> str:
    """A card without its header."""
    return (folder / "README.md").read_text().split("---\n", 2)[2]


@pytest.fixture(scope="module")
def place(flow_maps, tmp_path_factory) -> Path:
    """A folder in which STSTNet has been fitted with the seeds 0 and 1. Read only."""
    folder = tmp_path_factory.mktemp("fitted")
    assert run(flow_maps, folder) == 0
    return folder


@pytest.fixture
def own(place, tmp_path) -> Path:
    """A copy, to change."""
    return Path(shutil.copytree(place, tmp_path / "own"))


@pytest.fixture
def nothing_is_trained(monkeypatch):
    monkeypatch.setattr(workers, "run", lambda *_: pytest.fail("trained again"))


# The weights


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


def experiment(root: Path, *options: str, steps: int = 4) -> Experiment:
    size = (f"--trainer.max_steps={steps}", "--data.batch_size=9", "--model.network.dropout=0")
    return Experiment(Job("flow_maps", "ststnet", root=str(root), options=(*size, *options)))


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
    words += ["--model.first_stage_steps=3"]
    assert main([*words, "--models", str(tmp_path / "a")]) == 0
    kept = sorted(films_cache.glob(f"synthetic/first_stage/{NOBODY}-seed[56]-*.safetensors"))
    assert [path.name.split("-")[1] for path in kept] == ["seed5", "seed6"]
    kept[0].unlink()
    assert main([*words, "--models", str(tmp_path / "b")]) == 0  # one first stage is read, the other is trained again
    assert contents(tmp_path / "a/synthetic-mfvan") == contents(tmp_path / "b/synthetic-mfvan")
    assert len(load(tmp_path / "a/synthetic-mfvan", "cpu").tasks) == 2
    _names_nothing(tmp_path / "a/synthetic-mfvan", films, r"\bsub0\d|EP\d\d_|img\d")


# The folder appears whole or not at all


def test_a_training_that_fails_leaves_nothing(flow_maps, tmp_path, monkeypatch, capsys):
    assert run(flow_maps, tmp_path, "--model.lr=1e30") == 2
    assert "flow_maps-ststnet, seed 0" in (said := capsys.readouterr().err) and "diverged" in said
    assert not folders(tmp_path)
    for expected in (True, False):

        def broken(*_, expected=expected):
            yield 0, Failure("it broke", expected)

        monkeypatch.setattr(workers, "run", broken)
        if expected:
            assert run(flow_maps, tmp_path) == 2 and "mer: it broke" in capsys.readouterr().err
        else:
            with pytest.raises(RuntimeError, match="it broke"):
                run(flow_maps, tmp_path)
        assert not folders(tmp_path)


def die_while_writing(root: str, models: str) -> None:
    """Killed when the weights are written and the card is not."""
    card.card = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    fitted.write(Path(models, "flow_maps-ststnet"), experiment(Path(root), steps=1), (0,))


def test_killed_while_it_writes_it_leaves_no_model_and_the_next_one_tidies(flow_maps, tmp_path):
    process = pool.start(die_while_writing, str(flow_maps), str(tmp_path / "models"))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (left,) = folders(tmp_path)
    assert left.startswith(".flow_maps-ststnet.") and left.endswith(".tmp")
    assert (tmp_path / "models" / left / "model.safetensors").exists()
    assert run(flow_maps, tmp_path) == 0
    assert folders(tmp_path) == ["flow_maps-ststnet"]
    assert sorted(contents(tmp_path / "models/flow_maps-ststnet")) == FILES


@pytest.mark.parametrize("file", FILES)
def test_a_full_disk_leaves_nothing(flow_maps, place, tmp_path, monkeypatch, capsys, file):
    write = {name: getattr(Path, name) for name in ("write_bytes", "write_text")}

    def full(name):
        def fill(path, content, *more, **others):
            if path.name == file:
                write[name](path, content[:10])
                raise OSError(errno.ENOSPC, "No space left on device")
            return write[name](path, content, *more, **others)

        return fill

    for name in write:
        monkeypatch.setattr(Path, name, full(name))
    _trained_before(monkeypatch, place)
    assert run(flow_maps, tmp_path) == 2
    said = capsys.readouterr().err
    assert "models/flow_maps-ststnet cannot be written: the disk is full; free some space" in said
    assert not folders(tmp_path)


def _trained_before(monkeypatch, place: Path) -> None:
    """Have the workers return what they have trained for ``place``."""
    tensors = load_file(place / "models/flow_maps-ststnet/model.safetensors")

    def trained(work, jobs, devices):
        for index, (*_, (seed,)) in enumerate(jobs):
            start = f"seed{seed}."
            yield index, [{key.removeprefix(start): x for key, x in tensors.items() if key.startswith(start)}]

    monkeypatch.setattr(workers, "run", trained)


def test_a_folder_that_another_process_makes_meanwhile_stays(flow_maps, place, tmp_path, monkeypatch, capsys):
    other = tmp_path / "models/flow_maps-ststnet"
    right = card.card

    def slow(*arguments):
        other.mkdir()
        (other / "README.md").write_text("another")
        return right(*arguments)

    monkeypatch.setattr(card, "card", slow)
    _trained_before(monkeypatch, place)
    assert run(flow_maps, tmp_path) == 2
    assert "was made by another process meanwhile; run the same command again" in capsys.readouterr().err
    assert folders(tmp_path) == ["flow_maps-ststnet"] and contents(other) == {"README.md": b"another"}


@pytest.mark.parametrize("kind", ["file", "read-only parent"])
def test_models_that_cannot_be_written(flow_maps, place, tmp_path, monkeypatch, capsys, kind):
    _trained_before(monkeypatch, place)
    if kind == "file":
        (tmp_path / "models").write_text("mine")
    else:
        monkeypatch.setattr(Path, "mkdir", _refuse)
    assert run(flow_maps, tmp_path) == 2
    said = capsys.readouterr().err
    assert "cannot be written" in said and str(tmp_path / "models") in said


def _refuse(path: Path, *_, **__) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


# Again


def test_again_keeps_the_weights_and_renews_the_card(flow_maps, own, nothing_is_trained, capsys):
    folder = own / "models/flow_maps-ststnet"
    before, states = contents(folder), {name: (folder / name).stat().st_mtime_ns for name in FILES}
    (folder / "README.md").write_text("old")
    assert run(flow_maps, own) == 0
    assert capsys.readouterr().out == f"model: {folder}\n"
    assert contents(folder) == before
    assert all((folder / name).stat().st_mtime_ns == states[name] for name in FILES[1:])


@pytest.mark.parametrize(
    ("options", "seeds"),
    [(("--model.lr=0.123",), "0,1"), ((), "0,1,2"), ((), "1,0"), (("--data.flip=0",), "0,1"), (("--stacked",), "0,1")],
)
def test_another_recipe_in_the_same_folder_is_refused(flow_maps, own, nothing_is_trained, capsys, options, seeds):
    folder = own / "models/flow_maps-ststnet"
    before = contents(folder)
    assert run(flow_maps, own, *options, seeds=seeds) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{folder}: holds another model" in said and "--models" in said
    assert contents(folder) == before and folders(own) == ["flow_maps-ststnet"]


def test_a_folder_of_something_else_is_refused(flow_maps, tmp_path, nothing_is_trained, capsys):
    folder = tmp_path / "models/flow_maps-ststnet"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    assert run(flow_maps, tmp_path) == 2
    assert str(folder) in capsys.readouterr().err and contents(folder) == {"notes.txt": b"mine"}


def test_all_folders_are_checked_before_anything_is_trained(flow_maps, own, nothing_is_trained, capsys):
    (own / "models/flow_maps-ststnet").rename(own / "models/flow_maps-timm_baseline")
    assert run(flow_maps, own, model="ststnet,timm_baseline") == 2
    assert "flow_maps-timm_baseline: holds another model" in capsys.readouterr().err


def test_a_model_that_is_named_twice_is_fitted_once(flow_maps, place, tmp_path, monkeypatch, capsys):
    _trained_before(monkeypatch, place)
    assert run(flow_maps, tmp_path, model="ststnet,ststnet") == 0
    assert capsys.readouterr().out.count("model: ") == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--data.outer_fold=group1", "--data.outer_split=groups3"), "leave --data.outer_fold away"),
        (("--model", "no_such"), "unknown model 'no_such'"),
        (("--seeds", "a"), "is not a list of whole numbers"),
        (("--searched",), "has 0 searches of ststnet on flow_maps, megc2019, and one is needed: run mer search"),
    ],
)
def test_wrong_input_is_one_message(flow_maps, tmp_path, nothing_is_trained, capsys, options, says):
    try:
        status = run(flow_maps, tmp_path, *options)
    except SystemExit as end:  # argparse's own
        status = end.code
    assert status == 2 and says in capsys.readouterr().err and not folders(tmp_path)


# The card


def test_without_a_score_its_first_line_says_so(place):
    text = (place / "models/flow_maps-ststnet/README.md").read_text()
    _, header, _ = text.split("---\n", 2)
    assert "model-index" not in yaml.safe_load(header) and yaml.safe_load(header)["license"] == "other"
    first = body(place / "models/flow_maps-ststnet").strip().splitlines()[0]
    assert "there is no honest score of its recipe" in first
    assert "Not measured." in text and "Detecting lies" in text and "| smic | 3 | 6 | 6 | 6 | 18 |" in text


def test_after_a_sweep_it_has_the_honest_score_and_the_optimistic_one(flow_maps, own, monkeypatch, capsys):
    assert run(flow_maps, own, command="sweep") == 0
    capsys.readouterr()
    assert main(["status", "--json", "--results", str(own / "results")]) == 0
    (cell,) = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(workers, "run", lambda *_: pytest.fail("trained again"))
    assert run(flow_maps, own) == 0
    folder = own / "models/flow_maps-ststnet"
    text = body(folder)
    assert "no honest score" not in text and text.strip().startswith("# flow_maps-ststnet")
    assert "loso split, 2 seeds (0, 1)" in text
    header = yaml.safe_load((folder / "README.md").read_text().split("---\n", 2)[1])
    (result,) = header["model-index"][0]["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \.\. ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == ["UF1", "UAR", "accuracy"]
    for name, honest, low, high, optimistic in rows:
        own_score = cell["summary"]["honest"][name.lower()]
        assert float(honest) == pytest.approx(own_score["mean"], abs=6e-4)
        assert float(low) <= float(honest) <= float(high) and float(optimistic) > 0
        assert values["f1" if name == "UF1" else name.lower()] == pytest.approx(own_score["mean"], abs=6e-5)
        assert float(optimistic) == pytest.approx(cell["summary"]["optimistic"][name.lower()]["mean"], abs=6e-4)


def _names_nothing(folder: Path, root: Path, names: str) -> None:
    """No file of a model has a path, or the name of a clip or subject."""
    for name, content in contents(folder).items():
        for path in (root, root.parent, folder, Path.home(), Path.cwd(), Path("/tmp")):
            assert f"{path}/".encode() not in content, (name, path)
        found = re.search(names, content.decode("latin1")) if name != "model.safetensors" else None
        assert not found, (name, found)
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert "__metadata__" not in header and all(re.fullmatch(r"seed\d+\.[\w.]+", name) for name in header)


def test_it_has_no_path_and_no_name_of_a_clip_or_subject(place, flow_maps):
    _names_nothing(place / "models/flow_maps-ststnet", flow_maps, r"\bs\d\b|\bc\d\b|maps/|\.png:?\w")


# A recipe that was searched


def write_search(root: Path, own: Path, record: object, digest: str = "0123456789ab") -> None:
    """The cell that a search leaves."""
    job = Job("flow_maps", "ststnet", root=str(root), results=str(own / "results"), options=FEW)
    found = Experiment(job)
    cell = fitting.replace(found.cell, model="ststnet_searched", digest=digest)
    cell.write_header(found.data.clips, yaml.safe_dump({"search": record}))


SEARCH = {
    "candidates": ["", "--model.lr=0.02 --model.ema_decay=0.5", "--model.lr=0.03"],
    "choices": {
        "group1": {"chosen": 2, "inner UF1": [0.1, 0.4, 0.6]},
        "group2": {"chosen": 1, "inner UF1": [0.2, 0.5, 0.1]},
    },
}


def test_of_a_search_it_fits_the_candidate_with_the_best_mean(flow_maps, tmp_path):
    write_search(flow_maps, tmp_path, SEARCH)
    assert run(flow_maps, tmp_path, "--searched") == 0
    assert folders(tmp_path) == ["flow_maps-ststnet_searched"]
    folder = tmp_path / "models/flow_maps-ststnet_searched"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    arguments = config["model"]["init_args"]
    assert (arguments["lr"], arguments["ema_decay"]) == (0.02, 0.5)
    options = (*FEW, "--model.lr=0.02", "--model.ema_decay=0.5")
    assert config["digest"] == Experiment(Job("flow_maps", "ststnet", root=str(flow_maps), options=options)).digest
    assert "# flow_maps-ststnet_searched\n" in body(folder) and "no honest score" in body(folder)
    assert len(load(folder, "cpu").tasks) == 2
    _names_nothing(folder, flow_maps, r"\bs\d\b|group1")


@pytest.mark.parametrize(
    "record",
    [
        {},
        [],
        "text",
        None,
        {"candidates": [], "choices": {}},
        {**SEARCH, "choices": {"group1": {"inner UF1": []}}},
        {**SEARCH, "choices": {"group1": {"inner UF1": [0.1, 0.2]}, "group2": {"inner UF1": [0.1]}}},
        {**SEARCH, "choices": {"group1": {"inner UF1": ["a", "b", "c"]}}},
        {**SEARCH, "choices": [1]},
        {**SEARCH, "candidates": [""]},
        {**SEARCH, "candidates": [0, 1, 2]},
    ],
    ids=range(11),
)
def test_a_damaged_record_of_a_search_is_one_message(flow_maps, tmp_path, nothing_is_trained, capsys, record):
    write_search(flow_maps, tmp_path, record)
    assert run(flow_maps, tmp_path, "--searched") == 2
    said = capsys.readouterr().err
    assert "holds no record of a search; search again" in said and said.count("\n") == 1 and not folders(tmp_path)


def test_of_two_searches_none_is_taken(flow_maps, tmp_path, nothing_is_trained, capsys):
    for digest in ("0123456789ab", "1123456789ab"):
        write_search(flow_maps, tmp_path, SEARCH, digest)
    assert run(flow_maps, tmp_path, "--searched") == 2
    assert "has 2 searches of ststnet" in capsys.readouterr().err


def test_an_onnx_file_that_cannot_be_renamed_is_named(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link", str(source), None, str(target))

    monkeypatch.setattr(fitting, "Model", lambda *_: SimpleNamespace(tasks=[]))
    monkeypatch.setattr("mer.onnx_export.export", lambda *_: (b"content", 0.5))
    experiment: Any = SimpleNamespace(job=SimpleNamespace(packages=()), data=SimpleNamespace(dummy_batch=dict))
    assert fitting._export(experiment, tmp_path / "model.onnx") == 0.5
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(WriteError, match=r"model\.onnx cannot be written: .* refuses to rename"):
        fitting._export(experiment, tmp_path / "model.onnx")
    assert contents(tmp_path) == {"model.onnx": b"content"}

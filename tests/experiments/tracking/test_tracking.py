"""What W&B is given, read back with its own reader; and that nothing there can stop a sweep."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.internal.datastore import DataStore
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from data_modules.cache import store
from experiments import jobs, report
from experiments.cli import main
from experiments.experiment import Experiment
from experiments.results import Cell, cells
from experiments.tracking import Entry, Tracker, configuration, tracker, upload
from experiments.tracking.runs import commit, run_id, summary
from mer.evaluation import scoring

KEY = "0123456789abcdef" * 3
OPTIONS = ("--trainer.max_steps=12", "--data.batch_size=8")
CONFIG = {"recipe": "quick", "versions": {}}


def sweep(root: Path, results: Path, *more: str) -> int:
    start = ["sweep", "--dataset", "flow_maps", "--root", str(root), "--model", "ststnet", "--results", str(results)]
    return main([*start, *OPTIONS, *more])


def nested(items) -> dict:
    """The JSON values of a record's items, by key."""
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def read_run(folder: Path) -> dict:
    """All that the file of an offline run says."""
    run = {"config": {}, "summary": {}, "history": [], "artifacts": [], "metrics": {}, "stats": 0, "folder": folder}
    (file,) = folder.glob("*.wandb")
    store = DataStore()
    store.open_for_scan(str(file))
    while data := store.scan_data():
        record = Record()
        record.ParseFromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                run["run"] = record.run
                run["config"] |= nested(record.run.config.update)
            case "config":
                run["config"] |= nested(record.config.update)
            case "summary":
                run["summary"] |= nested(record.summary.update)
            case "history":
                run["history"].append(nested(record.history.item))
            case "artifact":
                run["artifacts"].append(record.artifact)
            case "metric":
                run["metrics"][record.metric.name or record.metric.glob_name] = record.metric
            case "stats":
                run["stats"] += 1
    return run


def read_runs(results: Path) -> list[dict]:
    return [read_run(folder) for folder in sorted((results / "wandb").glob("offline-run-*"))]


def table(run: dict, name: str) -> pd.DataFrame:
    (file,) = run["folder"].glob(f"files/media/table/{name}_*.table.json")
    content = json.loads(file.read_text())
    return pd.DataFrame(content["data"], columns=content["columns"])


@pytest.fixture(scope="module")
def swept(flow_maps, tmp_path_factory) -> Path:
    """Three folds with two seeds, logged offline although there is a key."""
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_X_STATS_SAMPLING_INTERVAL", "0.1")
        assert sweep(flow_maps, results, "--seeds", "0,1") == 0
    return results


@pytest.fixture(scope="module")
def logged(swept) -> list[dict]:
    return read_runs(swept)


@pytest.fixture
def copied(swept, tmp_path) -> Cell:
    """The same results without what was logged."""
    shutil.copytree(swept, tmp_path / "results", ignore=shutil.ignore_patterns("wandb"))
    (cell,) = cells(tmp_path / "results")
    return cell


def of(runs: list[dict], kind: str) -> list[dict]:
    return [run for run in runs if run["run"].job_type == kind]


def test_every_fold_and_every_seed_is_a_run_of_its_cell(logged, swept):
    (cell,) = cells(swept)
    assert {run["run"].run_group for run in logged} == {f"flow_maps-megc2019-loso-ststnet-{cell.digest}"}
    assert {run["run"].project for run in logged} == {"mer"}
    folds = [("fold", run_id(cell, seed, fold), seed, fold) for seed in (0, 1) for fold in cell.folds]
    pools = [("sweep", run_id(cell, seed), seed, None) for seed in (0, 1)]
    found = [
        (run["run"].job_type, run["run"].run_id, run["config"]["seed"], run["config"].get("fold")) for run in logged
    ]
    assert sorted(found, key=str) == sorted(folds + pools, key=str)
    for run in logged:
        assert set(run["run"].tags) == {"flow_maps", "megc2019", "loso", "ststnet", "quick"}


def test_the_configuration_is_the_resolved_one(logged, swept):
    (cell,) = cells(swept)
    for run in logged:
        config = run["config"]
        assert config["configuration"]["trainer"]["max_steps"] == 12
        assert config["configuration"]["data"]["init_args"]["batch_size"] == 8
        assert config["configuration"]["model"]["init_args"]["network"]["class_path"] == "mer.models.ststnet.STSTNet"
        assert config["classes"] == list(cell.classes)
        assert config["digest"] == cell.digest and config["dataset"] == "flow_maps"
        assert config["commit"] == commit()
    assert all({"mer", "torch", "lightning"} <= set(run["config"]["versions"]) for run in of(logged, "fold"))


def test_summaries_are_the_figures_of_the_report_to_the_last_digit(logged, swept):
    (cell,) = cells(swept)
    for run in of(logged, "sweep"):
        seed = run["config"]["seed"]
        status, pool = report.seed_status(cell, seed), cell.pooled(seed)
        for kind, column in (("honest", "prediction"), ("optimistic", "optimistic_prediction")):
            for score in ("uf1", "uar", "accuracy"):
                assert run["summary"][f"{kind}/{score}"] == status[kind][score]
                assert run["summary"][f"{kind}/parts/smic/{score}"] == status[kind]["parts"]["smic"][score]
                low, high = scoring.interval([pool], cell.classes, score, column)
                assert (run["summary"][f"{kind}/{score}_low"], run["summary"][f"{kind}/{score}_high"]) == (low, high)
            for name, scores in scoring.per_class(pool, cell.classes, column).items():
                assert {key: run["summary"][f"{kind}/classes/{name}/{key}"] for key in scores} == scores
        assert run["summary"]["folds_done"] == run["summary"]["folds_total"] == 3


def test_there_is_a_row_per_clip_and_the_predictions_as_an_artifact(logged, swept):
    (cell,) = cells(swept)
    for run in of(logged, "sweep"):
        pool = cell.pooled(run["config"]["seed"])
        assert table(run, "clips").to_numpy().tolist() == pool.to_numpy().tolist()
        assert list(table(run, "clips")) == list(pool)
        (artifact,) = [one for one in run["artifacts"] if one.type == "predictions"]
        (entry,) = artifact.manifest.contents
        assert Path(entry.local_path).is_relative_to(swept) and entry.path == "predictions.csv"
        assert Path(entry.local_path).read_text() == pool.to_csv(index=False)


def test_the_confusion_is_that_of_the_predictions(logged, swept):
    (cell,) = cells(swept)
    for run in of(logged, "sweep"):
        counts = table(run, "confusion_table").pivot_table("nPredictions", "Actual", "Predicted")
        matrix = counts.loc[list(cell.classes), list(cell.classes)].to_numpy()
        assert (matrix == scoring.confusion(cell.pooled(run["config"]["seed"]), cell.classes)).all()


def test_curves_have_loss_and_learning_rate_and_only_the_loss_has_a_panel(logged):
    for run in of(logged, "fold"):
        points = [row for row in run["history"] if "train/loss" in row]
        assert points and all(row["lr"] > 0 for row in points)
        assert run["summary"]["test/clips"] == 6 and 0 <= run["summary"]["test/right"] <= 6
        assert run["metrics"]["train/loss"].summary.min and not run["metrics"]["train/loss"].options.hidden
        assert run["metrics"]["lr"].options.hidden and run["metrics"]["train/*"].options.hidden


def test_no_run_of_a_fold_measures_the_machine(logged):  # a sweep's may end before its first sample
    assert not any(run["stats"] for run in of(logged, "fold"))


def test_neither_key_nor_path_of_the_data_nor_pictures_are_logged(swept, flow_maps):
    files = [path for path in (swept / "wandb").rglob("*") if path.is_file()]
    assert len(files) > 8 * 2
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content and str(flow_maps).encode() not in content, path
        assert path.suffix not in (".png", ".jpg")


def log(results: Path, *entries: Entry) -> Tracker:
    with Tracker(results) as logger:
        for entry in entries:
            logger.log(entry)
    return logger


def test_pictures_are_logged_when_asked_for(copied, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    draws = np.random.default_rng(0)
    copied.file(0, copied.folds[2]).with_suffix(".safetensors").unlink()
    for fold in copied.folds[:2]:
        tensors = {"attention": draws.random((6, 7, 7)), "flow": draws.normal(size=(6, 3, 28, 28))}
        path = copied.file(0, fold).with_suffix(".safetensors")
        store.write(path, {name: one.astype(np.float16) for name, one in tensors.items()})
    face = draws.integers(0, 255, (3, 64, 64)).astype(np.uint8)
    store.write(tmp_path / "cache/one.safetensors", {"apex": face})
    clips = pd.read_csv(copied.folder / "clips.csv", dtype=str).assign(cached="")
    clips.loc[0, "cached"] = "one.safetensors"
    clips.to_csv(copied.folder / "clips.csv", index=False)

    assert not log(copied.results, Entry("sweep", copied, 0, CONFIG, cache=tmp_path / "cache")).problem
    (run,) = read_runs(copied.results)
    (stored,) = [one for one in run["artifacts"] if one.type == "run_table" and one.name.endswith("-clips")]
    places = {entry.path: Path(entry.local_path) for entry in stored.manifest.contents}
    content = json.loads(places["clips.table.json"].read_text())
    rows = pd.DataFrame(content["data"], columns=content["columns"])
    for name in ("flow", "attention"):
        assert [one is not None for one in rows[name]] == [True] * 12 + [False] * 6
        assert all(places[one["path"]].is_file() for one in rows[name][:12])
    assert len({places[one["path"]].read_bytes() for one in rows["attention"][:12]}) == 12


def test_logging_again_takes_the_place_of_the_run(copied, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = copied.results / "wandb"
    log(copied.results, Entry("sweep", copied, 0, CONFIG))
    (first,) = folder.glob("offline-run-*")
    first = first.rename(first.with_name(first.name.replace("offline-run-2", "offline-run-1")))  # long ago
    log(copied.results, Entry("sweep", copied, 0, CONFIG))
    (second,) = set(folder.glob("offline-run-*")) - {first}
    assert read_run(first)["run"].run_id == read_run(second)["run"].run_id
    assert upload.unsent(copied.results) == [second]


# Failures


def everything(cell: Cell) -> list[Entry]:
    curve = [{"step": 1, "epoch": 0, "train/loss": 1.0}]
    folds = [Entry("fold", cell, 0, CONFIG, fold=fold, curve=curve) for fold in cell.folds]
    return [Entry("begin", cell, 0, CONFIG), *folds, Entry("sweep", cell, 0, CONFIG)]


def kinds(results: Path) -> list[str]:
    """Job types of the offline runs to upload."""
    return sorted(read_run(folder)["run"].job_type for folder in upload.unsent(results))


def test_a_wrong_key_without_a_network_costs_one_line(flow_maps, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
    assert sweep(flow_maps, tmp_path) == 0
    shown = capsys.readouterr().out
    assert shown.count("Weights & Biases failed") == 1 and "make sync" in shown
    (cell,) = cells(tmp_path)
    assert len(cell.done(0)) == 3 and kinds(tmp_path) == ["fold"] * 3 + ["sweep"]


@pytest.mark.parametrize("harm", ["kill its service", "kill it", "stop it"])
def test_a_process_that_dies_or_hangs_is_replaced_once(copied, monkeypatch, harm):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(tracker, "PATIENCE", 12.0)
    entries = everything(copied)
    with Tracker(copied.results) as logger:
        logger.log(entries[0])
        while logger.waiting:
            logger._advance(wait=True)
        process = logger.process.pid
        if harm == "kill its service":
            listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
            process = next(int(pid) for pid, parent in map(str.split, listed.splitlines()) if int(parent) == process)
        os.kill(process, signal.SIGSTOP if harm == "stop it" else signal.SIGKILL)
        for entry in entries[1:]:
            logger.log(entry)
    assert "Weights & Biases failed" in logger.problem
    assert kinds(copied.results) == ["fold"] * 3 + ["sweep"]


def test_what_fails_twice_is_given_up(copied, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    broken = [Entry("fold", copied, 0, CONFIG, fold="nobody"), *everything(copied)]
    logger = log(copied.results, *broken)
    assert "stopped logging" in logger.problem and "results are complete" in logger.problem
    assert not logger.waiting


# Trials of a search


@pytest.fixture
def trial(monkeypatch, tmp_path):
    """The environment in which an agent starts a trial."""
    parameters = tmp_path / "config-trial01.yaml"
    parameters.write_text("wandb_version: 1\n\nmodel.lr:\n  value: 0.004\n")
    for name, value in {
        "MODE": "offline",
        "SWEEP_ID": "search01",
        "RUN_ID": "trial01",
        "SWEEP_PARAM_PATH": str(parameters),
        "PROJECT": "mer",
    }.items():
        monkeypatch.setenv(f"WANDB_{name}", value)


@pytest.mark.usefixtures("trial")
def test_a_trial_is_the_run_of_the_agent_and_its_objective_an_inner_score(flow_maps, tmp_path):
    for _ in range(2):  # the second one trains nothing, and still reports
        assert sweep(flow_maps, tmp_path, "--data.split=loso-without-smic-s1", "--model.lr=0.004") == 0
        (run,) = read_runs(tmp_path)
        (cell,) = cells(tmp_path)
        shutil.rmtree(tmp_path / "wandb")
        assert run["run"].run_id == "trial01" and run["run"].sweep_id == "search01"
        assert run["config"]["model.lr"] == 0.004
        assert run["config"]["configuration"]["model"]["init_args"]["lr"] == 0.004
        assert run["summary"]["inner/uf1"] == report.seed_status(cell, 0)["honest"]["uf1"]
        assert not any(name.startswith("honest/") for name in run["summary"])
    assert cell.folds == ["smic-s2", "smic-s3"] and set(cell.pooled(0)["subject"]) == {"s2", "s3"}
    (cell.file(0, "smic-s2")).unlink()
    assert not any(name.startswith("inner/") for name in summary(cell, 0))  # nothing to choose by


@pytest.mark.usefixtures("trial")
@pytest.mark.parametrize(
    ("more", "word"),
    [
        ((), "--data.split=loso-without-smic-s1"),
        (("--data.split=loso-without-smic-s1", "--seeds", "0,1"), "one seed"),
        (("--data.split=loso-without-smic-s9",), "no outer fold 'smic-s9'"),
    ],
)
def test_a_trial_that_would_choose_by_test_subjects_is_refused(flow_maps, tmp_path, capsys, more, word):
    assert sweep(flow_maps, tmp_path, *more) == 2
    assert word in capsys.readouterr().err


def test_the_search_drives_mer_sweep(flow_maps, tmp_path):
    search = yaml.safe_load((jobs.CONFIGS / "search.yaml").read_text())
    assert search["metric"] == {"name": "inner/uf1", "goal": "maximize"}
    drawn = {
        name: {"value": space["values"][-1] if "values" in space else space["min"]}
        for name, space in search["parameters"].items()
    }
    words = [word for word in search["command"] if word != "${args}"] + create_sweep_command_args({"args": drawn})[
        "args"
    ]
    assert words.pop(0) == "mer" and search["command"][-1] == "${args}"
    words = [f"--root={flow_maps}" if word.startswith("--root=") else word for word in words]
    words = [word.replace("groups3-without-groups5", "groups2-without-groups3") for word in words]  # three subjects
    assert main([*words, "--dry-run", "--results", str(tmp_path)]) == 0


def test_the_search_is_no_model():
    assert "search" not in jobs.models() and "ststnet" in jobs.models()


# Upload


def test_nothing_to_upload_is_said(tmp_path, capsys):
    assert main(["sync", "--results", str(tmp_path)]) == 0
    assert "nothing to upload" in capsys.readouterr().out


def test_a_missing_key_is_named(swept, capsys, monkeypatch):
    monkeypatch.setattr("wandb.api", type("Api", (), {"api_key": None}))
    assert main(["sync", "--results", str(swept)]) == 2
    error = capsys.readouterr().err
    assert "8 runs" in error and "wandb login" in error and "WANDB_API_KEY" in error


def test_every_run_is_uploaded_once(swept, capsys, monkeypatch):
    called = []

    def run(command, env, check):
        called.append(command)
        assert "WANDB_MODE" not in env
        for folder in command[4:]:
            (mark,) = Path(folder).glob("*.wandb")
            mark.with_suffix(".wandb.synced").touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("wandb.api", type("Api", (), {"api_key": KEY}))
    monkeypatch.setattr(upload.subprocess, "run", run)
    try:
        assert main(["sync", "--results", str(swept)]) == 0
        assert main(["sync", "--results", str(swept)]) == 0
    finally:
        for mark in (swept / "wandb").rglob("*.synced"):
            mark.unlink()
    (command,) = called
    assert command[1:4] == ["-m", "wandb", "sync"] and len(command[4:]) == 8


# The commit


def test_the_commit_is_that_of_the_file_or_nothing(tmp_path):
    file = tmp_path / "tracking.py"
    file.write_text("first")
    assert commit(file) is None

    def git(*arguments: str) -> str:
        person = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", "-C", tmp_path, *person, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init")
    assert commit(file) is None  # a checkout of something else
    git("add", ".")
    git("commit", "-m", "first")
    assert commit(file) == git("rev-parse", "HEAD")
    file.write_text("second")
    assert commit(file) == git("rev-parse", "HEAD") + "-dirty"


def test_the_configuration_names_no_folder(flow_maps, tmp_path):
    job = jobs.Job("flow_maps", "ststnet", root=str(flow_maps), results=str(tmp_path), cache=str(tmp_path / "cache"))
    text = json.dumps(configuration(Experiment(job)))
    assert str(flow_maps) not in text and str(tmp_path) not in text

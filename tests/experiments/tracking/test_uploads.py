"""What W&B holds is what the results folder holds, whatever goes wrong, and nothing of that harms a sweep."""

import getpass
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from experiments import report, tracking
from experiments.cli import main
from experiments.experiment import Experiment
from experiments.jobs import Job
from experiments.results import Cell, Fold
from experiments.tracking import ModelRun, Request, Uploads, session, uploads
from experiments.tracking.marks import Mark
from experiments.tracking.runs import FoldRun
from experiments.tracking.server import without_reports
from tests.stand_in import KEY, StandIn
from tests.tracked import sweep

SOLE = 3 + 1  # runs of one seed: its folds and their pool


def sync(results: Path, status: int = 0) -> None:
    assert main(["sync", "--results", str(results)]) == status


def marks(results: Path) -> list[Path]:
    """Those of confirmed runs."""
    return [path for path in results.glob("wandb/logged/*.json") if path.read_text()]


def test_a_sweep_is_on_the_server_whole_and_says_where(flow_maps, tmp_path, server, capsys):
    results = tmp_path / "results"
    assert sweep(flow_maps, results) == 0
    assert f"{server.url}/lab/mer, group flow_maps-megc2019-loso-ststnet-" in capsys.readouterr().out
    (pooled,), folds = server.of_kind("sweep"), server.of_kind("fold")
    assert len(folds) == 3 and len(marks(results)) == SOLE
    assert {run["state"] for run in server.runs.values()} == {"finished"}
    assert [row["folds_done"] for row in pooled["history"] if "folds_done" in row] == [1, 2, 3]
    assert all(run["history"] for run in folds)
    assert [a["type"] for a in server.artifacts] == ["run_table", "run_table", "dataset", "predictions"]
    assert all(a["state"] == "COMMITTED" for a in server.artifacts)
    assert not list(results.glob("wandb/*run-*"))  # what is uploaded is not kept twice
    private = (str(results), str(flow_maps), socket.gethostname(), "/cli.py", "/bin/mer", getpass.getuser() + "/")
    for path, headers, body in server.sent:
        said = path + headers.replace(server.url[7:], "") + body
        assert not [text for text in private if f'"{text}' in said or (len(text) > 12 and text in said)], said[:300]
    count = len(server.sent)
    sync(results)
    assert "nothing to upload" in capsys.readouterr().out and len(server.sent) == count


def test_runs_are_made_from_the_results_wherever_they_lie(copied, tmp_path, server):
    moved = copied.results.rename(tmp_path / "moved")
    sync(moved)
    (cell,) = server.of_kind("sweep")
    status = report.seed_status(Cell(moved, *list(copied.names.values())), 0)
    for kind in ("honest", "optimistic"):
        assert all(cell["summary"][f"{kind}/{name}"] == status[kind][name] for name in ("uf1", "uar", "accuracy"))
    once = server.everything()
    shutil.rmtree(moved / "wandb")  # as a copy on another machine: what is there already is not doubled
    sync(moved)
    assert server.everything() == once and len(server.runs) == SOLE


@pytest.mark.parametrize("what", ["500", "down", "wrong key"])
def test_nothing_is_marked_that_the_server_has_not_confirmed(copied, server, monkeypatch, capsys, what):
    if what == "wrong key":
        monkeypatch.setenv("WANDB_API_KEY", KEY[:-1] + "1")
    server.fault = {"500": lambda *_: 500, "down": lambda *_: "drop", "wrong key": lambda *_: None}[what]
    sync(copied.results, status=1)
    shown = capsys.readouterr().out
    words = {"500": "answers with error 500", "down": "does not answer", "wrong key": "does not take the key"}
    assert words[what] in shown and "not uploaded" in shown and not marks(copied.results)
    server.fault = lambda *_: None
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    sync(copied.results)
    assert len(marks(copied.results)) == len(server.runs) == SOLE


def serve_impatiently(*arguments) -> None:
    """What the process does that uploads, without long waits."""
    session.READING = session.OTHERS = 1.0
    session.serve(*arguments)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(uploads, "serve", serve_impatiently)


@pytest.mark.usefixtures("impatient")
def test_what_fails_alone_is_named_and_uploaded_later(copied, server, capsys):
    fold = next(iter(copied.folds))
    failing: set[str] = set()

    def fault(path: str, body: str) -> int | None:
        if f"ststnet seed0 {fold}" in body:
            failing.add(json.loads(body)["variables"]["name"])
        return 500 if path.endswith("file_stream") and failing & set(path.split("/")) else None

    server.fault = fault
    sync(copied.results, status=1)
    shown = capsys.readouterr().out
    assert f"ststnet seed0 {fold}: the server does not confirm it" in shown and "1 runs are not uploaded" in shown
    assert len(marks(copied.results)) == SOLE - 1
    server.fault = lambda *_: None
    sync(copied.results)
    assert len(server.runs) == SOLE and all(run["state"] == "finished" for run in server.runs.values())


@pytest.mark.parametrize("requests", [12, 20, 28])
def test_a_kill_in_the_middle_leaves_no_run_double(copied, server, requests):
    with StandIn() as undisturbed, pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_BASE_URL", undisturbed.url)
        sync(copied.results)
    server.fault = lambda *_: "drop" if len(server.sent) > requests else None
    sync(copied.results, status=1)
    server.fault = lambda *_: None
    sync(copied.results)
    assert server.everything() == undisturbed.everything()


def test_a_run_that_was_deleted_has_a_new_id(copied, server, capsys):
    sync(copied.results)
    once = server.everything()
    server.deleted = set(server.runs)
    server.runs.clear()
    shutil.rmtree(copied.results / "wandb")
    capsys.readouterr()
    sync(copied.results)
    assert server.everything() == once and not server.deleted & set(server.runs)
    assert capsys.readouterr().out.count("was deleted on Weights & Biases, which blocks its id") == SOLE


def test_a_fold_that_is_trained_again_is_a_new_run(copied, server):
    sync(copied.results)
    old = set(server.runs)
    fold = Fold(copied, next(iter(copied.folds)), 0)
    table = fold.read().replace({"optimistic_prediction": {"negative": "positive"}})
    fold.write(table, {**fold.record(), "curve": [{"step": 4, "train/loss": 0.5}]}, {})
    sync(copied.results)
    assert {run["jobType"] for name, run in server.runs.items() if name not in old} == {"fold", "sweep"}
    assert len(server.of_kind("fold")) == 3 and len(server.of_kind("sweep")) == 1  # the others are superseded
    (again,) = [run for run in server.of_kind("fold") if fold.name in run["displayName"]]
    assert [row["_step"] for row in again["history"]] == [4]


def test_what_a_killed_sweep_has_left_is_logged_by_the_next_one(flow_maps, copied, server):
    fold = Fold(copied, "smic-s2", 0)
    fold.file.unlink()
    sync(copied.results)
    (pooled,) = server.of_kind("sweep")
    assert pooled["summary"]["folds_done"] == 2
    assert sweep(flow_maps, copied.results) == 0
    (pooled,) = server.of_kind("sweep")
    assert pooled["summary"]["folds_done"] == 3 and len(server.runs) == SOLE
    steps = [row["_step"] for row in pooled["history"]]
    assert steps == sorted(set(steps))


@pytest.mark.usefixtures("impatient")
def test_a_run_that_another_process_logs_is_left_to_it(copied, server, capsys):
    (fold, *_) = copied.folds
    mark = Mark(copied.results, FoldRun(copied, 0, fold), "anywhere")
    mark.claim()
    sync(copied.results, status=1)
    assert f"{fold}: another process is logging it" in capsys.readouterr().out
    assert len(server.runs) == SOLE - 1
    mark.close()


def test_runs_are_logged_several_at_once(copied, server):
    server.delay = 0.1
    sync(copied.results)
    assert server.busiest > 2


def test_many_runs_are_shared_by_several_processes(copied, server, monkeypatch):
    monkeypatch.setattr(uploads, "SHARE", 1)
    server.delay = 0.1
    sync(copied.results)
    assert len(server.runs) == len(marks(copied.results)) == SOLE
    assert sum(path == "/" for path, _, _ in server.sent) > 1  # each process looks whether the server is there


def test_what_is_on_the_server_beside_what_is_asked_for_stays(copied, tmp_path, server):
    with Uploads(Request(copied.results, ((copied, 0),), cache=tmp_path), Console()) as pictures:
        pictures.finish()
    count = len(server.sent)
    sync(copied.results)  # asks for no pictures
    assert len(server.sent) == count and not pictures.left


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_the_settings_of_wandb_decide(flow_maps, copied, server, monkeypatch, tmp_path, mode):
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings" / "settings").write_text(f"[default]\nmode = {mode}\n")  # as `wandb offline` writes it
    assert sweep(flow_maps, copied.results) == 0
    assert not server.sent and len(list(copied.results.glob("wandb/offline-run-*"))) == SOLE * (mode == "offline")
    sync(copied.results)
    assert len(server.runs) == SOLE


@pytest.mark.usefixtures("no_key")
def test_a_missing_key_is_named(flow_maps, copied, capsys):
    assert sweep(flow_maps, copied.results) == 0
    shown = capsys.readouterr().out
    assert "4 runs are not uploaded (there is no key" in shown
    sync(copied.results, status=2)
    error = capsys.readouterr().err
    assert "wandb login" in error and "WANDB_API_KEY" in error


def test_a_sweep_without_a_network_says_one_line(flow_maps, copied, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
    assert sweep(flow_maps, copied.results) == 0
    shown = capsys.readouterr().out
    assert shown.count("Weights & Biases") == 1 and "does not answer" in shown and "`make sync`" in shown


def test_one_limit_holds_for_all_uploads_of_a_sweep(flow_maps, copied, server, monkeypatch, capsys):
    monkeypatch.setattr(tracking, "LIMIT", 3.0)
    server.fault = lambda path, body: "hang" if "UpsertBucket" in body else None
    assert sweep(flow_maps, copied.results) == 0
    shown = capsys.readouterr().out
    server.fault = lambda *_: None
    assert "uploading 4 runs; Ctrl-C is safe" in shown
    assert "4 runs are not uploaded (3 s are over); the results are complete" in shown


def test_waiting_for_uploads_may_be_interrupted(flow_maps, copied, server, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Uploads, "_wait", interrupt)
    assert sweep(flow_maps, copied.results) == 0
    assert "interrupted" in capsys.readouterr().out


@pytest.fixture
def model(flow_maps, copied, tmp_path) -> Callable[..., None]:
    """Logs a model that was fitted on the data of the sweep."""
    job = Job("flow_maps", "ststnet", root=str(flow_maps), results=str(copied.results))
    experiment = Experiment(job)
    folder = tmp_path / "flow_maps-ststnet"
    folder.mkdir()
    for name in ("README.md", "config.yaml", "model.safetensors"):
        (folder / name).write_text(name)

    def log(**options) -> None:
        run = ModelRun.of(experiment.cell, 0, folder, experiment, **options)
        with Uploads(Request(copied.results, models=(run,)), Console()) as uploads:
            uploads.finish()
        assert not uploads.left and not uploads.problem

    return log


def test_a_model_is_an_artifact_once_and_its_weights_stay_here_unless_asked_for(model, server):
    model()
    model()
    card = {"README.md", "config.yaml"}
    assert [set(a["files"]) for a in server.artifacts if a["type"] == "model"] == [card]
    model(weights=True)
    model()  # what is there stays
    assert [set(a["files"]) for a in server.artifacts if a["type"] == "model"] == [card, card | {"model.safetensors"}]
    assert len(server.runs) == 1


def test_predictions_and_models_are_made_of_the_clips(copied, model, server):
    sync(copied.results)
    model()
    (data,) = [artifact for artifact in server.artifacts if artifact["type"] == "dataset"]
    made = {artifact["type"]: artifact["run"] for artifact in server.artifacts if artifact["type"] != "run_table"}
    assert sorted(server.uses) == sorted((made[kind], data["id"]) for kind in ("predictions", "model"))
    clips = server.blobs[data["files"]["clips.csv"]].splitlines()
    assert data["name"] == "smic" and clips[0] == "dataset,subject,clip,target" and len(clips) == 1 + len(copied.clips)
    record = Fold(copied, copied.done(0)[0], 0).record()
    assert server.blobs[data["files"]["fingerprint.txt"]] == record["fingerprint"]


def test_errors_are_reported_to_a_third_party_only_if_the_user_says_so():
    assert without_reports({})["WANDB_ERROR_REPORTING"] == "false"
    assert without_reports({"WANDB_ERROR_REPORTING": "true"})["WANDB_ERROR_REPORTING"] == "true"


def test_nothing_to_upload_is_said(tmp_path, capsys):
    sync(tmp_path)
    assert "nothing to upload" in capsys.readouterr().out

"""What W&B is given, read back."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from rich.console import Console

from data_modules.cache import store
from experiments import jobs, report
from experiments.experiment import Experiment, commit
from experiments.report.scores import KINDS
from experiments.results import Fold, cells
from experiments.tracking import Request, Uploads
from experiments.tracking.runs import FoldRun, PooledRun, configuration
from mer.evaluation import scoring
from tests.stand_in import KEY
from tests.tracked import read_runs


def table(run: dict, name: str) -> pd.DataFrame:
    (file,) = run["folder"].glob(f"files/media/table/{name}_*.table.json")
    content = json.loads(file.read_text())
    return pd.DataFrame(content["data"], columns=content["columns"])


def of(runs: list[dict], kind: str) -> list[dict]:
    return [run for run in runs if run["run"].job_type == kind]


def test_every_fold_and_every_seed_is_a_run_of_its_cell(logged, swept):
    (cell,) = cells(swept)
    assert {run["run"].run_group for run in logged} == {f"flow_maps-megc2019-loso-ststnet-{cell.digest}"}
    assert {run["run"].project for run in logged} == {"mer"}
    folds = [("fold", FoldRun(cell, seed, fold).id(), seed, fold) for seed in (0, 1) for fold in cell.folds]
    pools = [("sweep", PooledRun(cell, seed).id(), seed, None) for seed in (0, 1)]
    runs = [
        (run["run"].job_type, run["run"].run_id, run["config"]["seed"], run["config"].get("fold")) for run in logged
    ]
    assert sorted(runs, key=str) == sorted(folds + pools, key=str)
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
        for kind, column in KINDS.items():
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
        (artifact,) = [item for item in run["artifacts"] if item.type == "predictions"]
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


def test_pictures_are_logged_when_asked_for(copied, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    draws = np.random.default_rng(0)
    first, second, third = (Fold(copied, name, 0).file.with_suffix(".safetensors") for name in copied.folds)
    third.unlink()
    for path in (first, second):
        tensors = {"attention": draws.random((6, 7, 7)), "flow": draws.normal(size=(6, 3, 28, 28))}
        store.write(path, {name: values.astype(np.float16) for name, values in tensors.items()})
    face = draws.integers(0, 255, (3, 64, 64)).astype(np.uint8)
    store.write(tmp_path / "cache/one.safetensors", {"apex": face})
    clips = pd.read_csv(copied.folder / "clips.csv", dtype=str).assign(cached="")
    clips.loc[0, "cached"] = "one.safetensors"
    clips.to_csv(copied.folder / "clips.csv", index=False)

    with Uploads(Request(copied.results, ((copied, 0),), cache=tmp_path / "cache"), Console()) as uploads:
        uploads.finish()
    assert not uploads.problem and not uploads.left
    (run,) = of(read_runs(copied.results), "sweep")
    (stored,) = [item for item in run["artifacts"] if item.type == "run_table" and item.name.endswith("-clips")]
    places = {entry.path: Path(entry.local_path) for entry in stored.manifest.contents}
    content = json.loads(places["clips.table.json"].read_text())
    rows = pd.DataFrame(content["data"], columns=content["columns"])
    for name in ("flow", "attention"):
        assert rows[name].notna().tolist() == [True] * 12 + [False] * 6
        assert all(places[image["path"]].is_file() for image in rows[name][:12])
    assert len({places[image["path"]].read_bytes() for image in rows["attention"][:12]}) == 12


def test_the_commit_is_that_of_the_file_or_nothing(tmp_path):
    file = tmp_path / "tracking.py"
    file.write_text("first")
    assert commit.__wrapped__(file) is None

    def git(*arguments: str) -> str:
        person = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(["git", "-C", tmp_path, *person, *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init")
    assert commit.__wrapped__(file) is None  # a checkout of something else
    git("add", ".")
    git("commit", "-m", "first")
    assert commit.__wrapped__(file) == git("rev-parse", "HEAD")
    file.write_text("second")
    assert commit.__wrapped__(file) == git("rev-parse", "HEAD") + "-dirty"


def test_the_configuration_names_no_folder(flow_maps, tmp_path):
    job = jobs.Job("flow_maps", "ststnet", root=str(flow_maps), results=str(tmp_path), cache=str(tmp_path / "cache"))
    experiment = Experiment(job)
    config = yaml.safe_load(experiment.yaml)
    config["model"]["own"] = [{"weights": "/somewhere/else"}, "~/mine", "kept"]
    config["data"]["init_args"]["faces"] = "beside/it"
    content = configuration(experiment.cell, config, {**experiment.origin, "path_arguments": ["root", "faces"]})
    text = json.dumps(content)
    assert not [place for place in (str(flow_maps), str(tmp_path), "/somewhere", "~", "beside/it") if place in text]
    assert content["configuration"]["model"]["own"] == [{}, "kept"]

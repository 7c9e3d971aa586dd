"""Trials of a W&B search."""

import shutil

import pytest
import yaml

from experiments import jobs, report
from experiments.cli import main
from experiments.results import Cell, Fold, cells
from experiments.tracking.figures import seed_scores
from tests.tracked import read_runs, sweep


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


OUTER = "--data.outer_fold=smic-s1"


@pytest.mark.usefixtures("trial")
def test_a_trial_is_the_run_of_the_agent_and_its_objective_an_inner_score(flow_maps, tmp_path):
    for _ in range(2):  # the second one trains nothing, and still reports
        assert sweep(flow_maps, tmp_path, OUTER, "--model.lr=0.004") == 0
        (run,) = read_runs(tmp_path)
        (folder,) = tmp_path.glob("flow_maps/megc2019/loso-without-smic-s1/ststnet-*")
        assert list(cells(tmp_path)) == []  # its scores are not those of the protocol
        digest = folder.name.removeprefix("ststnet-")
        cell = Cell(tmp_path, "flow_maps", "megc2019", "loso", "ststnet", digest, outer_fold="smic-s1")
        shutil.rmtree(tmp_path / "wandb")
        assert run["run"].run_id == "trial01" and run["run"].sweep_id == "search01"
        assert run["config"]["model.lr"] == 0.004
        assert run["config"]["configuration"]["model"]["init_args"]["lr"] == 0.004
        assert run["summary"]["inner/uf1"] == report.seed_status(cell, 0)["honest"]["uf1"]
        assert not any(name.startswith("honest/") for name in run["summary"])
    assert list(cell.folds) == ["smic-s2", "smic-s3"] and set(cell.pooled(0)["subject"]) == {"s2", "s3"}
    Fold(cell, "smic-s2", 0).file.unlink()
    assert not any(name.startswith("inner/") for name in seed_scores(cell, 0))  # nothing to choose by


@pytest.mark.usefixtures("trial")
@pytest.mark.parametrize(
    ("more", "word"),
    [
        ((), "--data.outer_split=loso --data.outer_fold=smic-s1"),
        (("--data.split=groups2",), "--data.outer_split=groups2 --data.outer_fold=group1"),
        (("--data.outer_split=groups2",), "name a fold of it with --data.outer_fold"),
        ((OUTER, "--seeds", "0,1"), "one seed"),
        (("--data.outer_fold=smic-s9",), "no outer fold 'smic-s9'"),
    ],
)
def test_a_trial_that_would_choose_by_test_subjects_is_refused(flow_maps, tmp_path, capsys, more, word):
    assert sweep(flow_maps, tmp_path, *more) == 2
    assert word in capsys.readouterr().err


def test_the_search_drives_mer_sweep(flow_maps, tmp_path):
    search = yaml.safe_load((jobs.CONFIGS / "search.yaml").read_text())
    assert search["metric"] == {"name": "inner/uf1", "goal": "maximize"} and search["project"] == "mer"
    drawn = {name: space.get("values", [space.get("min")])[-1] for name, space in search["parameters"].items()}
    program, *words, last = search["command"]
    assert program == "mer" and last == "${args}"
    words += [f"--{name}={value}" for name, value in drawn.items()]  # what W&B documents of ${args}
    words = [f"--root={flow_maps}" if word.startswith("--root=") else word for word in words]
    words = [word.replace("groups3", "groups2").replace("groups5", "groups3") for word in words]  # three subjects
    assert main([*words, "--dry-run", "--results", str(tmp_path)]) == 0


def test_the_search_is_no_model():
    assert "search" not in jobs.models() and "ststnet" in jobs.models()

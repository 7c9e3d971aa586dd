"""A sweep that many tests read, trained once per test process."""

import shutil
from pathlib import Path

import pytest

from experiments.results import Cell, cells
from tests.tracked import KEY, read_runs, sweep


@pytest.fixture(scope="session")
def swept(flow_maps, tmp_path_factory) -> Path:
    """Three folds with two seeds, logged offline although there is a key. Read only."""
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_X_STATS_SAMPLING_INTERVAL", "0.1")
        assert sweep(flow_maps, results, "--seeds", "0,1") == 0
    return results


@pytest.fixture(scope="session")
def logged(swept) -> list[dict]:
    return read_runs(swept)


@pytest.fixture
def copied(swept, tmp_path) -> Cell:
    """The same results without what was logged, to spoil."""
    shutil.copytree(swept, tmp_path / "results", ignore=shutil.ignore_patterns("wandb"))
    (cell,) = cells(tmp_path / "results")
    return cell


@pytest.fixture
def no_key(monkeypatch, tmp_path) -> None:
    """No key for W&B, whatever the machine has."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

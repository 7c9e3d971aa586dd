"""A sweep that many tests read, trained once per test process, and a server to upload it to."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.results import Cell, cells
from tests.stand_in import KEY, StandIn
from tests.tracked import read_runs, sweep


@pytest.fixture(scope="session")
def swept(flow_maps, tmp_path_factory) -> Path:
    """Three folds with two seeds, logged offline although there is a key. Read only."""
    results = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", KEY)
        patch.setenv("WANDB_MODE", "offline")
        assert sweep(flow_maps, results, "--seeds", "0,1") == 0
    return results


@pytest.fixture(scope="session")
def logged(swept) -> list[dict]:
    return read_runs(swept)


@pytest.fixture
def copied(swept, tmp_path) -> Cell:
    """The same results, one seed of them, without what was logged; to spoil."""
    shutil.copytree(swept, tmp_path / "results", ignore=shutil.ignore_patterns("wandb", "seed1"))
    (cell,) = cells(tmp_path / "results")
    return cell


@pytest.fixture
def server(monkeypatch) -> Iterator[StandIn]:
    """A W&B server, for which there is a key."""
    with StandIn() as stand_in:
        monkeypatch.setenv("WANDB_BASE_URL", stand_in.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield stand_in


@pytest.fixture
def no_key(monkeypatch, tmp_path) -> None:
    """No key for W&B, whatever the machine has."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

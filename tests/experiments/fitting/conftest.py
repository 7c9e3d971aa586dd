"""A model that many tests read, fitted once per test process."""

import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from experiments import workers
from tests.experiments.fitting.command import run


@pytest.fixture(scope="session")
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


@pytest.fixture
def trained_before(monkeypatch, place):
    """The workers return what they have trained for ``place``."""
    tensors = load_file(place / "models/flow_maps-ststnet/model.safetensors")

    def trained(work, jobs, devices):
        for index, (*_, (seed,)) in enumerate(jobs):
            start = f"seed{seed}."
            yield index, [{key.removeprefix(start): x for key, x in tensors.items() if key.startswith(start)}]

    monkeypatch.setattr(workers, "run", trained)

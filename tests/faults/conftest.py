"""A tiny dataset, and the results of a sweep of it that nothing disturbs; made once per test process."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from experiments.cli import main
from tests.faults.commands import contents

OPTIONS = ["--trainer.max_steps=30", "--data.batch_size=8", "--data.crop_size=64"]


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="the long form of the fault tests")
    parser.addoption("--torture-seed", type=int, help="repeats the random kills of an earlier run")


@dataclass(frozen=True)
class Faces:
    """A folder of synthetic faces: three subjects, three clips each."""

    root: Path

    def arguments(self, command: str, folder: Path) -> list[str]:
        """Arguments of a sweep of three seeds, or of a preparation, with ``results`` and ``cache`` in a folder."""
        shared = [command, "--dataset", "synthetic", "--root", str(self.root), "--model", "ststnet", "--workers", "2"]
        own = ["--seeds", "0,1,2", "--results", str(folder / "results")] if command == "sweep" else []
        return [*shared, *own, "--cache", str(folder / "cache"), *OPTIONS]


@pytest.fixture(scope="session")
def faces(films) -> Faces:
    return Faces(films)


@pytest.fixture(scope="session")
def undisturbed(faces, tmp_path_factory) -> dict[str, bytes | None]:
    """Every file that a sweep leaves, see ``contents``."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert main(faces.arguments("sweep", folder)) == 0
    return contents(folder / "results", folder / "cache")

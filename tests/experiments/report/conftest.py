"""A report that many tests read, written once per test process."""

import pytest

from experiments import report
from experiments.report import boards
from tests import sweeps


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """``results`` with their report, and ``cache``, see ``sweeps.write``. Read only."""
    folder = tmp_path_factory.mktemp("report")
    report.write(sweeps.write(folder), folder / "cache")
    return folder


@pytest.fixture(scope="session")
def page(root):
    return (root / "results/report/index.html").read_text()


@pytest.fixture(scope="session")
def board(root):
    """The one of three models."""
    return next(one for one in boards.read(root / "results")[0] if one.dataset == "megc2019")

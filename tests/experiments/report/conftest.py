"""A report that many tests read, written once per test process."""

import pytest

from experiments import report
from experiments.report.comparison import read_comparisons
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
def comparison(root):
    """The one with three models."""
    return next(item for item in read_comparisons(root / "results")[0] if item.dataset == "megc2019")

import importlib.util
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from experiments.cli import main
from experiments.results import Cell, Fold
from experiments.tracking import group_name
from experiments.tracking.dashboard import specification

needs_the_extra = pytest.mark.skipif(
    importlib.util.find_spec("wandb_workspaces") is None, reason="needs the extra `dashboard`"
)


@pytest.fixture
def compared(tmp_path) -> list[Cell]:
    """Two models on one dataset and one on another, each with a fold done."""
    cells = [
        Cell(tmp_path, "flow_maps", "megc2019", "loso", "ahmsa_net", "a" * 12),
        Cell(tmp_path, "flow_maps", "megc2019", "loso", "ststnet", "b" * 12),
        Cell(tmp_path, "smic", "smic-3", "loso", "ststnet", "c" * 12),
    ]
    clips = pd.DataFrame(
        [(name, subject, "c1", "negative") for name in ("casme2", "smic") for subject in ("s1", "s2")],
        columns=["dataset", "subject", "clip", "target"],
    )
    for cell in cells:
        cell.write_header(clips, "model: {}\n")
        (cell.folder / "seed0").mkdir()
        Fold(cell, "smic-s1", 0).file.touch()
    return cells


def grids(compared) -> list:
    """The panel grids of the page."""
    from wandb_workspaces.reports.v2 import PanelGrid

    page = specification(compared, "somebody")
    assert page.project == "mer" and page.entity == "somebody"
    return [block for block in page.blocks if isinstance(block, PanelGrid)]


@needs_the_extra
def test_there_is_a_run_set_per_group_and_the_runs_of_folds_stay_apart(compared):
    from wandb_workspaces.expr import string_to_filterexpr_list

    filters = [
        [{item.key.name: item.value for item in string_to_filterexpr_list(runset.filters)} for runset in grid.runsets]
        for grid in grids(compared)
    ]
    assert filters == [
        [{"Group": group_name(cell), "JobType": kind} for cell in models]
        for models in (compared[:2], compared[2:])
        for kind in ("sweep", "fold")
    ]


@needs_the_extra
def test_panels_show_scores_curves_and_the_clips(compared):
    from wandb_workspaces.reports.v2 import BarPlot

    scores, curves = grids(compared)[:2]
    *bars, clips = scores.panels
    assert len(bars) == 6 and all(isinstance(bar, BarPlot) and bar.groupby == "Group" for bar in bars)
    metrics = [name for bar in bars for name in bar.metrics]
    assert metrics[:3] == ["honest/uf1", "honest/uar", "honest/accuracy"]
    for name in ("optimistic/uf1", "honest/parts/casme2/uf1", "honest/parts/smic/uf1", "honest/classes/surprise/f1"):
        assert name in metrics
    assert clips.table_name == "clips"
    assert [plot.y for plot in curves.panels] == [["train/loss"], ["lr"]]


def complaint(capsys, *arguments: str) -> str:
    assert main(["dashboard", *arguments]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and error.count("\n") == 1
    return error


def test_nothing_to_compare_is_named(capsys, tmp_path):
    assert str(tmp_path) in complaint(capsys, "--results", str(tmp_path))


def test_a_missing_extra_is_named(capsys, compared, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    error = complaint(capsys, "--results", str(compared[0].results))
    assert "wandb-workspaces" in error and "uv pip install" in error


@needs_the_extra
@pytest.mark.usefixtures("no_key")
def test_a_missing_key_is_named(capsys, compared):
    error = complaint(capsys, "--results", str(compared[0].results))
    assert "wandb login" in error and "WANDB_API_KEY" in error


def upload(results: Path) -> subprocess.CompletedProcess:
    """The command in a process of its own: wandb reads its settings once."""
    command = [sys.executable, "-m", "experiments.cli", "dashboard", "--results", str(results)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_the_extra
def test_a_folder_has_one_page_which_is_updated(compared, server):
    results = compared[0].results
    first, again = upload(results), upload(results)
    assert first.returncode == again.returncode == 0, first.stderr + again.stderr
    (page,) = server.views.values()
    assert f"dashboard: {server.url}/lab/mer/reports/" in again.stdout and page["projectName"] == "mer"
    assert all(group_name(cell) in page["spec"] for cell in compared)
    server.views.clear()
    assert upload(results).returncode == 0 and len(server.views) == 1


@needs_the_extra
def test_a_server_that_fails_is_named(compared, server):
    server.fault = lambda *_: 500
    done = upload(compared[0].results)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"did not take the dashboard: {server.url} answers with error 500" in done.stderr

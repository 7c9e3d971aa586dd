import importlib.util
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest

from experiments.cli import main
from experiments.results import Cell, Fold
from experiments.tracking import dashboard, group_name
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
        [{"Group": group_name(cell), "JobType": kind} for cell in together]
        for models in (compared[:2], compared[2:])
        for together, kind in ((models, "sweep"), *(([cell], "sweep") for cell in models), (models, "fold"))
    ]


@needs_the_extra
def test_panels_show_scores_runs_confusions_curves_and_clips(compared):
    from wandb_workspaces.reports.v2 import BarPlot, LinePlot, ScatterPlot

    scores, first, second, curves = grids(compared)[:4]
    by_kind = {kind: [panel for panel in scores.panels if isinstance(panel, kind)] for kind in (BarPlot, LinePlot)}
    metrics = [name for bar in by_kind[BarPlot] for name in bar.metrics]
    assert metrics[:3] == ["honest/uf1", "honest/uar", "honest/accuracy"] and "optimistic/uf1" in metrics
    assert {"honest/parts/casme2/uf1", "honest/parts/smic/uf1", "honest/classes/surprise/f1"} < set(metrics)
    assert "honest/classes/surprise/recall" in metrics
    (against,) = [panel for panel in scores.panels if isinstance(panel, ScatterPlot)]
    assert (against.x.name, against.y.name) == ("honest/uf1", "optimistic/uf1")
    assert [plot.y for plot in (*by_kind[LinePlot], *curves.panels)] == [["running/uf1"], ["train/loss"], ["lr"]]
    assert scores.panels[-1].table_name == "clips" and not scores.hide_run_sets
    assert all(runset.order[0].name.name == "honest/uf1" for runset in scores.runsets)  # the table of runs, best first
    places = [(panel.layout.x, panel.layout.y) for panel in scores.panels]
    assert len(set(places)) == len(places)
    for grid, cell in ((first, compared[0]), (second, compared[1])):
        (chart,) = grid.panels
        assert chart.query == {"summaryTable": {"tableKey": "confusion_table"}} and cell.label in str(
            chart.chart_strings
        )


@needs_the_extra
def test_a_page_that_is_not_what_was_sent_is_refused(compared, tmp_path, monkeypatch):
    from wandb_workspaces.reports.v2 import Report

    page = specification(compared, "somebody")
    for sent, fits in ((page.blocks, True), (page.blocks[:-1], False), ([*page.blocks[:-1], page.blocks[3]], False)):
        monkeypatch.setattr(Report, "save", lambda self: None)
        monkeypatch.setattr(Report, "url", "https://wandb.example/page")
        monkeypatch.setattr(
            Report, "from_url", lambda url, blocks=sent: Report(project="mer", entity="somebody", blocks=blocks)
        )
        with nullcontext() if fits else pytest.raises(ConnectionError, match="not what was sent"):
            dashboard._save(page, tmp_path / "dashboard.json")


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
    sent = [*map(group_name, compared), "confusion_matrix", "honest/uf1", "optimistic/uf1", "train/loss", "surprise/f1"]
    assert all(text in page["spec"] for text in sent)
    server.views.clear()
    assert upload(results).returncode == 0 and len(server.views) == 1


@needs_the_extra
def test_a_server_that_fails_is_named(compared, server):
    server.fault = lambda *_: 500
    done = upload(compared[0].results)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"did not take the dashboard: {server.url} answers with error 500" in done.stderr

import importlib.util
import json
import sys

import pandas as pd
import pytest

from experiments.cli import main
from experiments.results import Cell
from experiments.tracking import group
from experiments.tracking.dashboard import specification

needs_the_extra = pytest.mark.skipif(
    importlib.util.find_spec("wandb_workspaces") is None, reason="needs the extra `dashboard`"
)


@pytest.fixture
def found(tmp_path) -> list[Cell]:
    """Two models on one dataset and one on another, each with a fold done."""
    cells = [
        Cell(tmp_path, "flow_maps", "megc2019", "loso", "ahmsa_net", "a" * 12),
        Cell(tmp_path, "flow_maps", "megc2019", "loso", "ststnet", "b" * 12),
        Cell(tmp_path, "smic", "smic-3", "loso", "ststnet", "c" * 12),
    ]
    clips = pd.DataFrame(
        [(name, f"s{one}", "c1", "negative") for name in ("casme2", "smic") for one in "12"],
        columns=["dataset", "subject", "clip", "target"],
    )
    for cell in cells:
        cell.describe(clips, "model: {}\n")
        (cell.folder / "seed0").mkdir()
        cell.file(0, "smic-s1").touch()
    return cells


def grids(found) -> list[dict]:
    """The panel grids of the page as it would be sent."""
    page = specification(found, "somebody")
    assert page.project == "mer" and page.entity == "somebody"
    sent = json.loads(page._to_model().model_dump_json(by_alias=True))
    blocks = json.loads(sent["spec"])["blocks"] if isinstance(sent["spec"], str) else sent["spec"]["blocks"]
    return [block["metadata"] for block in blocks if block["type"] == "panel-grid"]


@needs_the_extra
def test_there_is_a_run_set_per_group_and_the_runs_of_folds_stay_apart(found):
    kept = [
        [[(one["key"]["name"], one["value"]) for one in runset["filters"]["filters"]] for runset in grid["runSets"]]
        for grid in grids(found)
    ]
    boards = [found[:2], found[2:]]
    assert kept == [
        [[("group", group(cell)), ("jobType", kind)] for cell in board]
        for board in boards
        for kind in ("sweep", "fold")
    ]


@needs_the_extra
def test_panels_show_scores_curves_and_the_clips(found):
    scores, curves = grids(found)[:2]
    panels = scores["panelBankSectionConfig"]["panels"]
    metrics = [tuple(one["config"].get("metrics", ())) for one in panels]
    assert metrics[:3] == [("honest/uf1",), ("honest/uar",), ("honest/accuracy",)]
    assert [one["viewType"] for one in panels].count("Bar Chart") == 6
    assert all(one["config"]["groupBy"] == "group" for one in panels if one["viewType"] == "Bar Chart")
    assert "clips" in json.dumps(panels[-1])
    text = json.dumps(panels)
    for name in ("optimistic/uf1", "parts/casme2/uf1", "parts/smic/uf1", "classes/surprise/f1", "honest/accuracy"):
        assert name in text
    lines = curves["panelBankSectionConfig"]["panels"]
    assert [one["config"]["metrics"] for one in lines] == [["train/loss"], ["lr"]]


def complaint(capsys, *arguments: str) -> str:
    assert main(["dashboard", *arguments]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and error.count("\n") == 1
    return error


def test_nothing_to_compare_is_named(capsys, tmp_path):
    assert str(tmp_path) in complaint(capsys, "--results", str(tmp_path))


def test_a_missing_extra_is_named(capsys, found, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    error = complaint(capsys, "--results", str(found[0].results))
    assert "wandb-workspaces" in error and "uv pip install" in error


@needs_the_extra
def test_a_missing_key_is_named(capsys, found, monkeypatch):
    monkeypatch.setattr("wandb.api", type("Api", (), {"api_key": None}))
    error = complaint(capsys, "--results", str(found[0].results))
    assert "wandb login" in error and "WANDB_API_KEY" in error


@needs_the_extra
def test_a_refusal_is_named(capsys, found, monkeypatch):
    def refuse(**settings):
        raise ConnectionError("no such host")

    monkeypatch.setattr("wandb.api", type("Api", (), {"api_key": "0123456789abcdef" * 3}))
    monkeypatch.setattr("wandb.Api", refuse)
    error = complaint(capsys, "--results", str(found[0].results))
    assert "did not take the dashboard" in error and "no such host" in error

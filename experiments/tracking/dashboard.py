"""The page on Weights & Biases that compares what lies in the results folder, built by code.

Its specification is a ``Report`` of wandb-workspaces (the optional extra ``dashboard``). It is made without an account;
only ``upload`` needs one.
"""

import json
import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from data_modules.cache.store import write_text
from experiments.results import Cell, cells
from experiments.tracking import group_name
from experiments.tracking.server import connect, reason, without_reports
from mer import InputError

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Block, Report  # pyright: ignore[reportMissingImports]

TITLE = "Micro-expression recognition: models compared"
COLUMNS = ("honest/uf1", "honest/uar", "honest/accuracy", "optimistic/uf1", "folds_done")  # of the table of runs
NOTE = (
    "Honest scores are pooled over all folds, the number of steps fixed beforehand. The optimistic ones pick each "
    "fold's epoch on its own test subject, as much of the literature does, and rank nothing. Bars are means over "
    "seeds. The intervals of every run (..._low, ..._high) are bootstraps over subjects."
)


def upload(results: Path) -> str:
    """Put the page of a results folder on W&B, in the place of the one that was made of it before.

    Returns:
        Its address.

    Raises:
        InputError: If the extra or the key is missing, there is nothing to compare or W&B refuses it.
    """
    compared = [cell for cell in cells(results) if cell.seeds()]
    if not compared:
        raise InputError(f"{results}: holds nothing to compare; run `make sweep` first, or name another with --results")
    os.environ |= without_reports(dict(os.environ))
    try:
        import wandb
        import wandb_workspaces.reports.v2  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError(
            f"`mer dashboard` needs wandb-workspaces ({error}): install the extra, "
            ".venv/bin/uv pip install --python .venv/bin/python wandb-workspaces"
        ) from error
    own = wandb.setup().settings
    try:
        entity = own.entity or connect(own).default_entity
        return _save(specification(compared, entity, own.project or "mer"), results / "wandb" / "dashboard.json")
    except Exception as error:  # of many kinds: wandb's, requests', GraphQL's
        raise InputError(f"Weights & Biases did not take the dashboard: {reason(error)}") from error


def _save(page: "Report", file: Path) -> str:
    """Save a page, under the id that a file has where there is one, and read it back; returns its address."""
    import wandb
    import wandb_workspaces.reports.v2 as wr  # pyright: ignore[reportMissingImports]

    where = f"{wandb.setup().settings.base_url}/{page.entity}/{page.project}"
    known = json.loads(file.read_text()) if file.exists() else {}
    page.id = known.get(where, "")
    try:
        page.save()
    except Exception:
        if not page.id:
            raise
        page.id = ""  # it was deleted
        page.save()
    write_text(file, json.dumps({**known, where: page.id}))
    if _outline(wr.Report.from_url(page.url)) != _outline(page):
        raise ConnectionError(f"{page.url} is not what was sent")
    return page.url


def _outline(page: "Report") -> list[tuple]:
    """The kind and title of every block and panel."""
    return [
        (type(block), [(type(panel), getattr(panel, "title", None)) for panel in getattr(block, "panels", ())])
        for block in page.blocks
    ]


def specification(compared: Sequence[Cell], entity: str, project: str = "mer") -> "Report":
    """The page: per dataset, protocol and split scores, runs, clips, confusions and curves.

    Args:
        compared: The cells to compare, those of one dataset, protocol and split side by side.
        entity: Whose project it is on W&B.
        project: The project.
    """
    import wandb_workspaces.reports.v2 as wr  # pyright: ignore[reportMissingImports]

    blocks = [wr.P(NOTE), wr.TableOfContents()]
    for key, group in groupby(compared, key=lambda cell: (cell.dataset, cell.protocol, cell.split)):
        blocks += [wr.H1(", ".join(key)), *_grids(list(group))]
    return wr.Report(project=project, entity=entity, title=TITLE, description=NOTE, blocks=blocks, width="fluid")


def _grids(models: list[Cell]) -> "list[Block]":
    """Scores of all models beside a table of their runs, the confusion of each, and the curves of their folds."""
    import wandb_workspaces.reports.v2 as wr  # pyright: ignore[reportMissingImports]

    def runset(cell: Cell, kind: str) -> wr.Runset:
        """The pooled runs of a cell, one per seed, or the runs of its folds; the best first."""
        return wr.Runset(
            name=cell.label,
            filters=f"Metric('Group') = '{group_name(cell)}' and Metric('JobType') = '{kind}'",
            groupby=["Group"],
            order=[wr.OrderBy(wr.SummaryMetric("honest/uf1"))],
            pinned_columns=[f"summary:{name}" for name in COLUMNS],
        )

    def placed(panels: list, width: int = 8) -> list:
        """The same panels, row by row in a grid of 24 columns."""
        for index, panel in enumerate(panels):
            row, column = divmod(index * width, 24)
            panel.layout = wr.Layout(x=column, y=7 * row, w=width, h=7)
        return panels

    def bars(title: str, *metrics: str) -> wr.BarPlot:
        return wr.BarPlot(title=title, metrics=list(metrics), range_x=(0.0, 1.0), groupby_rangefunc="stddev", **mean)

    def lines(title: str, x: str, y: str) -> wr.LinePlot:
        return wr.LinePlot(title=title, x=x, y=[y], smoothing_factor=0.0, groupby_rangefunc="minmax", **mean)

    mean = {"groupby": "Group", "groupby_aggfunc": "mean"}
    databases, classes = sorted(set(models[0].clips["dataset"])), models[0].classes
    against = {"x": wr.SummaryMetric("honest/uf1"), "y": wr.SummaryMetric("optimistic/uf1")}
    scores = [
        bars("UF1", "honest/uf1"),
        bars("UAR", "honest/uar"),
        bars("accuracy", "honest/accuracy"),
        wr.ScatterPlot(title="honest against optimistic UF1", **against),
        bars("optimistic UF1, ranks nothing", "optimistic/uf1"),
        bars("UF1 by database", *(f"honest/parts/{name}/uf1" for name in databases)),
        bars("F1 by class", *(f"honest/classes/{name}/f1" for name in classes)),
        bars("recall by class", *(f"honest/classes/{name}/recall" for name in classes)),
        lines("UF1 of the folds done", "folds_done", "running/uf1"),
    ]
    clips = wr.WeavePanelSummaryTable(table_name="clips", layout=wr.Layout(x=0, y=21, w=24, h=14))
    confusions = [
        wr.CustomChart(
            query={"summaryTable": {"tableKey": "confusion_table"}},
            chart_name="wandb/confusion_matrix/v1",
            chart_fields={name: name for name in ("Actual", "Predicted", "nPredictions")},
            chart_strings={"title": f"{cell.label}: true class by predicted class"},
        )
        for cell in models
    ]
    curves = [lines("training loss, all folds", "Step", "train/loss"), lines("learning rate", "Step", "lr")]
    return [
        wr.PanelGrid(runsets=[runset(cell, "sweep") for cell in models], panels=[*placed(scores), clips]),
        wr.H2("Confusion"),
        *(
            wr.PanelGrid(runsets=[runset(cell, "sweep")], panels=placed([chart], width=12), hide_run_sets=True)
            for cell, chart in zip(models, confusions)
        ),
        wr.H2("Curves"),
        wr.PanelGrid(
            runsets=[runset(cell, "fold") for cell in models], panels=placed(curves, width=12), hide_run_sets=True
        ),
    ]

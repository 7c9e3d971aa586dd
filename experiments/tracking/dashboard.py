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
from experiments.tracking.server import NO_KEY, NoKey, connect, reason, without_reports
from mer import InputError

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import PanelGrid, Report  # pyright: ignore[reportMissingImports]

TITLE = "Micro-expression recognition: models compared"
SCORES = {"uf1": "UF1", "uar": "UAR", "accuracy": "accuracy"}
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
    except NoKey:
        raise InputError(f"{NO_KEY}. `make report` compares without an account.") from None
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
    if len(wr.Report.from_url(page.url).blocks) != len(page.blocks):
        raise ConnectionError(f"{page.url} is not what was sent")
    return page.url


def specification(compared: Sequence[Cell], entity: str, project: str = "mer") -> "Report":
    """The page: per dataset, protocol and split a table of contents, scores, curves and clips.

    Args:
        compared: The cells to compare, those of one dataset, protocol and split side by side.
        entity: Whose project it is on W&B.
        project: The project.
    """
    import wandb_workspaces.reports.v2 as wr  # pyright: ignore[reportMissingImports]

    blocks = [wr.P(NOTE), wr.TableOfContents()]
    for key, group in groupby(compared, key=lambda cell: (cell.dataset, cell.protocol, cell.split)):
        blocks += [wr.H1(", ".join(key)), *_panels(list(group))]
    return wr.Report(project=project, entity=entity, title=TITLE, description=NOTE, blocks=blocks, width="fluid")


def _panels(models: list[Cell]) -> "list[PanelGrid]":
    """Scores over all run sets, and the curves of their folds."""
    import wandb_workspaces.reports.v2 as wr  # pyright: ignore[reportMissingImports]

    def runsets(kind: str) -> list[wr.Runset]:
        """One set of runs per cell: its pooled runs, one per seed, or the runs of its folds."""
        return [
            wr.Runset(
                name=cell.label,
                filters=f"Metric('Group') = '{group_name(cell)}' and Metric('JobType') = '{kind}'",
                groupby=["Group"],
            )
            for cell in models
        ]

    def bars(title: str, metrics: list[str], x: int, y: int) -> wr.BarPlot:
        return wr.BarPlot(
            title=title,
            metrics=metrics,
            groupby="Group",
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            range_x=(0.0, 1.0),
            layout=wr.Layout(x=x, y=y, w=8, h=7),
        )

    databases, classes = sorted(set(models[0].clips["dataset"])), models[0].classes
    scores = [bars(title, [f"honest/{name}"], 8 * index, 0) for index, (name, title) in enumerate(SCORES.items())]
    scores += [
        bars("optimistic UF1, ranks nothing", ["optimistic/uf1"], 0, 7),
        bars("UF1 by database", [f"honest/parts/{name}/uf1" for name in databases], 8, 7),
        bars("F1 by class", [f"honest/classes/{name}/f1" for name in classes], 16, 7),
        wr.WeavePanelSummaryTable(table_name="clips", layout=wr.Layout(x=0, y=14, w=24, h=14)),
    ]
    curves = [
        wr.LinePlot(
            title=title,
            x="Step",
            y=[name],
            groupby="Group",
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            smoothing_factor=0.0,
            layout=wr.Layout(x=12 * index, y=0, w=12, h=8),
        )
        for index, (name, title) in enumerate({"train/loss": "training loss, all folds", "lr": "learning rate"}.items())
    ]
    return [
        wr.PanelGrid(runsets=runsets("sweep"), panels=scores),
        wr.PanelGrid(runsets=runsets("fold"), panels=curves, hide_run_sets=True),
    ]

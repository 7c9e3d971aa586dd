"""The scores of a run, by name."""

import pandas as pd

from experiments import report
from experiments.report.scores import KINDS
from experiments.results import Cell
from mer.evaluation import scoring


def seed_scores(cell: Cell, seed: int) -> dict[str, float]:
    """The report's scores of one seed, flat, with an interval for every score and the scores of every class.

    They are called ``honest/...`` and ``optimistic/...``; honest scores of inner folds are ``inner/...``, and there
    are none before every inner fold is done, because a search may pick by them.
    """
    table, status = cell.pooled(seed), report.seed_status(cell, seed)
    del status["seed"]
    for kind, column in KINDS.items():
        for score, (low, high) in scoring.intervals([table], cell.classes, column).items():
            status[kind] |= {f"{score}_low": low, f"{score}_high": high}
        status[kind]["classes"] = scoring.per_class(table, cell.classes, column)
    if cell.outer_fold:
        scores = status.pop("honest")
        if status["folds_done"] == status["folds_total"]:
            status["inner"] = scores
    return pd.json_normalize(status, sep="/").to_dict("records")[0]

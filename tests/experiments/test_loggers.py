import json

import pandas as pd
import pytest

from experiments.results import Fold, cells
from tests.tracked import sweep


@pytest.mark.parametrize("stacked", ["true", "false"])
def test_a_logger_gets_the_curve_of_every_fold_and_changes_no_result(flow_maps, tmp_path, monkeypatch, stacked):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    logger = f"--trainer.logger=CSVLogger --trainer.logger.save_dir={tmp_path}/logs --trainer.logger.name=mine".split()
    for results, more in ((tmp_path / "with", logger), (tmp_path / "without", ())):
        assert sweep(flow_maps, results, f"--stacked={stacked}", *more) == 0
    (cell,), (plain,) = cells(tmp_path / "with"), cells(tmp_path / "without")
    assert cell.digest == plain.digest
    for name in cell.folds:
        fold = Fold(cell, name, 0)
        assert fold.file.read_bytes() == Fold(plain, name, 0).file.read_bytes()
        table = pd.read_csv(
            tmp_path / f"logs/mine/ststnet-{cell.digest}-seed0-{name}/metrics.csv", float_precision="round_trip"
        )
        curve = json.loads(fold.file.with_suffix(".json").read_text())["curve"]
        points = [(row["step"], row["train/loss"]) for row in curve if "train/loss" in row]
        assert points and table.dropna(subset="train/loss")[["step", "train/loss"]].to_numpy().tolist() == [
            list(point) for point in points
        ]


def test_a_logger_that_fails_costs_no_fold(flow_maps, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    (tmp_path / "logs").write_text("no folder")
    logger = f"--trainer.logger=CSVLogger --trainer.logger.save_dir={tmp_path}/logs".split()
    assert sweep(flow_maps, tmp_path / "results", *logger) == 0
    (cell,) = cells(tmp_path / "results")
    assert len(cell.done(0)) == len(cell.folds)

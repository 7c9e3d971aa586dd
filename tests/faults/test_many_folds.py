"""The status of very many folds; ``make torture`` prints how long it takes."""

import json
import os
import time

from data_modules import protocols
from experiments.results import Cell
from tests import sweeps
from tests.faults.commands import Command

MODELS = ("ahmsa_net", "hsta", "mfvan", "ststnet", "timm_baseline")


def test_status_of_5000_folds(tmp_path, request, capsys, monkeypatch):
    subjects, seeds = (100, 10) if request.config.getoption("--long", False) else (6, 2)
    clips = sweeps.clip_table({"casme3": subjects}, 9, protocols.protocol("casme3-7").classes, coded=())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        for number, model in enumerate(MODELS):
            cell = Cell(tmp_path / "results", "casme3", "casme3-7", "loso", model, f"{number}123456789ab")
            sweeps.write_cell(cell, clips, seeds, 1.0 + number / 4)
    start = time.monotonic()
    status = Command(["status", "--json", "--results", str(tmp_path / "results")], tmp_path)
    assert status.wait() == 0
    seconds = time.monotonic() - start
    assert not status.stray()
    shown = json.loads(status.output)
    counts = [(seed["folds_done"], seed["folds_total"]) for cell in shown for seed in cell["seeds"]]
    assert counts == [(subjects, subjects)] * len(MODELS) * seeds
    if subjects == 100:
        with capsys.disabled():
            print(f"\nmer status --json of {len(MODELS) * seeds * subjects} folds: {seconds:.1f} s")

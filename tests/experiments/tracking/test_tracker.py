"""Nothing that goes wrong with W&B stops a sweep, and what was logged offline is uploaded once."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.results import cells
from experiments.tracking import Entry, Tracker, tracker
from experiments.tracking.tracker import unsent
from tests.tracked import CONFIG, KEY, everything, log, read_run, sweep


def kinds(results: Path) -> list[str]:
    """Job types of the offline runs to upload."""
    return sorted(read_run(folder)["run"].job_type for folder in unsent(results))


def test_a_wrong_key_without_a_network_costs_one_line(flow_maps, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
    assert sweep(flow_maps, tmp_path) == 0
    shown = capsys.readouterr().out
    assert shown.count("Weights & Biases failed") == 1 and "make sync" in shown
    (cell,) = cells(tmp_path)
    assert len(cell.done(0)) == 3 and kinds(tmp_path) == ["fold"] * 3 + ["sweep"]


@pytest.mark.parametrize("harm", ["kill its service", "kill it", "stop it"])
def test_a_process_that_dies_or_hangs_is_replaced_once(copied, monkeypatch, harm):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(tracker, "PATIENCE", 12.0)
    entries = everything(copied)
    with Tracker(copied.results) as logger:
        logger.log(entries[0])
        while logger.waiting:
            logger.advance(wait=True)
        process = logger.process.pid
        if harm == "kill its service":
            listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
            process = next(int(pid) for pid, parent in map(str.split, listed.splitlines()) if int(parent) == process)
        os.kill(process, signal.SIGSTOP if harm == "stop it" else signal.SIGKILL)
        for entry in entries[1:]:
            logger.log(entry)
    assert "Weights & Biases failed" in logger.problem
    assert kinds(copied.results) == ["fold"] * 3 + ["sweep"]


def test_what_fails_twice_is_given_up(copied, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    broken = [Entry("fold", copied, 0, CONFIG, fold="nobody"), *everything(copied)]
    logger = log(copied.results, *broken)
    assert "stopped logging" in logger.problem and "results are complete" in logger.problem
    assert not logger.waiting


def test_nothing_to_upload_is_said(tmp_path, capsys):
    assert main(["sync", "--results", str(tmp_path)]) == 0
    assert "nothing to upload" in capsys.readouterr().out


@pytest.mark.usefixtures("no_key")
def test_a_missing_key_is_named(swept, capsys):
    assert main(["sync", "--results", str(swept)]) == 2
    error = capsys.readouterr().err
    assert "8 runs" in error and "wandb login" in error and "WANDB_API_KEY" in error


def test_every_run_is_uploaded_once(swept, capsys, monkeypatch):
    called = []

    def run(command, env, check):
        called.append(command)
        assert "WANDB_MODE" not in env
        for folder in command[4:]:
            (mark,) = Path(folder).glob("*.wandb")
            mark.with_suffix(".wandb.synced").touch()
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(subprocess, "run", run)
    try:
        assert main(["sync", "--results", str(swept)]) == 0
        assert main(["sync", "--results", str(swept)]) == 0
    finally:
        for mark in (swept / "wandb").rglob("*.synced"):
            mark.unlink()
    (command,) = called
    assert command[1:4] == ["-m", "wandb", "sync"] and len(command[4:]) == 8

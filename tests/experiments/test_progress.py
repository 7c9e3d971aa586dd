import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from data_modules.processes import verbosity
from experiments import progress
from experiments.progress import Display


class StandInCell:
    def __init__(self, model: str, folds: int):
        self.dataset, self.model, self.folds = "smic", model, [f"s{number}" for number in range(folds)]

    def done(self, seed: int) -> list[str]:
        return []


def folds_of(cell: StandInCell) -> list[SimpleNamespace]:
    return [SimpleNamespace(cell=cell, name=name, seed=0) for name in cell.folds]


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a test sets; UF1 is not asked for."""
    seconds = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(progress, "pooled_uf1", lambda cell, seed: 0.5)
    return seconds


@pytest.fixture(autouse=True)
def usual():
    verbosity.choose(quiet=False, verbose=False)
    yield
    verbosity.choose(quiet=False, verbose=False)


def run(clock, durations: dict[str, float], capsys) -> list[str]:
    """The lines of a sweep whose folds take these seconds, two folds of each model."""
    pending = [fold for model in durations for fold in folds_of(StandInCell(model, 2))]
    with Display(Console(width=200), pending) as display:
        for fold in pending:
            clock[0] += durations[fold.cell.model]
            display.advance([fold], [False])
    return capsys.readouterr().out.splitlines()


def test_the_time_left_is_that_of_each_model(clock, capsys):
    lines = run(clock, {"ststnet": 60.0, "hsta": 240.0}, capsys)
    assert "1 of 4 folds, 1.0 min left and that of hsta, not timed yet; last: ststnet seed 0 s0" in lines[0]
    assert "2 of 4 folds, 0.0 min left and that of hsta" in lines[1]
    assert "3 of 4 folds, 4.0 min left; last: hsta seed 0 s0" in lines[2]
    assert "4 of 4 folds, 0.0 min left; last" in lines[3]


def test_lines_are_seconds_apart_unless_all_are_asked_for(clock, capsys):
    assert len(run(clock, {"ststnet": 1.0, "hsta": 1.0}, capsys)) == 2  # the first and the last
    verbosity.choose(quiet=False, verbose=True)
    assert len(run(clock, {"ststnet": 1.0, "hsta": 1.0}, capsys)) == 4
    verbosity.choose(quiet=True, verbose=False)
    assert not run(clock, {"ststnet": 60.0}, capsys)


def test_a_stack_of_folds_counts_each(clock, capsys):
    pending = folds_of(StandInCell("ststnet", 6))
    with Display(Console(width=200), pending) as display:
        clock[0] = 60.0
        display.advance(pending[:4], [False] * 4)
    assert "4 of 6 folds, 0.5 min left; last: ststnet seed 0 s3" in capsys.readouterr().out

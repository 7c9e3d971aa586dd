import shlex
from argparse import Namespace

import pytest

from data_modules.processes import verbosity
from experiments import next_step
from experiments.arguments import parse


@pytest.fixture(autouse=True)
def not_by_make(monkeypatch):
    monkeypatch.delenv("MAKELEVEL", raising=False)


WORDS = "--dataset casme2 --root '/my data' --model ststnet --cache /c --stacked --allow my_lab --model.lr=1e-3"


def test_the_next_command_has_the_same_data_and_recipe():
    _, sweep = parse(["sweep", *shlex.split(WORDS), "--seeds", "0,1", "--folds", "a,b"])
    line = next_step.command("fit", sweep, "--searched")
    assert line.startswith("mer fit --searched --dataset casme2 --root '/my data'") and "--seeds" not in line
    _, fit = parse(shlex.split(line)[1:])
    shared = ("dataset", "root", "model", "cache", "stacked", "allow", "options")
    assert {name: getattr(fit, name) for name in shared} == {name: getattr(sweep, name) for name in shared}


def test_what_need_not_be_written_is_not():
    _, sweep = parse(["sweep"])
    assert next_step.command("fit", sweep) == "mer fit --dataset synthetic"
    assert (
        next_step.command("predict", Namespace(model="models/a b"), "CLIP") == "mer predict CLIP --model 'models/a b'"
    )


def test_who_called_make_is_told_make(monkeypatch):
    monkeypatch.setenv("MAKELEVEL", "1")
    _, sweep = parse(["sweep", *shlex.split(WORDS)])
    line = next_step.command("fit", sweep)
    assert line == (
        "make fit DATASET=casme2 DATA='/my data' MODEL=ststnet "
        "ARGS='--cache /c --stacked=true --allow=my_lab --model.lr=1e-3'"
    )


def test_quiet_says_nothing(capsys):
    verbosity.choose(quiet=True, verbose=False)
    next_step.say("open the report")
    verbosity.choose(quiet=False, verbose=False)
    next_step.say("close it")
    assert capsys.readouterr().err == "next: close it\n"


def test_mer_is_named_as_it_was_called_where_it_is_not_on_the_path(monkeypatch, tmp_path):
    _, sweep = parse(["sweep"])
    monkeypatch.setattr("sys.argv", [".venv/bin/mer"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert next_step.command("fit", sweep) == ".venv/bin/mer fit --dataset synthetic"
    (tmp_path / "mer").touch(0o755)
    assert next_step.command("fit", sweep) == "mer fit --dataset synthetic"

"""The examples of the README, run as they stand; its commands and those of the pages on models, parsed."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from experiments.arguments import parse
from experiments.cli import main

HERE = Path(__file__).parents[1]
TEXT = (HERE / "README.md").read_text()
EXAMPLES = dict(re.findall(r"`lab/([\w/]+\.\w+)`[^`]*:\n\n```\w+\n(.*?)```", TEXT, flags=re.S))


def test_the_examples_are_there():
    assert sorted(EXAMPLES) == ["my_lab.py", "small_net.py", "small_net.yaml"]


def test_an_own_model_on_an_own_dataset_runs(tmp_path, monkeypatch, capsys):
    for name, content in EXAMPLES.items():
        (tmp_path / "lab" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "lab" / name).write_text(content)
    (tmp_path / "maps").mkdir()
    draws = np.random.default_rng(0)
    for subject in ("anna", "ben"):
        for clip, emotion in enumerate(("happiness", "surprise", "disgust") * 2):
            np.save(tmp_path / f"maps/{subject}_{clip}_{emotion}.npy", draws.normal(size=(3, 40, 40)))

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "lab")
    words = ["--dataset", "my_lab.MyLab", "--root", "maps", "--model", "lab/small_net.yaml", "--allow", "small_net"]
    assert main(["sweep", *words, "--trainer.max_steps=3"]) == 0
    capsys.readouterr()
    assert main(["status", "--json"]) == 0
    (cell,) = json.loads(capsys.readouterr().out)
    assert cell["model"] == "small_net" and cell["seeds"][0]["folds_done"] == 2


def commands() -> list[list[str]]:
    """Every ``make`` and ``mer`` command of the README and of the pages on models."""
    pages = [TEXT, *((HERE / f"docs/{name}.md").read_text() for name in ("fit", "predict", "demo"))]
    code = (line for page in pages for line in page.splitlines() if line.startswith("    "))
    lines = (line.split("  #")[0].strip() for line in code)
    return [shlex.split(line) for line in lines if line.startswith(("make ", "mer ", ".venv/bin/mer "))]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_is_understood(command):
    if command[0] == "make":
        own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "ARGS")}  # of `make test`
        shown = subprocess.run(
            [*command, "-n", "-o", ".venv/.ready"], cwd=HERE, env=own, capture_output=True, text=True, check=True
        ).stdout
        found = re.findall(r"^\.venv/bin/mer (.*[^\\\n])$", shown, flags=re.M)
    else:
        found = [shlex.join(command[1:])]
    for line in found:
        parse(shlex.split(line))

"""The examples of the README, run as they stand."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.arguments import parse

HERE = Path(__file__).parents[1]
TEXT = (HERE / "README.md").read_text()
EXAMPLES = dict(re.findall(r"`([\w/]+\.\w+)`:\n\n```\w+\n(.*?)```", TEXT, flags=re.S))


def test_the_examples_are_there():
    assert sorted(EXAMPLES) == [
        "data_modules/my_lab.py",
        "experiments/configs/small_net.yaml",
        "src/mer/models/small_net.py",
    ]


def test_an_own_model_on_an_own_dataset_runs(tmp_path):
    for name in ("src", "data_modules", "experiments"):
        shutil.copytree(HERE / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name, content in EXAMPLES.items():
        (tmp_path / name).write_text(content)
    line = re.search(r'`("my_lab": .*?,)`', TEXT)[1]
    registry = tmp_path / "data_modules/__init__.py"
    registry.write_text(registry.read_text().replace("DATASETS = {", "DATASETS = {\n    " + line))
    (tmp_path / "maps").mkdir()
    draws = np.random.default_rng(0)
    for subject in ("anna", "ben"):
        for clip, emotion in enumerate(("happiness", "surprise", "disgust") * 2):
            np.save(tmp_path / f"maps/{subject}_{clip}_{emotion}.npy", draws.normal(size=(3, 40, 40)))

    def mer(*arguments: str) -> str:
        paths = os.pathsep.join([str(tmp_path / "src"), str(tmp_path)])
        command = [sys.executable, "-m", "experiments.cli", *arguments]
        environment = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    mer("sweep", "--dataset", "my_lab", "--root", "maps", "--model", "small_net", "--trainer.max_steps=3")
    (cell,) = json.loads(mer("status", "--json"))
    assert cell["model"] == "small_net" and cell["seeds"][0]["folds_done"] == 2


def commands() -> list[list[str]]:
    """Every ``make`` and ``mer`` command of the README."""
    lines = (line.split("  #")[0].strip() for line in TEXT.splitlines() if line.startswith("    "))
    return [shlex.split(line) for line in lines if line.startswith(("make ", ".venv/bin/mer "))]


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

"""The commands of the README and of all pages, parsed."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from experiments.arguments import parse

HERE = Path(__file__).parents[1]
PAGES = [HERE / "README.md", *sorted((HERE / "docs").glob("*.md"))]


def commands() -> list[list[str]]:
    """Every ``make`` and ``mer`` command, once."""
    code = (line for page in PAGES for line in page.read_text().splitlines() if line.startswith("    "))
    lines = dict.fromkeys(re.split(r"  #| \| ", line)[0].strip() for line in code)
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

"""Completion with the Tab key: ``mer completion bash`` prints a script for the shell, so that Tab starts no Python."""

from pathlib import Path

import shtab

from data_modules import DATASETS
from experiments.arguments import commands
from experiments.jobs import models


def script(shell: str) -> str:
    """What the shell (``bash``, ``zsh`` or ``tcsh``) has to read to complete commands, options, names and files."""
    parser, by_name = commands()
    for action in (action for command in by_name.values() for action in command._actions):
        if action.dest == "dataset":
            action.choices = list(DATASETS)
        elif action.dest == "model" and action.metavar is None and not action.required:
            action.choices = models()
        elif action.type is Path or action.dest in ("root", "cache", "model", "clips"):
            action.complete = shtab.FILE  # pyright: ignore[reportAttributeAccessIssue]
    return shtab.complete(parser, shell)

"""What to type next: the last line of a command, on standard error; ``--quiet`` leaves it away."""

import argparse
import os
import shlex
import shutil
import sys

from data_modules.processes.verbosity import is_quiet

SHARED = {
    "dataset": "",
    "root": "",
    "protocol": "",
    "model": "",
    "recipe": "quick",
    "cache": "cache",
    "results": "results",
}
"""The options that two commands about one sweep share, with the values that need not be written."""

VARIABLES = {"dataset": "DATASET", "root": "DATA", "protocol": "PROTOCOL", "model": "MODEL", "recipe": "RECIPE"}
"""The same options as variables of the Makefile, which has no others of them."""


def say(text: str) -> None:
    """Print what can be done now."""
    if not is_quiet():
        print(f"next: {text}", file=sys.stderr)


def command(name: str, options: argparse.Namespace, *more: str, **changed: str) -> str:
    """The line of another command for the same data and recipe; one for ``make`` if this command was called by it.

    Args:
        name: The other command, ``fit``.
        options: What this one was called with.
        more: Words that only the other one has.
        changed: Values in place of those of ``options``.
    """
    values = {option: str(changed.get(option, getattr(options, option, usual))) for option, usual in SHARED.items()}
    values = {option: value for option, value in values.items() if value != SHARED[option]}
    by_make = "MAKELEVEL" in os.environ  # which it sets for what it calls
    variables = [f"{VARIABLES[o]}={shlex.quote(values.pop(o))}" for o in VARIABLES if by_make and o in values]
    words = [*more, *(word for option, value in values.items() for word in (f"--{option}", value))]
    if stacked := getattr(options, "stacked", None):
        words.append(f"--stacked={stacked}")
    words += [f"--allow={package}" for package in getattr(options, "allow", ())]
    words += getattr(options, "options", ())
    if not by_make:
        return f"{program()} {name} {shlex.join(words)}".rstrip()
    return " ".join(["make", name, *variables, *([f"ARGS={shlex.quote(shlex.join(words))}"] if words else [])])


def program() -> str:
    """How ``mer`` was called where a shell does not find it by its name: ``.venv/bin/mer``."""
    called = sys.argv[0]
    return called if os.path.basename(called) == "mer" and not shutil.which("mer") else "mer"

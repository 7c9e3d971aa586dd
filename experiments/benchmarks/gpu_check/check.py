"""A check, and the row of the table that it becomes."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

HOLDS, FAILS, SKIPPED = "holds", "fails", "skipped"
NEEDS_A_GPU = "needs a GPU"


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        what: Its name.
        work: Returns the figure, or raises ``Wrong`` or ``Skip``.
    """

    what: str
    work: Callable[[], str]


@dataclass(frozen=True)
class Row:
    """The result of a check; ``outcome`` is empty while the check is only planned."""

    part: str
    what: str
    outcome: str = ""
    figure: str = ""
    seconds: float = 0.0


class Wrong(Exception):
    """A check does not hold; the message is its figure."""


class Skip(Exception):
    """A check cannot be done here; the message says why."""


def need(module: str, purpose: str) -> None:
    """Skip a check that needs a package that is not installed.

    Raises:
        Skip: If it is not installed.
    """
    if find_spec(module) is None:
        raise Skip(f"{purpose} needs {module}, which is not installed")


def do(part: str, check: Check) -> Row:
    """Do a check; any exception becomes a row."""
    start = time.perf_counter()
    try:
        outcome, figure = HOLDS, check.work()
    except Skip as reason:
        outcome, figure = SKIPPED, str(reason)
    except Wrong as reason:
        outcome, figure = FAILS, str(reason)
    except Exception as error:
        traceback.print_exc()
        outcome, figure = FAILS, f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0][:200]}"
    return Row(part, check.what, outcome, figure, time.perf_counter() - start)

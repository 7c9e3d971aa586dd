"""What is checked, and how a process tells of it."""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

HOLDS, FAILS, SKIPPED = "holds", "fails", "skipped"
NEEDS_A_GPU = "needs a GPU"


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        what: Names it.
        work: Returns the figure, or raises ``Wrong`` or ``Skip``.
    """

    what: str
    work: Callable[[], str]


@dataclass(frozen=True)
class Row:
    """What came of a check; ``outcome`` is empty while it is only planned."""

    part: str
    what: str
    outcome: str = ""
    figure: str = ""
    seconds: float = 0.0


class Wrong(Exception):
    """What does not hold, with its figure."""


class Skip(Exception):
    """Why something cannot be checked here."""


def need(module: str, purpose: str) -> None:
    """Skip what cannot be done without a package.

    Raises:
        Skip: If it is not installed.
    """
    if find_spec(module) is None:
        raise Skip(f"{purpose} needs {module}, which is not installed")


def do(part: str, check: Check) -> Row:
    """Do a check, whatever it raises."""
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

"""mer: micro-expression recognition from optical flow, one subject left out at a time."""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mer.evaluation.metrics import UAR as UAR
    from mer.evaluation.metrics import UF1 as UF1

__version__ = "0.1.0"


class InputError(ValueError):
    """What the user gave cannot be used; the message says what, where and what to do.

    The command line prints the message alone and ends with exit status 2.
    """


def near(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: known words that are spelt alike, or an empty text."""
    close = get_close_matches(word, list(known), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def __getattr__(name: str) -> Any:
    """The metrics ``UF1`` and ``UAR``; torch is imported when one is first used, so that the command line is fast."""
    if name in ("UF1", "UAR"):
        from mer.evaluation import metrics

        return getattr(metrics, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

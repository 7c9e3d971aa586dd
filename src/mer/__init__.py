"""mer: micro-expression recognition from optical flow, one subject left out at a time."""

from collections.abc import Iterable
from difflib import get_close_matches

__version__ = "0.1.0"


class InputError(ValueError):
    """What the user gave cannot be used; the message says what, where and what to do.

    The command line prints the message alone and ends with exit status 2.
    """


def near(word: str, known: Iterable[str]) -> str:
    """A hint at what a misspelt word may have meant, to end a message with; empty if nothing is near."""
    close = get_close_matches(word, list(known), n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""

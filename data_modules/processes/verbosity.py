"""How much a command says besides its results: the level of the logger ``mer``, in the process of the command."""

import logging

_LOG = logging.getLogger("mer")


def choose(quiet: bool, verbose: bool) -> None:
    """Take ``--quiet``, no progress and no next step, or ``--verbose``, every fold and the traceback of a message."""
    _LOG.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


def is_quiet() -> bool:
    """Whether nothing is said of progress."""
    return _LOG.level > logging.INFO


def is_verbose() -> bool:
    """Whether all is said."""
    return _LOG.level == logging.DEBUG

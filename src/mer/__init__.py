"""mer: micro-expression recognition from optical flow, one subject left out at a time."""

__version__ = "0.1.0"


class InputError(ValueError):
    """What the user gave cannot be used; the message says what, where and what to do.

    The command line prints the message alone and ends with exit status 2.
    """

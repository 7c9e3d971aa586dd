"""Imported first by the process that workers are forked from: it ends at once with the process that has started it.

Without this it would go on importing, for up to ten seconds after a Ctrl-C.
"""

import atexit
import ctypes
import os
import signal
import sys

SERVER = os.getpid()
PR_SET_PDEATHSIG = 1  # prctl(2): when the thread ends that has started it, the main one; workers do not inherit it


def leave(*_: object) -> None:
    """Remove the temporary folders that libraries have made; what else Python does at an end takes seconds.

    A process that has just been forked, and is ended before it has a handler of its own, leaves them to the server.
    """
    if os.getpid() == SERVER:
        atexit._run_exitfuncs()
    os._exit(1)


if sys.platform == "linux":
    signal.signal(signal.SIGTERM, leave)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

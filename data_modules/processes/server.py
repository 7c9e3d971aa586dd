"""Imported first by the fork server: it ends at once with the process that has started it.

Without this it would go on importing for up to ten seconds after a Ctrl-C, in a temporary folder that is gone by then.
"""

import atexit
import ctypes
import os
import signal
import sys

SERVER = os.getpid()
PR_SET_PDEATHSIG = 1  # prctl(2): a signal when the thread ends that has started this process; workers do not inherit it


def leave(*_: object) -> None:
    """Remove the temporary folders that libraries have made; everything else Python does at an end takes seconds.

    A process that has just been forked, and is ended before it has a handler of its own, leaves them to the server.
    """
    if os.getpid() == SERVER:
        atexit._run_exitfuncs()
    os._exit(1)


if sys.platform == "linux":
    signal.signal(signal.SIGTERM, leave)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

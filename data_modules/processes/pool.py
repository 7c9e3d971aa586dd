"""Worker processes that live as long as there are jobs for them.

They are forked from Python's fork server, which has imported what they need. Each uses one thread of every numerical
library, ignores Ctrl-C and ends when the process that started it ends; so does the server.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from data_modules.processes.whole_files import WriteError
from mer import InputError

TRIES = 2  # a job that fails is tried once more, in a fresh process
GRACE = 3.0  # seconds that a process has to remove its temporary files before it is killed
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Without these, glibc returns a large tensor's memory when it is freed, and the system clears it again in every step.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}

SERVER = "data_modules.processes.server"
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([SERVER])


def cores() -> int:
    """Cores that this process may use; on a system that does not say which, all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Failure:
    """Why a job failed in every try.

    Attributes:
        reason: A message about wrong input, or the traceback of any other error.
        expected: True for a message.
    """

    reason: str
    expected: bool = True

    def error(self) -> Exception:
        """The exception to raise where one failure ends the command."""
        return InputError(self.reason) if self.expected else RuntimeError(self.reason)


def warm_up(modules: Sequence[str]) -> None:
    """Start the fork server, which imports the modules in the background."""
    CONTEXT.set_forkserver_preload([SERVER, *modules])
    with _child_settings():
        forkserver.ensure_running()


@contextmanager
def _child_settings() -> Iterator[None]:
    """Processes started in the block inherit one thread per library, the malloc settings and blocked SIGINT, SIGHUP."""
    settings = {**dict.fromkeys(THREADS, "1"), **MALLOC}
    before = {name: os.environ.get(name) for name in settings}
    resource_tracker.ensure_running()  # its start, if it came inside the block, would unblock SIGINT
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def start(work: Callable, *arguments: object) -> BaseProcess:
    """Start a process that does ``work(*arguments)``.

    If the fork server has just been killed, this fails until Python notices, and is tried again.
    """
    pauses = [0.1, 1.0]  # seconds
    while True:
        process = CONTEXT.Process(target=work, args=arguments, daemon=True)
        try:
            with _child_settings():
                process.start()
            return process
        except (EOFError, OSError):
            if not pauses:
                raise
            time.sleep(pauses.pop(0))


def end_with_parent(end: Callable[[], None]) -> None:
    """Call ``end`` in a thread of this process when the process that started it has ended."""

    def watch() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            end()

    threading.Thread(target=watch, daemon=True).start()


class Worker:
    """A process that does one job at a time.

    Args:
        begin: Function that it calls first, and its arguments.
    """

    def __init__(self, begin: tuple[Callable, tuple]):
        self.begin = begin
        self.connection, theirs = CONTEXT.Pipe()
        self.process = start(_serve, theirs, *begin)
        theirs.close()

    def give(self, index: int, work: Callable, arguments: tuple) -> None:
        self.index = index
        """Send it the job ``work(*arguments)`` of this index."""
        with suppress(OSError):  # it died while it had no job; `outcome` reports that
            self.connection.send((work, arguments))

    def outcome(self) -> Any:
        """Wait for what the job returned; a ``Failure`` if it failed or the process died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):  # OSError: it died while it sent its answer
            self.process.join(GRACE)
            return Failure(f"its process died ({_how(self.process.exitcode)})")


def run(work: Callable, jobs: Sequence[tuple], begins: Sequence[tuple[Callable, tuple]]) -> Iterator[tuple[int, Any]]:
    """Do ``work(*job)`` for every job; workers take the jobs in order as they become free.

    A job that raises an exception, or whose worker dies, is tried once more in a fresh process; the other jobs go on.

    Args:
        work: A function of a module; runs in a worker.
        jobs: Arguments of each call.
        begins: For each worker, a function that it calls first, and its arguments.

    Yields:
        Index of a job and what it returned, or a ``Failure``, in the order in which they end.

    Raises:
        WriteError: If a worker cannot write a file, because the others could not either.
    """
    waiting = deque((index, 1) for index in range(len(jobs)))
    tries: dict[int, int] = {}
    workers: list[Worker] = []
    busy: dict[Connection, Worker] = {}

    def feed(worker: Worker) -> None:
        if waiting:
            index, tries[index] = waiting.popleft()
            worker.give(index, work, jobs[index])
            busy[worker.connection] = worker

    try:
        for begin in begins[: len(jobs)]:
            workers.append(Worker(begin))
            feed(workers[-1])
        while busy:
            for connection in wait(list(busy)):
                worker = busy.pop(connection)
                outcome, index = worker.outcome(), worker.index
                if isinstance(outcome, WriteError):
                    raise outcome
                if isinstance(outcome, Failure):
                    workers.remove(worker)
                    stop([worker])
                    again = tries[index] < TRIES
                    if again:
                        waiting.appendleft((index, tries[index] + 1))
                    if waiting:
                        workers.append(Worker(worker.begin))
                        feed(workers[-1])
                    if not again:
                        yield index, outcome
                else:
                    feed(worker)
                    yield index, outcome
    finally:
        stop(workers)


def stop(workers: Sequence[Worker]) -> None:
    """End the workers, within ``GRACE`` seconds."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + GRACE
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _serve(connection: Connection, begin: Callable, arguments: tuple) -> None:
    """Do jobs from the connection until it closes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exception, so that `with` blocks remove temporary files
    end_with_parent(_leave)
    begin(*arguments)
    while True:
        try:
            work, job = connection.recv()
        except (EOFError, OSError):
            return
        try:
            outcome = work(*job)
        except WriteError as error:
            outcome = error
        except InputError as error:
            outcome = Failure(str(error))
        except Exception:
            outcome = Failure(traceback.format_exc(), expected=False)
        connection.send(outcome)


def _leave() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def _how(status: int | None) -> str:
    """An exit status, or the name of the signal that ended a process."""
    if status is None or status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    return f"{name}, most often for want of memory" if status == -signal.SIGKILL else name

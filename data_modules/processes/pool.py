"""Worker processes, which do one piece of work at a time for as long as there is any.

They are forked from a server that has imported what they need. Each uses one thread of every numerical library, leaves
Ctrl-C to the process that has started it, and ends with that process, however that ends.
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

TRIES = 2  # a piece of work that fails is tried once more, in a fresh process
GRACE = 3.0  # seconds that a process has to remove its temporary files before it is killed
SERVER = "data_modules.processes.server"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Without these glibc gives a large tensor's memory back when it is freed, and the system clears it anew in every step.
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 25), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([SERVER])


@dataclass(frozen=True)
class Failure:
    """A piece of work that failed in every try.

    Attributes:
        reason: Why: a message, or the traceback of what nobody had thought of.
        expected: Whether it is a message.
    """

    reason: str
    expected: bool = True

    def error(self) -> Exception:
        """What to raise where one failure ends everything."""
        return InputError(self.reason) if self.expected else RuntimeError(self.reason)


def warm_up(modules: Sequence[str]) -> None:
    """Start the server that workers are forked from; it imports the modules while the caller goes on."""
    CONTEXT.set_forkserver_preload([SERVER, *modules])
    with for_children():
        forkserver.ensure_running()


@contextmanager
def for_children() -> Iterator[None]:
    """What is started in the block has one thread per library, keeps its memory, and gets no signal of the terminal."""
    own = {**dict.fromkeys(THREADS, "1"), **KEPT}
    before = {name: os.environ.get(name) for name in own}
    resource_tracker.ensure_running()  # it would unblock what is blocked here
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def start(work: Callable, *arguments: object) -> BaseProcess:
    """A process that is forked from the server and does ``work(*arguments)``.

    The server may be killed just now; once that is known, another one is started.
    """

    def attempt() -> BaseProcess:
        process = CONTEXT.Process(target=work, args=arguments, daemon=True)
        with for_children():
            process.start()
        return process

    for pause in (0.1, 1.0):
        with suppress(EOFError, OSError):
            return attempt()
        time.sleep(pause)
    return attempt()


def end_with_parent(end: Callable[[], None]) -> None:
    """Have this process call ``end`` when the one that has started it is gone, in the middle of whatever it does."""

    def watch() -> None:
        if (parent := multiprocessing.parent_process()) is not None:
            parent.join()
            end()

    threading.Thread(target=watch, daemon=True).start()


class Worker:
    """One process.

    Args:
        begin: What it calls first, with its arguments.
    """

    def __init__(self, begin: tuple[Callable, tuple]):
        self.begin = begin
        self.connection, theirs = CONTEXT.Pipe()
        self.process = start(_serve, theirs, *begin)
        theirs.close()

    def give(self, index: int, work: Callable, arguments: tuple) -> None:
        self.index = index
        with suppress(OSError):  # it died idle, which is what `outcome` will say
            self.connection.send((work, arguments))

    def outcome(self) -> Any:
        """Its answer, or a ``Failure`` if it died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):  # the latter if it died in the middle of its answer
            self.process.join(GRACE)
            return Failure(f"its process died ({_how(self.process.exitcode)})")


def run(work: Callable, jobs: Sequence[tuple], begins: Sequence[tuple[Callable, tuple]]) -> Iterator[tuple[int, Any]]:
    """Do ``work(*job)`` for every job, in order of the jobs as workers become free.

    A worker that dies costs no more than the job it was at, which is tried once more in a fresh process, as is one that
    raises an exception; the others go on.

    Args:
        work: A function of a module; runs in a worker.
        jobs: Arguments of each call.
        begins: One worker each: what it calls first and with what.

    Yields:
        Index of a job and what it returned, or a ``Failure``, in the order in which they end.

    Raises:
        WriteError: If a worker cannot write a file: the others could not either.
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
    """End the workers within seconds."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + GRACE
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _serve(connection: Connection, begin: Callable, arguments: tuple) -> None:
    """Take work from the connection until it closes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, so that no temporary file stays
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
    """An exit status in words."""
    if status is None or status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    return f"{name}, most often for want of memory" if status == -signal.SIGKILL else name

"""Spreads work over long-lived worker processes, one per device or core."""

import multiprocessing
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from mer import InputError

TRIES = 2  # a piece of work that fails is tried once more, in a fresh process


@dataclass(frozen=True)
class Failure:
    """A piece of work that failed in every try, and why."""

    reason: str


def warm_up(modules: Sequence[str] = ("experiments.stacks",)) -> None:
    """Start the process that workers are forked from; it imports what they need while the caller goes on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules))
    from multiprocessing import forkserver

    forkserver.ensure_running()


def devices(chosen: str | None, workers: int) -> tuple[str, ...]:
    """The devices that a sweep runs on, one worker each.

    Args:
        chosen: ``cpu``, or GPU numbers separated by commas; by default all GPUs, or the CPU where there is none.
        workers: Processes on the CPU.

    Raises:
        InputError: If a GPU is not there.
    """
    import torch

    there = [str(number) for number in range(torch.cuda.device_count())]
    if chosen == "cpu" or (not chosen and not there):
        return ("cpu",) * workers
    wanted = chosen.split(",") if chosen else there
    missing = [number for number in wanted if number not in there]
    if missing:
        found = f"the GPUs here are {', '.join(there)}" if there else "there is no GPU here"
        raise InputError(f"device {', '.join(missing)} was asked for with DEVICES={chosen}, but {found}; use cpu")
    return tuple(wanted)


class Worker:
    """One process that does one piece of work at a time."""

    def __init__(self, device: str):
        context = multiprocessing.get_context("forkserver")
        self.device = device
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, device), daemon=True)
        self.process.start()
        theirs.close()

    def start(self, index: int, work: Callable, arguments: tuple) -> None:
        self.index = index
        self.connection.send((work, arguments))

    def outcome(self) -> Any:
        """Its answer, or a ``Failure`` if it died."""
        try:
            return self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            return Failure(f"its process died (exit status {self.process.exitcode})")

    def stop(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()


def run(work: Callable, jobs: Sequence[tuple], devices: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Do ``work(*job)`` for every job, in order of the jobs as workers become free.

    Args:
        work: A function of a module; runs in a worker.
        jobs: Arguments of each call.
        devices: One worker each; ``cpu`` is one core, a number is that GPU.

    Yields:
        Index of a job and what it returned, or a ``Failure``, in the order in which they end.
    """
    waiting = deque((index, 1) for index in range(len(jobs)))
    tries: dict[int, int] = {}
    workers: list[Worker] = []
    busy: dict[Connection, Worker] = {}

    def feed(worker: Worker) -> None:
        if waiting:
            index, tries[index] = waiting.popleft()
            worker.start(index, work, jobs[index])
            busy[worker.connection] = worker

    try:
        for device in devices[: len(jobs)]:
            workers.append(Worker(device))
            feed(workers[-1])
        while busy:
            for connection in wait(list(busy)):
                worker = busy.pop(connection)
                outcome, index = worker.outcome(), worker.index
                if isinstance(outcome, Failure):
                    workers.remove(worker)
                    worker.stop()
                    if tries[index] < TRIES:
                        waiting.appendleft((index, tries[index] + 1))
                    else:
                        yield index, outcome
                    if waiting:
                        worker = Worker(worker.device)
                        workers.append(worker)
                        feed(worker)
                else:
                    feed(worker)
                    yield index, outcome
    finally:
        for worker in workers:
            worker.stop()


def settle(device: str, alone: bool = True) -> None:
    """Bind this process to one device, before it has used any; or to a CPU's core, if Lightning hands out the GPUs."""
    if alone:
        os.environ["CUDA_VISIBLE_DEVICES"] = "" if device == "cpu" else device
    import torch

    torch.set_num_threads(1)  # on a CPU a result must not depend on the number of threads


def _serve(connection: Connection, device: str) -> None:
    """Take work from the connection until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent stops its workers
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, so that no temporary file stays
    settle(device)
    while True:
        try:
            work, arguments = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            outcome = work(*arguments)
        except InputError as error:
            outcome = Failure(str(error))
        except Exception:
            outcome = Failure(traceback.format_exc())
        connection.send(outcome)

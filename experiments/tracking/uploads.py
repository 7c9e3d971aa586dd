"""Runs are uploaded by processes of their own, so that nothing that goes wrong there harms the sweep.

A refused key, a network that swallows everything, a full disk or a kill cost one message and a few seconds. What is
not confirmed then is uploaded by the next sweep, or by ``mer sync``: all that they need lies in the results folder.
"""

import os
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from data_modules.processes import pool
from experiments.results import cells
from experiments.tracking.server import NO_KEY
from experiments.tracking.session import Request, serve
from mer import InputError

LIMIT = 90.0  # seconds that a sweep waits for its uploads at its end, in all
SHARE = 40  # runs that are worth another process
PROCESSES = 4  # at most: in each of them, wandb begins one run after the other, a request each
SILENCE = 2.0  # seconds before it is said what goes on


class Uploads:
    """The uploads of what is in a results folder; never raises what goes wrong there.

    Args:
        request: What is to be logged.
        console: Where it is said what goes on.

    Attributes:
        left: Runs that are not confirmed, and why.
        problem: Why there was an end before all were tried; empty if there was not.
        waiting: Number of runs that are not confirmed yet; None if there was nothing to upload.
    """

    def __init__(self, request: Request, console: Console):
        self.request, self.console = request, console
        self.left: list[str] = []
        self.problem = ""
        self.waiting: int | None = None
        self.temporary = TemporaryDirectory(prefix="wandb", ignore_cleanup_errors=True)  # wandb leaves much behind
        self.processes: list[BaseProcess] = []
        self.first = self._start()

    def __enter__(self) -> "Uploads":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        self.temporary.cleanup()

    def finish(self, limit: float = float("inf")) -> None:
        """Wait until all is uploaded or the time is over; Ctrl-C ends the waiting only.

        Args:
            limit: Seconds.
        """
        try:
            self.first.send("end")
            self._wait(limit)
        except KeyboardInterrupt:
            self.problem = "interrupted"
        except (OSError, EOFError):
            self.problem = "its process died"

    def report(self) -> None:
        """Say in a line what is not uploaded, and why."""
        if self.problem or self.left:
            again = "the same command" if self.request.models else "`make sync`"
            many = f"{len(self.left) or self.waiting or 'some'} runs are not uploaded"
            why = self.problem or self.left[0]
            self._print(f"Weights & Biases: {many} ({why}); the results are complete, {again} uploads the rest")

    def _start(self) -> Connection:
        connection, theirs = pool.CONTEXT.Pipe()
        self.processes.append(pool.start(serve, theirs, self.request, dict(os.environ), self.temporary.name))
        theirs.close()
        return connection

    def _wait(self, limit: float) -> None:
        start, said = time.monotonic(), False
        while time.monotonic() < start + limit:
            if self.waiting and not said and time.monotonic() > start + SILENCE:
                said = True
                self._print(f"Weights & Biases: uploading {self.waiting} runs; Ctrl-C is safe: `make sync` goes on")
            if not self.first.poll(0.2):
                continue
            kind, news = self.first.recv()
            if kind == "left":
                self.waiting = news
                while len(self.processes) < min(PROCESSES, news // SHARE):
                    self._start().close()  # it takes runs that nobody is logging; the first waits for what it has
            elif kind == "say":
                self._print(news)
            else:
                self.left, self.problem = news
                return
        self.problem = f"{limit:.0f} s are over"

    def _print(self, text: str) -> None:
        self.console.print(text, style="yellow", highlight=False, soft_wrap=True, markup=False)


def sync(results: Path, console: Console) -> int:
    """Upload every run that is not confirmed yet, whatever W&B's settings say about being offline.

    Returns:
        Exit status: 0, or 1 if some are not confirmed; they are named.

    Raises:
        InputError: If there is no key.
    """
    pools = tuple((cell, seed) for cell in cells(results) for seed in cell.seeds())
    with Uploads(Request(results, pools, online=True), console) as uploads:
        uploads.finish()
    if uploads.problem == NO_KEY:
        raise InputError(NO_KEY)
    for run in uploads.left:
        console.print(run, highlight=False, soft_wrap=True, markup=False)
    uploads.report()
    if uploads.left or uploads.problem:
        return 1
    done = "nothing to upload" if uploads.waiting is None else "uploaded"
    console.print(f"{done}: every run of {results} is on Weights & Biases")
    return 0

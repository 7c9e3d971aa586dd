"""Runs are logged by a process of its own, so that nothing that goes wrong there harms the sweep.

A refused key, a network that swallows everything, a full disk or a kill cost one message and a few seconds: what is not
confirmed is logged once more by a fresh process, offline, and after that no more. ``sync`` uploads such runs later.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import uuid4

from data_modules.processes import pool
from experiments.tracking.runs import Entry, Log, is_trial
from mer import InputError

TRIES = 2  # processes, the second one offline
STARTING = 60.0  # seconds that the process may take to start: it waits for its server to import torch
PATIENCE = 15.0  # seconds that logging one run may take
ENDING = 3.0  # seconds that the process may take to end
PATIENCE_WITH_FILES = 300.0  # the same for a model, or where someone asked for an upload of pictures


class Tracker:
    """Hands entries to the process that logs them, one at a time; never raises what goes wrong there.

    Args:
        results: The results folder; wandb keeps its files in ``wandb`` there.

    Attributes:
        waiting: Entries that are not logged yet, the one that is being logged first.
        problem: What went wrong, and where the runs are; empty if nothing did.
    """

    def __init__(self, results: Path):
        self.results, self.offline = results, False
        self.waiting: deque[Entry] = deque()
        self.problem = ""
        self.tries = 0
        self._start()

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            while self.waiting:
                self.advance(wait=True)
        self._stop(kind is not None)

    def log(self, entry: Entry) -> None:
        """Log an entry in its turn; returns at once. A trial of a W&B agent is one run, without those of its folds."""
        if self.tries <= TRIES and not (is_trial() and entry.kind == "fold"):
            self.waiting.append(entry)
            self.advance()

    def _start(self) -> None:
        self.tries += 1
        self.connection, theirs = pool.CONTEXT.Pipe()
        # Its own, because wandb leaves much behind in it.
        self.temporary = Path(tempfile.gettempdir(), f"wandb{uuid4().hex[:8]}")
        environment = {**os.environ, "TMPDIR": str(self.temporary)}
        self.process = pool.start(serve, theirs, self.results, self.offline, environment, os.getpid())
        theirs.close()
        self.ready, self.busy = False, False

    def _stop(self, at_once: bool) -> None:
        self.connection.close()  # it ends by itself, unless it hangs
        if not at_once:
            self.process.join(ENDING)
        self.process.kill()
        self.process.join()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def advance(self, wait: bool = False) -> None:
        """Hand over the next entry if the last one is logged, for which ``wait`` waits."""
        try:
            if self.busy:
                left = max(0.0, self.deadline - time.monotonic())
                if not self.connection.poll(left if wait else 0):
                    if left > 0 and not wait:
                        return
                    raise TimeoutError("no answer for too long")
                if problem := self.connection.recv():
                    raise ConnectionError(problem)
                if self.ready:
                    self.busy = False
                    self.waiting.popleft()
                else:
                    self.ready, self.deadline = True, time.monotonic() + self._patience
            if self.waiting and not self.busy:
                self.connection.send(self.waiting[0])  # the first one waits in the pipe until it is ready
                self.busy = True
                self.deadline = time.monotonic() + (self._patience if self.ready else STARTING)
        except (OSError, EOFError) as error:  # what a dead process, a dead connection and the two above are
            self._try_again(str(error) or "its process died")

    @property
    def _patience(self) -> float:
        return PATIENCE_WITH_FILES if self.waiting[0].cache or self.waiting[0].model else PATIENCE

    def _try_again(self, problem: str) -> None:
        self._stop(at_once=True)
        where = self.results / "wandb"
        if self.tries == TRIES:
            self.tries += 1
            self.problem = f"Weights & Biases stopped logging ({problem}); the results are complete"
            self.waiting.clear()
            return
        self.problem = f"Weights & Biases failed ({problem}); runs are kept in {where} and `make sync` uploads them"
        self.offline = True
        self._start()


def serve(connection: Connection, results: Path, offline: bool, environment: dict[str, str], sweep: int) -> None:
    """What the process does: log the entries that it receives, and answer with what went wrong, or an empty text."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pool.end_with_parent(lambda: os._exit(1))
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # to be looked up in this environment
    folder = results.resolve() / "wandb"
    for name, place in (("DATA", folder), ("CACHE", folder / "cache"), ("ARTIFACT", folder / "artifacts")):
        os.environ.setdefault(f"WANDB_{name}_DIR", str(place))
    with open(os.devnull, "w") as nothing:
        for stream in (1, 2):
            os.dup2(nothing.fileno(), stream)
    try:
        Path(environment["TMPDIR"]).mkdir(exist_ok=True)
        log = Log(results, offline, sweep)
        connection.send("")
        while True:
            try:
                entry = connection.recv()
            except EOFError:
                return log.close()
            log(entry)
            connection.send("")
    except Exception as error:
        connection.send((str(error) or type(error).__name__).strip()[:300])


def sync(results: Path) -> int:
    """Upload what was logged offline, of every run the latest version, once.

    Returns:
        Exit status of ``wandb sync``.

    Raises:
        InputError: If there is no key.
    """
    folders = unsent(results)
    if not folders:
        print(f"nothing to upload: every run in {results / 'wandb'} is, or there is none")
        return 0
    check_key(f"{len(folders)} runs wait in {results / 'wandb'}, but there")
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    command = [sys.executable, "-m", "wandb", "sync", *map(str, folders)]
    return min(subprocess.run(command, env=environment, check=False).returncode, 1)


def unsent(results: Path) -> list[Path]:
    """Folders of the offline runs that are not uploaded, oldest first; of a run that was logged again the last."""
    files = sorted((results / "wandb").glob("offline-run-*-*/run-*.wandb"))  # a run that was killed early has none
    latest = {file.name: file for file in files}
    return [file.parent for file in latest.values() if not file.with_name(f"{file.name}.synced").exists()]


def check_key(start: str = "there", end: str = "") -> None:
    """Raise an InputError that says how to get a key for W&B if there is none, with ``start`` and ``end`` around it."""
    import wandb

    if not wandb.api.api_key:
        raise InputError(
            f"{start} is no key for Weights & Biases: get one from https://wandb.ai/authorize and give it to `wandb "
            f"login`, or set WANDB_API_KEY{end}"
        )

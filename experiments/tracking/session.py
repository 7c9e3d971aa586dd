"""What the process that uploads does: it logs every run that is not marked, reads it back and marks it."""

import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from data_modules.processes import pool
from experiments.results import Cell
from experiments.tracking.marks import BUSY, Mark
from experiments.tracking.runs import FoldRun, ModelRun, PooledRun, Run
from experiments.tracking.server import QUIET, NoKey, connect, reason, without_reports
from experiments.tracking.trials import is_trial

INTERVAL = 15.0  # seconds between two looks at what has ended
TOGETHER = 16  # runs that are logged at once
LOOKS = (0.0, 0.5, 1.0, 2.0, 4.0)  # seconds to wait before a run is read back once more
READING = 15.0  # seconds after which it is not read once more: where nobody answers, wandb tries for 20 s each time
OTHERS = 10.0  # seconds to wait for runs that other processes are logging, after the last that one has ended
IDS = 5  # that are tried for a run; those of deleted runs are blocked


@dataclass(frozen=True)
class Request:
    """What is to be logged.

    Attributes:
        results: The results folder.
        pools: Cells and seeds.
        cache: The cache folder, if pictures of the clips are to be logged.
        models: Models that were fitted.
        whole: Log the scores of a pool only when all its folds are done.
        measured: Id of the process whose tree the system metrics are of; 0 is none.
        online: Upload, whatever W&B's settings say about being offline.
    """

    results: Path
    pools: tuple[tuple[Cell, int], ...] = ()
    cache: Path | None = None
    models: tuple[ModelRun, ...] = ()
    whole: bool = False
    measured: int = 0
    online: bool = False

    def runs(self) -> list[Run]:
        """All that there is to log, whether it is logged already or not."""
        pooled = [PooledRun(cell, seed, cache=self.cache) for cell, seed in self.pools]
        folds = [FoldRun(fold.cell, fold.seed, fold.name) for run in pooled for fold in run.folds if not is_trial()]
        pooled = [run for run in pooled if run.folds and (run.is_complete or not self.whole)]
        return [*self.models, *pooled, *folds]  # those of many requests first

    def changed(self) -> list[int]:
        """Is another one whenever a fold has ended."""
        folders = [cell.folder / f"seed{seed}" for cell, seed in self.pools]
        return [folder.stat().st_mtime_ns if folder.is_dir() else 0 for folder in folders]


class Session:
    """Logs runs.

    Args:
        request: What is to be logged.
        say: Is given a kind of news and the news: ``left``, a number of runs, or ``say``, a text for the user.
    """

    def __init__(self, request: Request, say: Callable[[str, Any], None]):
        import wandb

        self.wandb, self.request, self.say = wandb, request, say
        own = wandb.setup().settings
        self.settings, self.project, self.entity = own, own.project or "mer", own.entity
        self.mode = "online" if request.online else own.mode or "online"
        self.where = "offline" if self.mode == "offline" else f"{own.base_url}/{own.entity or ''}/{self.project}"
        # Once uploaded, wandb's own files are of no use.
        self.folder = request.results if self.mode == "offline" else Path(os.environ["TMPDIR"])
        for name in ("DATA", "CACHE", "ARTIFACT"):
            os.environ.setdefault(f"WANDB_{name}_DIR", str(self.folder.resolve() / "wandb"))
        self.api: Any = None
        self.live: dict[Path, Mark] = {}  # of runs that go on
        self.page = ""  # of the project
        self.lock = threading.Lock()

    def upload(self, last: bool = True) -> list[str]:
        """Log every run that is not marked, several at once; with ``last`` also end what is not complete.

        Returns:
            Each run that is not confirmed, and why.

        Raises:
            NoKey: If there is no key.
            ConnectionError: If the server does not answer, or does not take the key.
        """
        if self.mode == "disabled":
            return []
        marks = [(Mark(self.request.results, run, self.where), run) for run in self.request.runs()]
        waiting = [(self.live.get(mark.file, mark), run) for mark, run in marks]
        waiting = [(mark, run) for mark, run in waiting if mark.logged or is_trial() or not mark.covers(run)]
        left, problems = len(waiting), []

        def work(mark: Mark, run: Run) -> None:
            nonlocal left
            try:
                self._log(mark, run, last)
            except Exception as error:  # wandb raises many kinds
                problems.append(f"{run.cell.model} seed {run.seed} {run.label}: {reason(error)}")
            with self.lock:
                left -= 1
                if last:
                    self.say("left", left)

        if waiting and last:
            self.say("left", left)
        if waiting and self.mode != "offline" and not self.api:
            self.api = connect(self.settings)
            self.entity = self.entity or self.api.default_entity  # else wandb asks for each run
        with ThreadPoolExecutor(TOGETHER) as threads:
            list(threads.map(work, *zip(*waiting)) if waiting else ())
        if self.page:
            self.say("say", self.page)
        self.page = ""
        return problems

    def _log(self, mark: Mark, run: Run, last: bool) -> None:
        """Log a run, read it back and mark it.

        Raises:
            ConnectionError: If another process does, or it is not on the server afterwards.
        """
        if not mark.logged:
            mark.claim()
        self.live.pop(mark.file, None)
        try:
            if not mark.logged and mark.covers(run) and not is_trial():
                return
            logged = mark.logged = mark.logged or self._begin(mark, run)
            run.log(logged)
            if isinstance(run, PooledRun) and not run.is_complete and not last:
                self.live[mark.file] = mark
                return
            run.finish(logged)
            logged.summary.update(run.figures)
            path = logged.path
            self.page = f"Weights & Biases: {logged.project_url}, group {logged.group}"
            logged.finish()
            if self.mode == "offline":
                folder = self.folder / "wandb"
                self.page = f"Weights & Biases is offline: `wandb leet {folder}` shows the runs, `make sync` sends them"
            else:
                self._confirm(path, run)
            mark.write(run)
        except BaseException:
            with suppress(Exception):
                mark.logged.finish(exit_code=1)
            raise
        finally:
            if mark.file not in self.live:
                mark.close()

    def _begin(self, mark: Mark, run: Run) -> Any:
        """Begin a run or go on with it; under another id if results were replaced or it was deleted."""
        replaced = bool(mark.id) and run.parts[: len(mark.parts)] != mark.parts
        old, first = mark.id, mark.number + replaced
        for mark.number in range(first, first + IDS):
            try:
                logged = self._init(run, mark.number)
            except self.wandb.errors.Error:
                if not self._is_blocked(run.id(mark.number)):
                    raise
                which = f"{run.cell.model} seed {run.seed} {run.label}"
                self.say("say", f"{which} was deleted on Weights & Biases, which blocks its id: it has a new one")
                continue
            if replaced and self.api:
                with suppress(Exception):  # it may have been deleted
                    superseded = self.api.run(f"{logged.entity}/{logged.project}/{old}")
                    superseded.tags = [*superseded.tags, "superseded"]
                    superseded.update()
            return logged
        raise ConnectionError(f"it was deleted {IDS} times, and the ids of deleted runs are blocked")

    def _is_blocked(self, name: str) -> bool:
        """Whether the server refuses an id, of which wandb says the reason in its log alone."""
        logs = self.folder.glob(f"wandb/run-*-{name}/logs/debug-internal.log")
        return any('"status":409' in log.read_text(errors="replace") for log in logs)

    def _init(self, run: Run, number: int) -> Any:
        given = is_trial()  # then the agent gives the project and the id
        measured = self.request.measured if isinstance(run, PooledRun) else 0
        return self.wandb.init(
            entity=self.entity,
            project=None if given else self.project,
            id=None if given else run.id(number),
            resume=None if given or self.mode == "offline" else "allow",
            dir=str(self.folder),
            mode=self.mode,
            reinit="create_new",
            settings=self.wandb.Settings(
                **QUIET,
                x_disable_stats=not measured,
                x_stats_pid=measured or os.getpid(),
                x_stats_track_process_tree=bool(measured),
            ),
            **run.settings,
        )

    def _confirm(self, path: str, run: Run) -> None:
        """Read a run back until it has the figures and points that were sent.

        Raises:
            ConnectionError: If it never has.
        """
        figures = {name: n for name, n in run.figures.items() if math.isfinite(n)}
        why, end = "", time.monotonic() + READING
        for pause in LOOKS:
            if time.monotonic() > end:
                break
            time.sleep(pause)
            try:
                self.api.flush()  # it keeps what it has read
                there = self.api.run(path)
            except Exception as error:
                why = reason(error)
                continue
            summary = dict(there.summary)
            wrong = [name for name, n in figures.items() if summary.get(name) != n]
            if summary.get("_step", -1) < run.last_step and there.lastHistoryStep < run.last_step:
                wrong.append("points")
            why = f"{', '.join(wrong)[:100]} are missing" if wrong else f"it is {there.state}"
            if there.state == "finished" and not wrong:
                return
        raise ConnectionError(f"the server does not confirm it: {why}")


def serve(connection: Connection, request: Request, environment: dict[str, str], temporary: Path) -> None:
    """What the process does: log what has ended now and then, the rest when told to, and answer with what is left."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pool.end_with_parent(lambda: os._exit(1))
    os.environ.clear()
    os.environ.update(without_reports(environment) | {"TMPDIR": str(temporary)})
    os.environ.pop("WANDB_SERVICE", None)  # a service of others keeps the runs of a process that was killed
    tempfile.tempdir = None  # to be looked up in this environment
    with open(os.devnull, "w") as nothing:
        for stream in (1, 2):
            os.dup2(nothing.fileno(), stream)

    def say(kind: str, news: Any) -> None:
        with suppress(OSError):  # nobody listens any more
            connection.send((kind, news))

    try:
        temporary.mkdir(exist_ok=True)
        session, seen = Session(request, say), []
        while not connection.poll(INTERVAL):
            if (now := request.changed()) != seen:
                seen = now
                with suppress(Exception):  # what fails is tried again at the end
                    session.upload(last=False)
        left = session.upload()
        end = time.monotonic() + OTHERS
        while any(BUSY in run for run in left) and time.monotonic() < end:
            time.sleep(0.5)
            before, left = left, session.upload()
            end = time.monotonic() + OTHERS if len(left) < len(before) else end
        session.wandb.teardown()
        say("end", left)
    except NoKey as error:
        say("no key", reason(error))
    except Exception as error:
        say("failed", reason(error))

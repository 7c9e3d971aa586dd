"""What the process that uploads does: it logs every run that is not marked, reads it back and marks it."""

import math
import os
import signal
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from data_modules.processes import pool
from experiments.results import Cell
from experiments.tracking.marks import BUSY, Mark
from experiments.tracking.runs import FoldRun, ModelRun, PooledRun, Run
from experiments.tracking.server import QUIET, connect, reason, without_reports
from experiments.tracking.trials import is_trial

INTERVAL = 15.0  # seconds between two looks at what has ended
TOGETHER = 16  # runs that are logged at once
PAUSE = 0.5  # seconds before a run is read back once more
READING = 8.0  # seconds after which it is not: where nobody answers, wandb tries for 20 s each time
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
        self.notes: list[str] = []  # to be said when the threads have ended

    def upload(self, last: bool = True) -> list[str]:
        """Log every run that is not marked, several at once; with ``last`` also end what is not complete.

        Returns:
            Each run that is not confirmed, and why.

        Raises:
            ConnectionError: If there is no key, or the server does not answer or take it.
        """
        if self.mode == "disabled":
            return []
        marks = [(Mark(self.request.results, run, self.where), run) for run in self.request.runs()]
        waiting = [(self.live.get(mark.file, mark), run) for mark, run in marks if not mark.covers(run)]
        if last and waiting:
            self.say("left", len(waiting))
        if waiting and self.mode != "offline" and not self.api:
            self.api = connect(self.settings)
            self.entity = self.entity or self.api.default_entity  # else wandb asks for each run
        problems = []
        with ThreadPoolExecutor(TOGETHER) as threads:
            tries = {threads.submit(self._log, mark, run, last): run for mark, run in waiting}
            for number, ended in enumerate(as_completed(tries), 1):
                if error := ended.exception():  # wandb raises many kinds
                    problems.append(f"{tries[ended].name}: {reason(error)}")
                if last:
                    self.say("left", len(tries) - number)
        for text in dict.fromkeys(self.notes):
            self.say("say", text)
        self.notes.clear()
        return problems

    def _log(self, mark: Mark, run: Run, last: bool) -> None:
        """Log a run, read it back and mark it.

        Raises:
            ConnectionError: If another process does, or it is not on the server afterwards.
        """
        if not self.live.pop(mark.file, None):  # that of a run that goes on is ours already
            mark.claim()
        try:
            if mark.covers(run):  # another process has logged it meanwhile
                return
            mark.logged = mark.logged or self._begin(mark, run)
            run.log(mark.logged)
            if last or run.is_complete:
                self._end(mark, run)
            else:
                self.live[mark.file] = mark
        except BaseException:
            with suppress(Exception):
                mark.logged.finish(exit_code=1)
            raise
        finally:
            if mark.file not in self.live:
                mark.close()

    def _begin(self, mark: Mark, run: Run) -> Any:
        """Begin a run or go on with it; under another id if results were replaced or it was deleted."""
        replaced = run.parts[: len(mark.parts)] != mark.parts
        name = run.id(mark.id) if replaced else mark.id or run.id()
        for tries in range(IDS):
            try:
                logged = self._init(run, name)
                break
            except self.wandb.errors.Error:
                if tries == IDS - 1 or not self._is_blocked(name):
                    raise
                name = run.id(name)
                self.notes.append(f"{run.name} was deleted on Weights & Biases, which blocks its id: it has a new one")
        if replaced and self.api:
            with suppress(Exception):  # it may have been deleted
                superseded = self.api.run(f"{logged.entity}/{logged.project}/{mark.id}")
                superseded.tags = [*superseded.tags, "superseded"]
                superseded.update()
        return logged

    def _init(self, run: Run, name: str) -> Any:
        measured = self.request.measured if isinstance(run, PooledRun) else 0
        return self.wandb.init(
            entity=self.entity,
            project=self.project,
            id=name,  # of a trial wandb ignores these three: the agent has given them
            resume="allow" if self.api and not is_trial() else None,
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

    def _is_blocked(self, name: str) -> bool:
        """Whether the server refuses an id, of which wandb says the reason in its log alone."""
        logs = self.folder.glob(f"wandb/run-*-{name}/logs/debug-internal.log")
        return any('"status":409' in log.read_text(errors="replace") for log in logs)

    def _end(self, mark: Mark, run: Run) -> None:
        """End a run, and mark it if the server has it."""
        logged = mark.logged
        run.finish(logged)
        logged.summary.update(run.figures)
        path, page = logged.path, f"Weights & Biases: {logged.project_url}, group {logged.group}"
        logged.finish()
        if self.mode == "offline":
            folder = self.folder / "wandb"
            page = f"Weights & Biases is offline: `wandb leet {folder}` shows the runs, `make sync` sends them"
        else:
            self._confirm(path, run)
        mark.write(path.split("/")[-1], run.parts)
        self.notes.append(page)

    def _confirm(self, path: str, run: Run) -> None:
        """Read a run back until it has the figures and points that were sent.

        Raises:
            ConnectionError: If it never has.
        """
        end = time.monotonic() + READING
        while True:
            try:
                self.api.flush()  # it keeps what it has read
                there = self.api.run(path)
                summary = dict(there.summary)
                wrong = [name for name, n in run.figures.items() if math.isfinite(n) and summary.get(name) != n]
                if summary.get("_step", -1) < run.last_step and there.lastHistoryStep < run.last_step:
                    wrong.append("points")
                if there.state == "finished" and not wrong:
                    return
                why = f"{', '.join(wrong)[:100]} are missing" if wrong else f"it is {there.state}"
            except Exception as error:
                why = reason(error)
            if time.monotonic() > end:
                raise ConnectionError(f"the server does not confirm it: {why}")
            time.sleep(PAUSE)


def serve(connection: Connection, request: Request, environment: dict[str, str], temporary: str) -> None:
    """What the process does: log what has ended now and then, the rest when told to, and answer with what is left."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pool.end_with_parent(lambda: os._exit(1))
    os.environ.clear()
    os.environ.update(without_reports(environment) | {"TMPDIR": temporary})
    os.environ.pop("WANDB_SERVICE", None)  # a service of others keeps the runs of a process that was killed
    tempfile.tempdir = None  # to be looked up in this environment
    with open(os.devnull, "w") as nothing:
        for stream in (1, 2):
            os.dup2(nothing.fileno(), stream)

    def say(kind: str, news: Any) -> None:
        with suppress(OSError):  # nobody listens any more
            connection.send((kind, news))

    left, problem = [], ""
    try:
        session = Session(request, say)
        while not connection.poll(INTERVAL):
            with suppress(Exception):  # what fails is tried again at the end
                session.upload(last=False)
        left = session.upload()
        end = time.monotonic() + OTHERS
        while any(BUSY in run for run in left) and time.monotonic() < end:
            time.sleep(PAUSE)
            before, left = left, session.upload()
            end = time.monotonic() + OTHERS if len(left) < len(before) else end
        session.wandb.teardown()
    except Exception as error:
        problem = reason(error)
    say("end", (left, problem))

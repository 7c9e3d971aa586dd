"""What the process that uploads does: it logs every run that is not marked, reads it back and marks what is confirmed.

A mark is a file in ``results/wandb/logged``, locked while its run is logged; what is marked is on the server. Marks
may be deleted at any time: the ids follow from the results, and a run that is there already is continued, not doubled.
"""

import fcntl
import json
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
from typing import IO, Any
from urllib.error import HTTPError
from urllib.request import urlopen

from data_modules.processes import pool
from experiments.results import Cell
from experiments.tracking.runs import FoldRun, ModelRun, PooledRun, Run, is_trial, run_id, settings

ANSWER = 5.0  # seconds in which the server has to answer at all
INTERVAL = 15.0  # seconds between two looks at what has ended
TOGETHER = 16  # runs that are logged at once
LOOKS = (0.0, 0.5, 1.0, 2.0, 4.0)  # seconds to wait before a run is read back once more
IDS = 5  # that are tried for a run; those of runs that were deleted are blocked

# What W&B is not told: the program and its path, the machine's name, the folder, the packages, the command line. Its
# own retries take minutes; ours are the next sweep and `mer sync`.
QUIET = {
    "console": "off",
    "silent": True,
    "host": "",
    "program": "",
    "program_relpath": "",
    "program_abspath": "",
    "disable_git": True,  # mer's commit is in the config; this would be that of the current folder
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "init_timeout": 60,
    "x_graphql_retry_max": 2,
    "x_graphql_retry_wait_max_seconds": 1,
    "x_file_stream_retry_max": 2,
    "x_file_stream_retry_wait_max_seconds": 1,
    "x_file_transfer_retry_max": 2,
    "x_file_transfer_retry_wait_max_seconds": 1,
}


class NoKey(Exception):
    """There is no key for W&B."""


class Busy(Exception):
    """Another process is logging this run."""


@dataclass(frozen=True)
class Request:
    """What is to be logged.

    Attributes:
        results: The results folder; wandb keeps its files in ``wandb`` there.
        pools: Cells and seeds.
        cache: The cache folder, if pictures of the clips are to be logged.
        models: Models that were fitted.
        whole: Log the scores of a pool only when all its folds are done.
        measured: Id of the process whose tree the system metrics are of; none by default.
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
        pooled = [PooledRun(cell, seed, self.cache) for cell, seed in self.pools]
        folds = [] if is_trial() else [FoldRun(fold) for run in pooled for fold in run.folds]
        return [*self.models, *folds, *(run for run in pooled if run.folds and (run.is_complete or not self.whole))]

    def changed(self) -> tuple[int, ...]:
        """What is another one whenever a fold has ended."""
        folders = [cell.folder / f"seed{seed}" for cell, seed in self.pools]
        return tuple(folder.stat().st_mtime_ns if folder.is_dir() else 0 for folder in folders)


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
        self.mode, self.server = "online" if request.online else own.mode or "online", own.base_url
        self.folder = request.results if self.mode == "offline" else Path(os.environ["TMPDIR"])
        for name in ("DATA", "CACHE", "ARTIFACT"):
            os.environ.setdefault(f"WANDB_{name}_DIR", str(self.folder.resolve() / "wandb"))
        self.project, self.entity = own.project or "mer", own.entity
        self.where = self.mode if self.mode == "offline" else f"{self.server}/{self.entity or ''}/{self.project}"
        self.api: Any = None
        self.live: dict[Path, tuple[IO[str], Any, int]] = {}  # runs that go on: mark, run and number
        self.page = ""  # of the project
        self.lock = threading.Lock()

    def upload(self, last: bool = True) -> list[str]:
        """Log every run that is not marked, several at once; with ``last`` also end what is not complete.

        Returns:
            Each run that is not confirmed, and why.

        Raises:
            NoKey: If there is no key.
            ConnectionError: If the server does not answer, or refuses the key.
        """
        if self.mode == "disabled":
            return []
        runs = {self._file(run): run for run in self.request.runs()}
        waiting = {
            file: run for file, run in runs.items() if file in self.live or not self._is_logged(run, _read(file))
        }
        if not waiting:
            return []
        self._connect()
        failed: dict[Path, str] = {}
        left = len(waiting)
        if last:
            self.say("left", left)

        def work(file: Path) -> None:
            nonlocal left
            try:
                self._log(file, waiting[file], last)
            except Exception as error:  # wandb raises of many kinds
                failed[file] = "" if isinstance(error, Busy) else _text(error)
            with self.lock:
                left -= 1
                if last:
                    self.say("left", left)

        with ThreadPoolExecutor(TOGETHER) as threads:
            list(threads.map(work, waiting))
        self._say_where()
        return [f"{waiting[file].cell.model} seed {waiting[file].seed} {waiting[file].label}: {why}" if why else ""
                for file, why in failed.items()]  # fmt: skip

    def close(self) -> None:
        """End wandb's own process."""
        self.wandb.teardown()

    def _connect(self) -> None:
        """See whether the server answers and takes the key, once."""
        if self.api or self.mode == "offline":
            return
        try:
            urlopen(self.server, timeout=ANSWER).close()
        except HTTPError as error:  # an answer, too
            if error.code >= 500:
                raise ConnectionError(f"{self.server} answers {error.code}") from None
        except OSError as error:
            raise ConnectionError(f"{self.server} does not answer ({_text(error)})") from None
        try:
            api = self.wandb.Api(timeout=20)
            self.entity = self.entity or api.default_entity
        except self.wandb.errors.AuthenticationError as error:
            raise ConnectionError(f"{self.server} refuses the key ({_text(error)})") from None
        except self.wandb.errors.UsageError as error:
            raise NoKey(_text(error)) from None
        self.api = api

    def _log(self, file: Path, run: Run, last: bool) -> None:
        """Log a run, read it back and mark it.

        Raises:
            Busy: If another process does.
            ConnectionError: If it is not on the server afterwards.
        """
        mark, logged, number = self.live.pop(file, (None, None, 0))
        try:
            if mark is None:
                mark = _claim(file)
                before = {} if is_trial() else _read(file)
                if self._is_logged(run, before):
                    return
                logged, number = self._open(run, before)
            run.log(logged)
            if isinstance(run, PooledRun) and not run.is_complete and not last:
                self.live[file] = mark, logged, number
                mark = logged = None
                return
            run.finish(logged)
            self.page = logged.project_url or ""
            path, sent = logged.path, dict(logged.summary)
            logged.finish()
            logged = None
            if self.mode != "offline":
                self._confirm(path, sent)
            content = {"where": self.where, "id": path.split("/")[-1], "number": number, "parts": run.parts}
            mark.truncate(0)
            mark.write(json.dumps(content))
        finally:
            if logged is not None:
                with suppress(Exception):
                    logged.finish(exit_code=1)
            if mark is not None:
                mark.close()

    def _open(self, run: Run, mark: dict) -> tuple[Any, int]:
        """Begin a run, or go on with it; with another id where results were replaced, or the run was deleted."""
        here = mark.get("where") == self.where
        number = mark.get("number", 0) if here else 0
        replaced = here and run.parts[: len(mark["parts"])] != mark["parts"]
        for number in range(number + replaced, number + replaced + IDS):
            try:
                logged = self._init(run, number)
            except self.wandb.errors.CommError as error:
                if "409" not in str(error):
                    raise
                self.say("say", f"{run.cell.model} seed {run.seed} {run.label} was deleted on W&B, which blocks its "
                         "id; it has a new one")  # fmt: skip
                continue
            if replaced and self.api:
                self._mark_superseded(mark["id"])
            return logged, number
        raise ConnectionError(f"it was deleted {IDS} times, and W&B blocks the ids of deleted runs")

    def _say_where(self) -> None:
        if self.mode == "offline":
            folder = self.request.results / "wandb"
            self.say(
                "say", f"Weights & Biases is offline: `wandb leet {folder}` shows the runs, `make sync` uploads them"
            )
        elif self.page:
            self.say("say", f"Weights & Biases: {self.page}")
        self.page = ""

    def _init(self, run: Run, number: int) -> Any:
        given = is_trial()  # then the agent gives the project and the id
        measured = self.request.measured if isinstance(run, PooledRun) else 0
        return self.wandb.init(
            project=None if given else self.project,
            id=None if given else run_id(run, number),
            resume=None if given or self.mode == "offline" else "allow",
            dir=str(self.folder),
            mode=self.mode,
            reinit="create_new",
            settings=self.wandb.Settings(
                **QUIET,
                x_disable_stats=not measured,
                **({"x_stats_pid": measured, "x_stats_track_process_tree": True} if measured else {}),
            ),
            **settings(run),
        )

    def _mark_superseded(self, old: str) -> None:
        with suppress(Exception):  # it may have been deleted
            run = self.api.run(f"{self.entity}/{self.project}/{old}")
            run.tags = [*run.tags, "superseded"]
            run.update()

    def _confirm(self, path: str, sent: dict) -> None:
        """Read a run back until it is what was sent."""
        why = "it is not there"
        for pause in LOOKS:
            time.sleep(pause)
            try:
                run = self.api.run(path)
                run.load(force=True)
            except Exception as error:
                why = _text(error)
                continue
            there = dict(run.summary)
            numbers = {name: n for name, n in sent.items() if isinstance(n, (int, float)) and math.isfinite(n)}
            wrong = [name for name, n in numbers.items() if name[0] != "_" and there.get(name) != n]
            why = f"it is {run.state}" if run.state != "finished" else f"{', '.join(wrong)[:100]} differ there"
            if run.state == "finished" and not wrong and there.get("_step", -1) >= sent.get("_step", -1):
                return
        raise ConnectionError(f"not confirmed by the server: {why}")

    def _file(self, run: Run) -> Path:
        names = "-".join((*run.cell.names.values(), f"seed{run.seed}", run.kind, run.label))
        return self.request.results / "wandb" / "logged" / f"{names}.json"

    def _is_logged(self, run: Run, mark: dict) -> bool:
        return not is_trial() and mark.get("where") == self.where and mark.get("parts") == run.parts


def _claim(file: Path) -> IO[str]:
    """Lock a mark, as long as it is open."""
    file.parent.mkdir(parents=True, exist_ok=True)
    mark = file.open("a")
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        mark.close()
        raise Busy from None
    except OSError:  # a file system without locks, where two processes may log the same run at once
        pass
    return mark


def _read(file: Path) -> dict:
    """What a mark says; nothing if it is missing or was not written to its end."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and {"where", "id", "number", "parts"} <= content.keys() else {}


def _text(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:300]


def serve(connection: Connection, request: Request, environment: dict[str, str], temporary: Path) -> None:
    """What the process does: log what has ended now and then, the rest when told to, and answer with what is left."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    pool.end_with_parent(lambda: os._exit(1))
    _prepare({**environment, "TMPDIR": str(temporary)})

    def say(kind: str, news: Any) -> None:
        with suppress(OSError):  # nobody listens any more
            connection.send((kind, news))

    try:
        temporary.mkdir(exist_ok=True)
        session = Session(request, say)
        seen: tuple[int, ...] = ()
        while not connection.poll(INTERVAL):
            if (now := request.changed()) != seen:
                seen = now
                with suppress(Exception):  # what fails is tried again at the end
                    session.upload(last=False)
        while "" in (left := session.upload()):  # others log these now
            time.sleep(0.5)
        session.close()
        say("end", left)
    except NoKey as error:
        say("no key", _text(error))
    except Exception as error:
        say("failed", _text(error))


def _prepare(environment: dict[str, str]) -> None:
    """Give this process the environment of the one that wants the uploads, and have it print nothing."""
    os.environ.clear()
    os.environ.update(environment)
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to a third party; on if the user says so
    tempfile.tempdir = None  # to be looked up in this environment
    with open(os.devnull, "w") as nothing:
        for stream in (1, 2):
            os.dup2(nothing.fileno(), stream)

"""Runs commands of mer as processes that tests kill, and lists what they leave."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import data_modules

MARK = "MER_FAULT_TEST"
ROOT = Path(data_modules.__file__).parents[1]


class Command:
    """``mer`` with its own session, its own folder for temporary files, and a mark that all its processes carry.

    Args:
        arguments: Of the command line.
        folder: Its output is ``log`` there; commands of one folder share one for temporary files.
        module: What is run with these arguments.
        environment: Variables besides those of this process.
    """

    def __init__(self, arguments: list[str], folder: Path, module: str = "experiments.cli", **environment: str):
        self.mark = uuid4().hex
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        self.temporary = Path("/tmp", f"mer-{sha256(str(folder).encode()).hexdigest()[:8]}")  # sockets need short paths
        self.temporary.mkdir(exist_ok=True)
        own = {"TMPDIR": str(self.temporary), MARK: self.mark, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        self.start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**os.environ, **own, **environment},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        """Its output so far."""
        return self.log.read_bytes()[self.start :].decode()

    def processes(self) -> dict[int, str]:
        """Its live processes with their command lines."""
        return dict(_marked(self.mark))

    def workers(self) -> list[int]:
        """Its processes that were forked from its fork server, oldest first."""
        servers = [pid for pid, words in self.processes().items() if "multiprocessing.forkserver" in words]
        return sorted(pid for pid in servers if _parent(pid) in servers)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send a signal to all its processes, as a terminal does with Ctrl-C."""
        os.killpg(self.pid, number)

    def kill_all(self) -> None:
        """Kill all its processes, and those that they start meanwhile."""
        while processes := self.processes():
            for pid in processes:
                kill(pid)
            self.process.poll()
            time.sleep(0.01)
        self.process.wait()

    def wait(self, seconds: float = 400) -> int:
        """Wait for its end; return its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            state = f"still runs after {seconds} s: {self.processes()}\n{self.output}"
            self.kill_all()
            raise AssertionError(state) from None

    def stray(self) -> list[Path]:
        """Its temporary files."""
        files = list(self.temporary.iterdir())
        if not files:
            self.temporary.rmdir()
        return files

    def left(self, seconds: float = 40) -> dict[int, str]:
        """Its processes that still live after ``seconds``; a fork server first ends its imports."""
        deadline = time.monotonic() + seconds
        while (processes := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return processes


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], object], command: Command, seconds: float = 400) -> bool:
    """Wait until the condition holds; return False if the command ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        if command.process.poll() is not None:
            return False
        assert time.monotonic() < deadline, command.output
        time.sleep(0.01)
    return True


def unfinished(*folders: Path) -> list[Path]:
    """Temporary files."""
    return [path for folder in folders for path in folder.rglob("*") if path.name.endswith(".tmp")]


def identities(folder: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of the files of every finished fold and clip; both change when a file is written again."""
    clips = folder.glob("cache/*/*/*.safetensors")
    folds = [path for fold in folder.glob("results/*/*/*/*/seed*/*.csv") for path in fold.parent.glob(f"{fold.stem}.*")]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (*clips, *folds)}


def contents(results: Path, cache: Path) -> dict[str, bytes | None]:
    """The bytes of every file by its relative path; None for files that differ between runs."""
    files: dict[str, bytes | None] = {}
    for folder in (results, cache):
        for path in folder.rglob("*"):
            place = path.relative_to(folder)
            if path.is_file() and place.parts[0] not in ("wandb", "report"):
                own = path.suffix == ".json" or path.name == "config.yaml"  # seconds, and where the cache is
                files[f"{folder.name}/{place}"] = None if own else path.read_bytes()
    text = (results / "report/report.md").read_text() if (results / "report/report.md").exists() else ""
    tables = re.sub(r"\| [\d.]+ (\| \S+ \| \d+ / \d+ \|)$", r"\1", text.split("### Seconds")[0], flags=re.MULTILINE)
    return {**files, "tables": tables.encode()}


def _marked(mark: str) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                    words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    yield int(folder.name), words[:120]
            except OSError:
                continue  # it has just ended


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0

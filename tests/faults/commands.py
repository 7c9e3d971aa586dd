"""Commands of mer as processes to kill, and what they may leave."""

import os
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
        environment: Variables besides those of this process.
    """

    def __init__(self, arguments: list[str], folder: Path, **environment: str):
        self.mark = uuid4().hex
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "log"
        self.temporary = Path("/tmp", f"mer-{sha256(str(folder).encode()).hexdigest()[:8]}")  # sockets need short paths
        self.temporary.mkdir(exist_ok=True)
        own = {"TMPDIR": str(self.temporary), MARK: self.mark, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        self.start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "experiments.cli", *arguments],
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
        """What it has printed."""
        return self.log.read_bytes()[self.start :].decode()

    def processes(self) -> dict[int, str]:
        """All its processes that live, and what each is."""
        return dict(_marked(self.mark))

    def workers(self) -> list[int]:
        """What has been forked from its server, oldest first."""
        found = self.processes()
        servers = [pid for pid, words in found.items() if "multiprocessing.forkserver" in words]
        return sorted(pid for pid in servers if _parent(pid) in servers)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """What a terminal does with Ctrl-C: every process of the group gets it."""
        os.killpg(self.pid, number)

    def kill_all(self) -> None:
        """Kill the whole tree, whatever it starts meanwhile."""
        while found := self.processes():
            for pid in found:
                kill(pid)
            self.process.poll()
            time.sleep(0.01)
        self.process.wait()

    def wait(self, seconds: float = 400) -> int:
        """Its exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            told = f"still runs after {seconds} s: {self.processes()}\n{self.output}"
            self.kill_all()
            raise AssertionError(told) from None

    def stray(self) -> list[Path]:
        """Its temporary files."""
        found = list(self.temporary.iterdir())
        if not found:
            self.temporary.rmdir()
        return found

    def left(self, seconds: float = 20) -> dict[int, str]:
        """Processes that live on; they may take so long to notice."""
        deadline = time.monotonic() + seconds
        while (found := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], object], command: Command, seconds: float = 400) -> bool:
    """Wait until something holds; False if the command ends before."""
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
    """Inode and time of the files of every fold and clip that is done: both change when a file is written again."""
    clips = folder.glob("cache/*/*/*.safetensors")
    folds = [path for fold in folder.glob("results/*/*/*/*/seed*/*.csv") for path in fold.parent.glob(f"{fold.stem}.*")]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (*clips, *folds)}


def contents(results: Path, cache: Path) -> dict[str, bytes | None]:
    """Every file by its place, with the bytes of those that are the same in every run."""
    found: dict[str, bytes | None] = {}
    for folder in (results, cache):
        for path in folder.rglob("*"):
            place = path.relative_to(folder)
            if path.is_file() and place.parts[0] not in ("wandb", "report"):
                own = path.suffix == ".json" or path.name == "config.yaml"  # seconds, and where the cache is
                found[f"{folder.name}/{place}"] = None if own else path.read_bytes()
    text = (results / "report/report.md").read_text() if (results / "report/report.md").exists() else ""
    return {**found, "tables": text.split("### Seconds")[0].encode()}


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

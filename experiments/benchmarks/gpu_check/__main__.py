"""`make gpu-check`: checks on this machine the code that runs on a GPU, in under eight minutes.

The folder has no ``__init__.py``, so it is no part of the wheel.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from data_modules.processes.pool import cores
from experiments.benchmarks.gpu_check.check import FAILS, HOLDS, SKIPPED, Row

ROOT = Path(__file__).parents[3]
PATIENCE = 3  # factor of the time limits on a CPU, which may have few cores
COLOURS = {HOLDS: "green", FAILS: "red", SKIPPED: "yellow"}


@dataclass(frozen=True)
class Part:
    """Checks that run in one process.

    Attributes:
        name: Module of this folder that has the checks.
        limit: Time limit in seconds on a GPU.
        remedy: Advice for a user if a check fails.
        alone: True for measurements of time or memory, beside which nothing else may run.
    """

    name: str
    limit: int
    remedy: str
    alone: bool = False


PARTS = (
    Part("tests", 210, "a test fails here that passes elsewhere: please report it with its log"),
    Part("commands", 210, "run the command that failed by itself; its message is in the log"),
    Part("folds", 180, "leave that model away, or that precision: --trainer.precision=32-true"),
    Part("agreement", 180, "update the driver and PyTorch, then check again; until then train on the CPU, DEVICES=cpu"),
    Part("flow", 90, "compute flow with OpenCV, --data.backend=opencv; the results are the same"),
    Part("memory", 50, "give the size of a stack yourself, --stack-size 16", alone=True),
    Part("halving", 40, "give a size of stacks that fits, --stack-size 16", alone=True),
    Part("figures", 150, "where it took too long, see with nvidia-smi what else runs on the GPU", alone=True),
)
NAMES = [part.name for part in PARTS]


class Runner:
    """Runs each part in its own process, up to its time limit.

    Args:
        logs: Folder of the logs.
        cpu: Whether to run the smallest form on the CPU.
    """

    def __init__(self, logs: Path, cpu: bool):
        self.logs, self.cpu = logs.absolute(), cpu
        self.processes: list[subprocess.Popen] = []

    def run(self, part: Part) -> list[Row]:
        """Run a part and return its rows; checks that its process did not finish fail."""
        limit = part.limit * (PATIENCE if self.cpu else 1)
        log, rows = self.logs / f"{part.name}.log", self.logs / f"{part.name}.jsonl"
        rows.unlink(missing_ok=True)
        paths = [str(ROOT), str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        words = [sys.executable, "-m", "experiments.benchmarks.gpu_check.part", part.name, str(rows)]
        words += ["--cpu"] * self.cpu
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, log.open("w") as output:
            process = subprocess.Popen(
                words, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, process_group=0
            )
            self.processes.append(process)
            try:
                end = f"its process ended with status {process.wait(limit)}"
            except subprocess.TimeoutExpired:
                end = f"not done after {limit} s"
            finally:
                kill(process)
        return rows_of(part.name, rows, end)

    def stop(self) -> None:
        """Kill the processes of all parts."""
        for process in self.processes:
            kill(process)


def kill(process: subprocess.Popen) -> None:
    """Kill a process and those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def rows_of(part: str, file: Path, end: str) -> list[Row]:
    """The rows in the file of a part; a check that is only planned fails, with ``end`` as its figure."""
    rows: dict[str, Row] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        row = Row(**json.loads(line))
        rows[row.what] = row
    if not rows:
        return [Row(part, "begins", FAILS, end)]
    return [row if row.outcome else Row(part, row.what, FAILS, end) for row in rows.values()]


def run(parts: Sequence[Part], runner: Runner, console: Console) -> list[Row]:
    """Run all parts, side by side where they measure nothing; return their rows in order."""

    def run_part(part: Part) -> list[Row]:
        rows = runner.run(part)
        failed = sum(row.outcome == FAILS for row in rows)
        console.print(f"{part.name}: {f'{failed} of {len(rows)} fail' if failed else 'done'}", highlight=False)
        return rows

    together = [part for part in parts if not part.alone]
    with ThreadPoolExecutor(max(2, cores() // 2)) as pool:
        try:
            rows = dict(zip(together, pool.map(run_part, together)))
            rows |= {part: run_part(part) for part in parts if part.alone}
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            runner.stop()
            raise
    return [row for part in parts for row in rows[part]]


def show(rows: Sequence[Row], runner: Runner, console: Console) -> None:
    """Print the table, the remedies of failed parts and the folder of the logs."""
    where = "the CPU" if runner.cpu else torch.cuda.get_device_name()
    title = f"mer on {where}, PyTorch {torch.__version__}, Python {platform.python_version()}"
    table = Table("part", "what", "", "figure", title=title)
    table.add_column("s", justify="right")
    for part in NAMES:
        for row in (row for row in rows if row.part == part):
            outcome = f"[{COLOURS[row.outcome]}]{row.outcome}[/]"
            table.add_row(row.part, row.what, outcome, row.figure.replace("[", r"\["), f"{row.seconds:.1f}")
        table.add_section()
    console.print(table)
    for part in PARTS:
        if any(row.part == part.name and row.outcome == FAILS for row in rows):
            log = runner.logs / f"{part.name}.log"
            console.print(f"{part.name}: {part.remedy}. Log: {log}", highlight=False, soft_wrap=True)
    counts = ", ".join(f"{sum(row.outcome == word for row in rows)} {word}" for word in (HOLDS, FAILS, SKIPPED))
    console.print(f"{counts}. Full logs: {runner.logs}", highlight=False, soft_wrap=True)


def no_gpu() -> str:
    """Why PyTorch sees no GPU, and the remedy."""
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} sees no GPU, as it is built without CUDA: install one that is"
    needs = f"a driver for CUDA {torch.version.cuda}"
    return f"PyTorch {torch.__version__} sees no GPU: does nvidia-smi list one, and is there {needs}"


def main(words: Sequence[str] | None = None) -> int:
    """Check everything.

    Returns:
        Exit status: 0; 1 if something fails; 2 without a GPU.
    """
    parser = argparse.ArgumentParser(prog="make gpu-check", description="Whether mer's GPU code holds on this machine.")
    parser.add_argument("--cpu", action="store_true", help="run its smallest form on the CPU: a test of this command")
    parser.add_argument("--only", default=",".join(NAMES), help=f"comma-separated, of {', '.join(NAMES)} (default all)")
    parser.add_argument("--logs", type=Path, default=Path("results/gpu-check"), help="folder (default %(default)s)")
    options = parser.parse_args(words)
    unknown = set(options.only.split(",")) - set(NAMES)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if not options.cpu and not torch.cuda.is_available():
        print(f"gpu-check: {no_gpu()}; ARGS=--cpu tries the command without one", file=sys.stderr)
        return 2
    options.logs.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 140)
    runner = Runner(options.logs, options.cpu)
    rows = run([part for part in PARTS if part.name in options.only.split(",")], runner, console)
    with (options.logs / "table.txt").open("w") as file:
        show(rows, runner, Console(file=file, width=140))
    show(rows, runner, console)
    return int(any(row.outcome == FAILS for row in rows))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("gpu-check: interrupted")

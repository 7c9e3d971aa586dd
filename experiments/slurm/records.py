"""What was submitted, one small file per job in ``results/slurm``, and what has become of it. No torch."""

import json
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from data_modules.cache.store import write_text
from experiments.results import Cell
from mer import InputError

RUNNING, QUEUED, UNKNOWN, FAILED = STATES = ("running", "queued", "unknown", "failed")
PATIENCE = 30  # seconds in which SLURM has to answer


@dataclass(frozen=True)
class Submitted:
    """A job that was submitted.

    Attributes:
        number: The job's id.
        cell: What its folds belong to.
        seed: Their seed.
        folds: Their names.
    """

    number: str
    cell: Cell
    seed: int
    folds: tuple[str, ...]

    @cached_property
    def missing(self) -> list[str]:
        """Folds that have no file yet."""
        return [fold for fold in self.folds if not self.cell.file(self.seed, fold).exists()]

    @property
    def log(self) -> Path:
        """What the job prints; there once it has started."""
        return folder(self.cell.results) / f"{self.number}_0_log.out"

    def write(self) -> None:
        """Keep the record until the job has succeeded, and removes it, or is superseded."""
        cell = asdict(self.cell)
        del cell["results"]  # the folder that this is in
        content = {"cell": cell, "seed": self.seed, "folds": self.folds}
        write_text(folder(self.cell.results) / f"{self.number}.json", json.dumps(content, indent=1) + "\n")

    def remove(self) -> None:
        """Remove all but the log."""
        here = folder(self.cell.results)
        for path in (here / f"{self.number}.json", *here.glob(f"{self.number}_*")):
            if path != self.log:
                path.unlink(missing_ok=True)


def folder(results: Path) -> Path:
    """Where jobs keep records and logs."""
    return results / "slurm"


def submitted(results: Path) -> list[Submitted]:
    """Every job that has not succeeded yet, as far as is known.

    Raises:
        InputError: If a record is damaged.
    """
    found = []
    for path in sorted(folder(results).glob("*.json")):
        try:
            content = json.loads(path.read_text())
            cell = Cell(results, **content["cell"])
            found.append(Submitted(path.stem, cell, content["seed"], tuple(content["folds"])))
        except FileNotFoundError:  # it has succeeded just now
            continue
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: is no record of a SLURM job ({error}); delete it") from error
    return found


class Listed(NamedTuple):
    """A job as SLURM lists it: ``running`` or ``queued``, and its word for what it waits for."""

    state: str
    reason: str


def queue() -> dict[str, Listed] | None:
    """Every job that SLURM has not ended, by id; None where there is no SLURM.

    Raises:
        InputError: If SLURM does not answer.
    """
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--format=%i %T %r"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    except subprocess.CalledProcessError as error:
        raise InputError(f"SLURM does not answer: {' '.join(error.stderr.split())}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"SLURM does not answer: {error}") from error
    lines = (line.split(maxsplit=2) for line in told.splitlines())
    waiting = ("PENDING", "REQUEUED")
    return {number: Listed(QUEUED if state in waiting else RUNNING, reason) for number, state, reason in lines}


def state(job: Submitted, listed: Mapping[str, Listed] | None) -> str:
    """What the job's missing folds are: one of ``STATES``."""
    if listed is None:
        return UNKNOWN
    return listed[job.number].state if job.number in listed else FAILED


@dataclass(frozen=True)
class Progress:
    """What has become of the folds that were submitted and have no file.

    Attributes:
        counts: How many of a cell and seed are in which of ``STATES``.
        logs: What jobs that failed have printed.
        reasons: What jobs wait for, in SLURM's words, and how many do.
        problem: Why SLURM could not be asked.
    """

    counts: Mapping[tuple[Cell, int], Counter[str]]
    logs: tuple[Path, ...]
    reasons: Counter[str]
    problem: str = ""


def progress(results: Path) -> Progress:
    """What has become of every job; SLURM is asked only if a fold is missing."""
    jobs = [job for job in submitted(results) if job.missing]  # read before the queue: what is not in it has ended
    problem, listed = "", None
    try:
        listed = queue() if jobs else None
    except InputError as error:
        problem = str(error)
    found: dict[tuple[Cell, int, str], str] = {}
    for job in jobs:
        for fold in job.missing:
            known = found.get((job.cell, job.seed, fold), FAILED)
            found[job.cell, job.seed, fold] = min(known, state(job, listed), key=STATES.index)
    counts: defaultdict[tuple[Cell, int], Counter[str]] = defaultdict(Counter)
    for (cell, seed, _), what in found.items():
        counts[cell, seed][what] += 1
    failed = [job.log for job in jobs if state(job, listed) == FAILED and job.log.exists()]
    reasons = Counter(listed[job.number].reason for job in jobs if listed and state(job, listed) == QUEUED)
    return Progress(counts, tuple(failed), reasons, problem)

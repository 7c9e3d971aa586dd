"""Records of submitted jobs, a file per job in ``results/slurm``, and the state of the jobs. Imports no torch."""

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
from experiments.results import Cell, Fold
from mer import InputError

RUNNING, QUEUED, UNKNOWN, FAILED = STATES = ("running", "queued", "unknown", "failed")
PATIENCE = 30  # seconds in which SLURM has to answer


@dataclass(frozen=True)
class Submitted:
    """A job that was submitted.

    Attributes:
        number: SLURM's id of the job.
        cell: Cell of its folds.
        seed: Seed of its folds.
        names: Names of its folds.
    """

    number: str
    cell: Cell
    seed: int
    names: tuple[str, ...]

    @property
    def folds(self) -> list[Fold]:
        return [Fold(self.cell, name, self.seed) for name in self.names]

    @cached_property
    def missing(self) -> list[Fold]:
        """Folds that have no file yet."""
        return [fold for fold in self.folds if not fold.is_done]

    @property
    def log(self) -> Path:
        """File of the job's output, which exists once the job has started."""
        return folder(self.cell.results) / f"{self.number}_0_log.out"

    def write(self) -> None:
        """Write the record; the job removes it when it succeeds, a later submission when it takes over."""
        cell = asdict(self.cell)
        del cell["results"]  # the folder above the record
        content = {"cell": cell, "seed": self.seed, "folds": self.names}
        write_text(folder(self.cell.results) / f"{self.number}.json", json.dumps(content, indent=1) + "\n")

    def remove(self) -> None:
        """Remove the record and submitit's files, but not the log."""
        records = folder(self.cell.results)
        for path in (records / f"{self.number}.json", *records.glob(f"{self.number}_*")):
            if path != self.log:
                path.unlink(missing_ok=True)


def folder(results: Path) -> Path:
    """Folder of the records and logs."""
    return results / "slurm"


def submitted(results: Path) -> list[Submitted]:
    """Every job with a record, which are those that have not succeeded yet.

    Raises:
        InputError: If a record is damaged.
    """
    jobs = []
    for path in sorted(folder(results).glob("*.json")):
        try:
            content = json.loads(path.read_text())
            cell = Cell(results, **content["cell"])
            jobs.append(Submitted(path.stem, cell, content["seed"], tuple(content["folds"])))
        except FileNotFoundError:  # the job has just succeeded
            continue
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: is no record of a SLURM job ({error}); delete it") from error
    return jobs


class Listed(NamedTuple):
    """A job in SLURM's queue: ``running`` or ``queued``, and SLURM's reason why it waits."""

    state: str
    reason: str


def queue() -> dict[str, Listed] | None:
    """Every job in SLURM's queue by its id; None if SLURM is not installed.

    Raises:
        InputError: If SLURM does not answer.
    """
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--format=%i %T %r"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout
    except subprocess.CalledProcessError as error:
        raise InputError(f"SLURM does not answer: {' '.join(error.stderr.split())}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"SLURM does not answer: {error}") from error
    lines = (line.split(maxsplit=2) for line in output.splitlines())
    waiting = ("PENDING", "REQUEUED")
    return {number: Listed(QUEUED if state in waiting else RUNNING, reason) for number, state, reason in lines}


def state(job: Submitted, listed: Mapping[str, Listed] | None) -> str:
    """State of the job's missing folds, one of ``STATES``."""
    if listed is None:
        return UNKNOWN
    return listed[job.number].state if job.number in listed else FAILED


@dataclass(frozen=True)
class Progress:
    """States of the folds that were submitted and have no file.

    Attributes:
        counts: Number of folds in each of ``STATES``, by cell and seed.
        logs: Logs of failed jobs.
        reasons: SLURM's reasons why jobs wait, and the number of jobs.
        problem: Why SLURM did not answer, else empty.
    """

    counts: Mapping[tuple[Cell, int], Counter[str]]
    logs: tuple[Path, ...]
    reasons: Counter[str]
    problem: str = ""


def progress(results: Path) -> Progress:
    """States of the folds of all jobs; SLURM is asked only if a fold is missing."""
    jobs = [job for job in submitted(results) if job.missing]  # read before the queue: a job not in it has ended
    problem, listed = "", None
    try:
        listed = queue() if jobs else None
    except InputError as error:
        problem = str(error)
    states: dict[Fold, str] = {}
    for job in jobs:
        for fold in job.missing:
            other = states.get(fold, FAILED)  # of another job with the same fold
            states[fold] = min(other, state(job, listed), key=STATES.index)
    counts: defaultdict[tuple[Cell, int], Counter[str]] = defaultdict(Counter)
    for fold, fold_state in states.items():
        counts[fold.cell, fold.seed][fold_state] += 1
    failed = [job.log for job in jobs if state(job, listed) == FAILED and job.log.exists()]
    reasons = Counter(listed[job.number].reason for job in jobs if listed and state(job, listed) == QUEUED)
    return Progress(counts, tuple(failed), reasons, problem)

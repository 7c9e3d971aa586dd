"""Submits the folds that have no file as SLURM jobs."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import DelayedSubmission

from experiments.jobs import Job
from experiments.results import Cell, Fold
from experiments.slurm.records import FAILED, Submitted, folder, queue, state, submitted
from experiments.slurm.request import Request, minutes
from mer import InputError

if TYPE_CHECKING:
    from experiments.experiment import Experiment

NOTICE = 60  # seconds before its time limit at which SLURM sends a job a signal; it may come a minute earlier
RUNS = 2  # a job is not queued again after so many runs in a row in which no fold ended
TIMEOUTS = 10_000  # switches off submitit's own limit
ELSEWHERE = ("workers", "accelerator", "options")  # fields of a job that the command line gives in another way


@dataclass
class FoldsJob:
    """The work of a SLURM job: a command line that trains folds.

    submitit pickles it, calls it on the node, and calls ``checkpoint`` shortly before the time limit.

    Attributes:
        command: The program ``mer``: from its arguments to its exit status.
        arguments: Arguments of ``mer``.
        files: The files of the folds.
        missing: Number of files that did not exist at the start of this run.
        idle: Number of runs in a row before this one in which no fold ended.
    """

    command: Callable[[list[str]], int]
    arguments: tuple[str, ...]
    files: tuple[str, ...]
    missing: int = 0
    idle: int = 0

    def __call__(self) -> None:
        self.missing = self._missing()
        if status := self.command(list(self.arguments)):
            sys.exit(status)

    def checkpoint(self) -> DelayedSubmission | None:
        """The same command, to be queued again for the missing folds; None if too many runs trained none."""
        idle = self.idle + 1 if self._missing() == self.missing else 0
        if idle == RUNS:
            print(f"no fold has ended in {RUNS} runs: give the jobs more --time", file=sys.stderr)
            return None
        return DelayedSubmission(replace(self, idle=idle))

    def _missing(self) -> int:
        return sum(not Path(file).exists() for file in self.files)


@dataclass(frozen=True)
class Batch:
    """Folds of one cell and seed, for one job."""

    experiment: "Experiment"
    seed: int
    folds: list[Fold]

    @property
    def name(self) -> str:
        cell = self.experiment.cell
        return f"mer-{cell.model}-{cell.digest[:6]}-seed{self.seed}"

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(str(fold.file) for fold in self.folds)

    def arguments(self, request: Request, upload_pictures: bool) -> tuple[str, ...]:
        """Arguments of ``mer`` that train these folds, on any machine for the same cell."""
        job, config = self.experiment.job, self.experiment.config
        words = ["sweep", "--folds", ",".join(fold.name for fold in self.folds), "--seeds", str(self.seed)]
        for field in fields(Job):
            value = getattr(job, field.name)
            if field.name not in ELSEWHERE and value != field.default:
                for item in value if isinstance(value, tuple) else (value,):
                    words += [f"--{field.name.replace('_', '-')}", str(item)]
        words += ["--devices", request.devices, "--workers", str(request.cpus)]
        words += ["--upload-pictures"] * upload_pictures
        # Their defaults depend on the machine, and every node has to train for the same cell.
        settled = [f"--trainer.precision={config.trainer.precision}"]
        if "backend" in config.data.init_args:
            settled.append(f"--data.backend={config.data.init_args.backend}")
        return (*words, "--", *job.options, *settled)


def submit(
    experiments: Mapping[Cell, "Experiment"],
    pending: Sequence[Fold],
    command: Callable[[list[str]], int],
    request: Request,
    upload_pictures: bool = False,
) -> None:
    """Submit the folds that no job in SLURM's queue has, or print the jobs.

    Args:
        experiments: What the cells are trained with.
        pending: Folds that have no file.
        command: The program ``mer``, which a job calls.
        request: What each job requests.
        upload_pictures: Option of ``mer sweep`` for the jobs.

    Raises:
        InputError: If SLURM refuses a job or does not answer.
    """
    results = next(iter(experiments)).results
    jobs = submitted(results)  # read first: a job that is not in the queue then has ended
    listed = queue() or {}
    taken = {fold for job in jobs if state(job, listed) != FAILED for fold in job.folds}
    left = [fold for fold in pending if fold not in taken]
    batches = list(_batches(experiments, left, request.folds_per_job))
    if request.print_only:
        print("# A shell submits these jobs: mer sweep ... --launcher slurm --print-only | sh")
        for batch in batches:
            print(f"\nsbatch <<'END'\n{_script(batch, request, upload_pictures)}END")
        return
    for number, batch in enumerate(batches):
        try:
            job = _submit(batch, command, request, upload_pictures)
        except (FailedJobError, FailedSubmissionError) as error:
            before = f"{number} jobs are submitted; then " if number else ""
            raise InputError(f"{before}SLURM refused a job: {' '.join(str(error).split())}") from error
        print(f"job {job.number}: {batch.experiment.cell.model} seed {batch.seed}, {len(batch.folds)} folds")
    for job in jobs:  # new jobs have taken over all missing folds of those that failed
        if state(job, listed) == FAILED and set(left).issuperset(job.missing):
            job.remove()
    if waiting := len(pending) - len(left):
        print(f"{waiting} folds are queued or running already")
    if batches:
        print(f"{len(left)} folds submitted in {len(batches)} jobs; their logs are in {folder(results)}")
    print("`mer status` shows how they are; when the jobs have ended, this command submits what is missing, or reports")


def _batches(experiments: Mapping[Cell, "Experiment"], pending: Sequence[Fold], size: int) -> Iterator[Batch]:
    for (cell, seed), group in groupby(pending, key=lambda fold: (fold.cell, fold.seed)):
        folds = list(group)
        step = size or len(folds)
        for start in range(0, len(folds), step):
            yield Batch(experiments[cell], seed, folds[start : start + step])


def _submit(batch: Batch, command: Callable[[list[str]], int], request: Request, upload_pictures: bool) -> Submitted:
    cell = batch.experiment.cell
    records = folder(cell.results).absolute()
    executor = SlurmExecutor(records, max_num_timeout=TIMEOUTS)
    own = f'{shlex.quote(str(records))}/"$SLURM_JOB_ID"'
    executor.update_parameters(
        job_name=batch.name,
        time=minutes(request.time),
        signal_delay_s=NOTICE,
        stderr_to_stdout=True,
        srun_args=[f"--cpus-per-task={request.cpus}"],  # since SLURM 22.05 srun does not take it from sbatch
        teardown=[
            "status=$?",
            f'[ "$status" != 0 ] || rm -f {own}.json {own}_submission.sh {own}_submitted.pkl {own}_0_result.pkl',
            'exit "$status"',
        ],
        additional_parameters={**request.directives, "chdir": os.getcwd(), "requeue": True},
    )
    job = executor.submit(FoldsJob(command, batch.arguments(request, upload_pictures), batch.files))
    for link in records.glob(".submission_file_*.sh"):
        if link.is_symlink():  # submitit leaves a link to the script; a plain file is a script that is being submitted
            link.unlink(missing_ok=True)
    record = Submitted(job.job_id, cell, batch.seed, tuple(fold.name for fold in batch.folds))
    record.write()
    return record


def _script(batch: Batch, request: Request, upload_pictures: bool) -> str:
    """The same job as a script for ``sbatch``, without submitit."""
    directives = {
        "job-name": batch.name,
        **request.directives,
        "chdir": os.getcwd(),
        "open-mode": "append",
        "signal": f"B:USR2@{NOTICE}",
    }
    command = shlex.join([sys.executable, "-m", "experiments.cli", *batch.arguments(request, upload_pictures)])
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{name}={shlex.quote(value)}" for name, value in directives.items()),
        "#SBATCH --requeue",
        "# Shortly before its time limit the job is queued again; the next run trains the missing folds.",
        f"""trap '[ "${{SLURM_RESTART_COUNT:-0}}" -ge {len(batch.folds)} ] || scontrol requeue "$SLURM_JOB_ID"' USR2""",
        f"srun --cpus-per-task={request.cpus} {command} &",
        "wait $!",
    ]
    return "\n".join(lines) + "\n"

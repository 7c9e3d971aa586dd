"""A sweep: the folds of all cells and seeds that are not done go to the workers; then the scores are shown."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from data_modules.processes.pool import Failure
from experiments import report, tracking, workers
from experiments.configuration import shares_folds
from experiments.experiment import Experiment
from experiments.fold import run
from experiments.jobs import Job
from experiments.plan import plan
from experiments.progress import Display, count_done
from experiments.results import Cell, Fold
from experiments.tracking import Request, Uploads
from mer import InputError


def sweep(
    jobs: Sequence[Job],
    seeds: Sequence[int],
    devices: Sequence[str],
    console: Console,
    folds: Sequence[str] = (),
    dry_run: bool = False,
    upload_pictures: bool = False,
    submit: Callable[..., None] | None = None,
) -> int:
    """Train every fold that has no file yet, then report.

    Args:
        jobs: The cells.
        seeds: Each trains all folds.
        devices: One worker each, see ``workers.run``.
        console: Where to print.
        folds: Names of those to train, without a report; all by default.
        dry_run: Say what would be trained.
        upload_pictures: Send flow and attention to W&B, too.
        submit: Hands the pending folds to a cluster, in place of training them here.

    Returns:
        Exit status: 0, or 1 if a fold failed in every try.

    Raises:
        InputError: If something is wrong with a job or its data; nothing has been trained then.
        WriteError: If a file cannot be written; the folds that are done are kept.
        KeyboardInterrupt: With how many folds are done.
    """
    experiments = [Experiment(job) for job in jobs]  # all are parsed before the first one starts
    if any(shares_folds(experiment.config.trainer) for experiment in experiments):
        raise InputError("a sweep gives each device its own folds; trainer.devices and strategy are for mer train")
    if jobs[0].stack_size and not any(experiment.config.stacked for experiment in experiments):
        raise InputError("--stack-size is for recipes that are stacked; add --stacked")
    if submit and tracking.is_trial():
        raise InputError("a trial of a W&B search waits for its scores; leave --launcher slurm away")
    if tracking.is_trial():
        tracking.check_trial(experiments, seeds)
    if not dry_run:
        for experiment in experiments:
            experiment.data.prepare_data()
        for experiment in experiments:
            open_cell(experiment, seeds, console)
    by_cell = {experiment.cell: experiment for experiment in experiments}
    asked = [fold for experiment in by_cell.values() for fold in experiment.folds(seeds)]
    pending = [fold for experiment in by_cell.values() for fold in _named(experiment, seeds, folds) if not fold.is_done]
    if dry_run:
        plan(console, list(by_cell.values()), pending, len(seeds), devices)
        return 0
    if submit and pending:
        submit(by_cell, pending, upload_pictures=upload_pictures)
        return 0
    pools = tuple(dict.fromkeys((fold.cell, fold.seed) for fold in asked))
    request = Request(
        Path(jobs[0].results),
        pools,
        cache=Path(jobs[0].cache) if upload_pictures else None,
        whole=bool(folds),  # of a part the scores are logged by who finds all folds done
        measured=os.getpid() if pending else 0,
    )
    with Uploads(request, console) as uploads:
        with count_done(asked):
            failures = train(by_cell, pending, devices, console)
        report.show(Path(jobs[0].results), console, list(by_cell))
        if not folds:
            console.print(f"report: {report.write(Path(jobs[0].results), Path(jobs[0].cache))}")
        uploads.finish(float("inf") if upload_pictures else tracking.LIMIT)  # pictures may be many
    uploads.report()
    name_failures(failures, console)
    return 1 if failures else 0


def name_failures(failures: Sequence[tuple[Fold, Failure]], console: Console) -> None:
    """Print which folds failed in every try, and why."""
    for reason in dict.fromkeys(failure.reason for _, failure in failures):
        same = [f"{fold.cell.model} {fold.name} seed {fold.seed}" for fold, f in failures if f.reason == reason]
        console.print(f"failed twice: {', '.join(same)}\n{reason}", style="red", highlight=False)


def open_cell(experiment: Experiment, seeds: Sequence[int], console: Console) -> None:
    """Write what the folds of a cell share, and move aside, by name, what stands in the place of a result."""
    experiment.cell.write_header(experiment.data.clips, experiment.yaml)
    for moved in (experiment.cell.set_aside(seed) for seed in seeds):
        for path, why in moved.items():
            text = f"{path}: {why}; it is no result, was moved here and is trained again"
            console.print(text, style="yellow", highlight=False, soft_wrap=True, markup=False)


def _named(experiment: Experiment, seeds: Sequence[int], names: Sequence[str]) -> list[Fold]:
    """The experiment's folds, or those that were named."""
    for name in set(names) - set(experiment.data.folds):
        raise InputError(f"there is no fold '{name}'; there are {', '.join(experiment.data.folds)}")
    return [fold for fold in experiment.folds(seeds) if not names or fold.name in names]


def train(
    experiments: Mapping[Cell, Experiment],
    pending: Sequence[Fold],
    devices: Sequence[str],
    console: Console,
) -> list[tuple[Fold, Failure]]:
    """Train folds in the workers of some devices.

    Args:
        experiments: What their cells are trained with.
        pending: What has no file yet.
        devices: One worker each, see ``workers.run``.
        console: Where the progress is shown.

    Returns:
        Those that failed in every try, and why.
    """
    failures: list[tuple[Fold, Failure]] = []
    work = list(_work(experiments, pending, len(devices)))
    with Display(console, pending) as display:
        for index, outcome in workers.run(workers.run_folds, work, devices):
            _, _, folds = work[index]
            lost = [isinstance(outcome, Failure) and not fold.is_done for fold in folds]
            display.advance(folds, lost)
            failures += [(fold, outcome) for fold, failed in zip(folds, lost, strict=True) if failed]
    return failures


def _work(
    experiments: Mapping[Cell, Experiment], pending: Sequence[Fold], count: int
) -> Iterator[tuple[Job, Namespace, list[Fold]]]:
    """What is handed to a worker at once, see ``workers.run_folds``: the folds in the order given, cut."""
    for cell, group in groupby(pending, key=lambda fold: fold.cell):
        experiment, folds = experiments[cell], list(group)
        size = workers.folds_per_task(experiment, len(folds), count)
        for start in range(0, len(folds), size):
            yield experiment.job, experiment.config, folds[start : start + size]


def train_here(job: Job, name: str, seed: int, device: str) -> bool:
    """Train one fold in this process, as a worker of a sweep would, and print its predictions.

    Returns:
        Whether this process has printed them: where several train the fold, one does.
    """
    experiment = Experiment(job)
    workers.bind_to_device(device, alone=not shares_folds(experiment.config.trainer))
    experiment.data.hold_out(name, seed)  # complains of a fold that is none before anything is computed
    experiment.data.prepare_data()
    experiment.cell.write_header(experiment.data.clips, experiment.yaml)
    fold = Fold(experiment.cell, name, seed)
    run(experiment, [fold])
    if rank_zero_only.rank != 0:
        return False
    print(fold.read().to_string(index=False))
    print(f"written: {fold.file}")
    return True

"""A sweep: the folds of all cells and seeds that are not done go to the workers; then the scores are shown."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from data_modules.processes.pool import Failure
from experiments import report, tracking, workers
from experiments.configuration import shares_folds
from experiments.experiment import Experiment
from experiments.fold import run
from experiments.jobs import Job
from experiments.plan import plan
from experiments.progress import Display, Fold, count_done
from experiments.tracking import Entry, Tracker
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
    pending = [
        (experiment, fold, seed)
        for experiment in experiments
        for seed in seeds
        for fold in _named(experiment, folds)
        if not experiment.cell.file(seed, fold).exists()
    ]
    if dry_run:
        plan(console, experiments, pending, len(seeds), devices)
        return 0
    if submit and pending:
        submit(Path(jobs[0].results), pending, upload_pictures=upload_pictures)
        return 0
    pools = dict.fromkeys((experiment, seed) for experiment, _, seed in pending)
    if upload_pictures or tracking.is_trial():  # logged again even where all is trained
        pools = dict.fromkeys((experiment, seed) for experiment in experiments for seed in seeds)
    asked = [(experiment, fold, seed) for experiment in experiments for seed in seeds for fold in experiment.data.folds]
    with count_done(asked):
        failures = _train_and_log(pending, list(pools), devices, console, upload_pictures, part=bool(folds))
    report.show(Path(jobs[0].results), console, [experiment.cell for experiment in experiments])
    if not folds:
        console.print(f"report: {report.write(Path(jobs[0].results), Path(jobs[0].cache))}")
    name_failures(failures, console)
    return 1 if failures else 0


def name_failures(failures: Sequence[tuple[Fold, Failure]], console: Console) -> None:
    """Print which folds failed in every try, and why."""
    for reason in dict.fromkeys(failure.reason for _, failure in failures):
        same = [
            f"{experiment.cell.model} {fold} seed {seed}"
            for (experiment, fold, seed), f in failures
            if f.reason == reason
        ]
        console.print(f"failed twice: {', '.join(same)}\n{reason}", style="red", highlight=False)


def open_cell(experiment: Experiment, seeds: Sequence[int], console: Console) -> None:
    """Write what the folds of a cell share, and move aside, by name, what stands in the place of a result."""
    experiment.cell.write_header(experiment.data.clips, experiment.yaml)
    for moved in (experiment.cell.set_aside(seed) for seed in seeds):
        for path, why in moved.items():
            text = f"{path}: {why}; it is no result, was moved here and is trained again"
            console.print(text, style="yellow", highlight=False, soft_wrap=True, markup=False)


def _named(experiment: Experiment, folds: Sequence[str]) -> Sequence[str]:
    """The experiment's folds, or those that were named."""
    for name in set(folds) - set(experiment.data.folds):
        raise InputError(f"there is no fold '{name}'; there are {', '.join(experiment.data.folds)}")
    return [fold for fold in experiment.data.folds if not folds or fold in folds]


def _train_and_log(
    pending: Sequence[Fold],
    pools: Sequence[tuple[Experiment, int]],
    devices: Sequence[str],
    console: Console,
    upload_pictures: bool,
    part: bool,
) -> list[tuple[Fold, Failure]]:
    """Train the folds; log them, and the pooled scores of the cells and seeds in ``pools``.

    Where they are part of a sweep, scores are logged by the process that finds all folds of the cell and seed done.
    """
    if not pools:
        return []
    configs = {experiment: tracking.configuration(experiment) for experiment, _ in pools}
    left = Counter((experiment, seed) for experiment, _, seed in pending)
    begun = set()

    with Tracker(Path(pools[0][0].job.results)) as tracker:

        def log(kind: str, experiment: Experiment, seed: int, **more) -> None:
            if kind == "begin" and (part or (experiment, seed) in begun):
                return
            if kind == "sweep" and part and len(experiment.cell.done(seed)) < len(experiment.cell.folds):
                return
            begun.add((experiment, seed))
            if kind == "sweep" and upload_pictures:
                more["cache"] = Path(experiment.job.cache)
            tracker.log(Entry(kind, experiment.cell, seed, configs[experiment], **more))

        def ended(fold: Fold, curve: list[dict] | None) -> None:
            experiment, name, seed = fold
            log("begin", experiment, seed)
            if curve is not None:
                log("fold", experiment, seed, fold=name, curve=curve)
            left[experiment, seed] -= 1
            if not left[experiment, seed]:
                log("sweep", experiment, seed)

        for experiment, _, seed in pending[:1]:
            log("begin", experiment, seed)
        failures = train(pending, devices, console, ended)
        for experiment, seed in pools:
            if (experiment, seed) not in begun:
                log("sweep", experiment, seed)
    if tracker.problem:
        console.print(tracker.problem, style="yellow", highlight=False, soft_wrap=True)
    return failures


def train(
    pending: Sequence[Fold],
    devices: Sequence[str],
    console: Console,
    ended: Callable[[Fold, list[dict] | None], None] = lambda fold, curve: None,
) -> list[tuple[Fold, Failure]]:
    """Train folds in the workers of some devices.

    Args:
        pending: What has no file yet.
        devices: One worker each, see ``workers.run``.
        console: Where the progress is shown.
        ended: Called with every fold that has ended and with its training curve, None if it failed.

    Returns:
        Those that failed in every try, and why.
    """
    failures: list[tuple[Fold, Failure]] = []
    batches = _batches(pending, len(devices))
    work = []
    for batch in batches:
        experiment = batch[0][0]
        work.append((experiment.job, experiment.config, [(fold, seed) for _, fold, seed in batch]))
    with Display(console, pending) as display:
        for index, outcome in workers.run(workers.run_folds, work, devices):
            batch = batches[index]
            lost = [isinstance(outcome, Failure) and not c.cell.file(seed, fold).exists() for c, fold, seed in batch]
            display.advance(batch, lost)
            for fold, failed in zip(batch, lost, strict=True):
                curve = [] if isinstance(outcome, Failure) else outcome.get(fold[1:], [])
                if failed:
                    failures.append((fold, outcome))
                ended(fold, None if failed else curve)
    return failures


def _batches(pending: Sequence[Fold], count: int) -> list[list[Fold]]:
    """The folds in the order given, cut into what is handed to a worker at once."""
    batches = []
    for experiment, group in groupby(pending, key=itemgetter(0)):
        folds = list(group)
        size = workers.folds_per_task(experiment, len(folds), count)
        batches += [folds[start : start + size] for start in range(0, len(folds), size)]
    return batches


def train_here(job: Job, fold: str, seed: int, device: str) -> int:
    """Train one fold in this process, as a worker of a sweep would, and print its predictions."""
    experiment = Experiment(job)
    workers.bind_to_device(device, alone=not shares_folds(experiment.config.trainer))
    experiment.data.hold_out(fold, seed)  # complains of a fold that is none before anything is computed
    experiment.data.prepare_data()
    experiment.cell.write_header(experiment.data.clips, experiment.yaml)
    run(experiment, [(fold, seed)])
    if rank_zero_only.rank != 0:
        return 0
    print(experiment.cell.read(seed, fold).to_string(index=False))
    print(f"written: {experiment.cell.file(seed, fold)}")
    return 0

"""Cells x seeds -> pending folds -> workers -> pooled scores."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from rich.console import Console

from experiments import executors, report, stacks, tracking
from experiments.configuration import shares_folds
from experiments.executors import Failure
from experiments.fold import Experiment
from experiments.jobs import Job
from experiments.plan import plan
from experiments.progress import Display, Fold, count_done
from experiments.slurm import submission
from experiments.slurm.request import Request
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
    slurm: Request | None = None,
) -> int:
    """Train every fold that has no file yet, then report.

    Args:
        jobs: The cells.
        seeds: Each trains all folds.
        devices: One worker each, see ``executors.run``.
        console: Where to print.
        folds: Names of those to train, without a report; all by default.
        dry_run: Say what would be trained.
        upload_pictures: Send flow and attention to W&B, too.
        slurm: What to ask SLURM for; submits the folds instead and returns.

    Returns:
        Exit status: 0, or 1 if a fold failed in every try.

    Raises:
        InputError: If something is wrong with a job or its data; nothing has been trained then.
        WriteError: If a file cannot be written; the folds that are done are kept.
        KeyboardInterrupt: With how many folds are done.
    """
    experiments = [Experiment(job) for job in jobs]  # all are parsed before the first one starts
    if any(shares_folds(chosen.config.trainer) for chosen in experiments):
        raise InputError("a sweep gives each device its own folds; trainer.devices and strategy are for mer train")
    if jobs[0].stack_size and not any(chosen.config.stacked for chosen in experiments):
        raise InputError("--stack-size is for recipes that are stacked; add --stacked")
    if slurm and tracking.is_trial():
        raise InputError("a trial of a W&B search waits for its scores; leave --launcher slurm away")
    if tracking.is_trial():
        tracking.check_trial(experiments, seeds)
    if not dry_run:
        for chosen in experiments:
            chosen.data.prepare_data()
        for chosen in experiments:
            open_cell(chosen, seeds, console)
    pending = [
        (chosen, fold, seed)
        for chosen in experiments
        for seed in seeds
        for fold in _chosen(chosen, folds)
        if not chosen.cell.file(seed, fold).exists()
    ]
    if dry_run:
        plan(console, experiments, pending, len(seeds), devices)
        return 0
    if slurm and (pending or slurm.print_only):
        submission.submit(Path(jobs[0].results), pending, slurm, upload_pictures)
        return 0
    pools = dict.fromkeys((chosen, seed) for chosen, _, seed in pending)
    if upload_pictures or tracking.is_trial():  # logged again even where all is trained
        pools = dict.fromkeys((chosen, seed) for chosen in experiments for seed in seeds)
    with count_done([(chosen, fold, seed) for chosen in experiments for seed in seeds for fold in chosen.data.folds]):
        failures = _logged(pending, list(pools), devices, console, upload_pictures, part=bool(folds))
    report.show(Path(jobs[0].results), console, [chosen.cell for chosen in experiments])
    if not folds:
        console.print(f"report: {report.write(Path(jobs[0].results), Path(jobs[0].cache))}")
    name_failures(failures, console)
    return 1 if failures else 0


def name_failures(failures: Sequence[tuple[Fold, Failure]], console: Console) -> None:
    """Print which folds failed in every try, and why."""
    for reason in dict.fromkeys(failure.reason for _, failure in failures):
        same = [f"{chosen.job.model} {fold} seed {seed}" for (chosen, fold, seed), f in failures if f.reason == reason]
        console.print(f"failed twice: {', '.join(same)}\n{reason}", style="red", highlight=False)


def open_cell(chosen: Experiment, seeds: Sequence[int], console: Console) -> None:
    """Write what the folds of a cell share, and move aside, by name, what stands in the place of a result."""
    chosen.cell.describe(chosen.data.clips, chosen.yaml)
    for moved in (chosen.cell.set_aside(seed) for seed in seeds):
        for path, why in moved.items():
            told = f"{path}: {why}; it is no result, was moved here and is trained again"
            console.print(told, style="yellow", highlight=False, soft_wrap=True, markup=False)


def _chosen(chosen: Experiment, folds: Sequence[str]) -> Sequence[str]:
    """The experiment's folds, or those that were named."""
    for name in set(folds) - set(chosen.data.folds):
        raise InputError(f"there is no fold '{name}'; there are {', '.join(chosen.data.folds)}")
    return [fold for fold in chosen.data.folds if not folds or fold in folds]


def _logged(
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
    configs = {chosen: tracking.configuration(chosen) for chosen, _ in pools}
    left = Counter((chosen, seed) for chosen, _, seed in pending)
    begun = set()

    with Tracker(Path(pools[0][0].job.results)) as tracker:

        def log(kind: str, chosen: Experiment, seed: int, **more) -> None:
            if kind == "begin" and (part or (chosen, seed) in begun):
                return
            if kind == "sweep" and part and len(chosen.cell.done(seed)) < len(chosen.cell.folds):
                return
            begun.add((chosen, seed))
            if kind == "sweep" and upload_pictures:
                more["cache"] = Path(chosen.job.cache)
            tracker.log(Entry(kind, chosen.cell, seed, configs[chosen], **more))

        def ended(fold: Fold, curve: list[dict] | None) -> None:
            chosen, name, seed = fold
            log("begin", chosen, seed)
            if curve is not None:
                log("fold", chosen, seed, fold=name, curve=curve)
            left[chosen, seed] -= 1
            if not left[chosen, seed]:
                log("sweep", chosen, seed)

        for chosen, _, seed in pending[:1]:
            log("begin", chosen, seed)
        failures = train(pending, devices, console, ended)
        for chosen, seed in pools:
            if (chosen, seed) not in begun:
                log("sweep", chosen, seed)
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
        devices: One worker each, see ``executors.run``.
        console: Where the progress is shown.
        ended: Called with every fold that has ended and with its training curve, None if it failed.

    Returns:
        Those that failed in every try, and why.
    """
    failures: list[tuple[Fold, Failure]] = []
    batches = _batches(pending, len(devices))
    work = [(batch[0][0].job, [(fold, seed) for _, fold, seed in batch]) for batch in batches]
    with Display(console, pending) as display:
        for index, outcome in executors.run(stacks.run_folds, work, devices):
            batch = batches[index]
            lost = [isinstance(outcome, Failure) and not c.cell.file(seed, fold).exists() for c, fold, seed in batch]
            display.advance(batch, lost)
            for one, failed in zip(batch, lost, strict=True):
                curve = [] if isinstance(outcome, Failure) else outcome.get(one[1:], [])
                if failed:
                    failures.append((one, outcome))
                ended(one, None if failed else curve)
    return failures


def _batches(pending: Sequence[Fold], workers: int) -> list[list[Fold]]:
    """The folds in the order given, cut into what is handed to a worker at once."""
    batches = []
    for chosen, group in groupby(pending, key=itemgetter(0)):
        folds = list(group)
        size = stacks.share(chosen, len(folds), workers)
        batches += [folds[start : start + size] for start in range(0, len(folds), size)]
    return batches

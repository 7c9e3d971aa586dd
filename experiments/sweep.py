"""Cells x seeds -> pending folds -> workers -> pooled scores."""

import time
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from experiments import executors, report, stacks, tracking
from experiments.configuration import shares_folds
from experiments.executors import Failure
from experiments.jobs import Job
from experiments.results import Cell
from experiments.tracking import Entry, Tracker
from experiments.train import Experiment, estimate
from mer import InputError, metrics

EVERY = 20  # seconds between two lines of progress where there is no terminal


Fold = tuple[Experiment, str, int]  # an experiment, a fold's name and a seed: one thing to train


def sweep(
    jobs: Sequence[Job],
    seeds: Sequence[int],
    devices: Sequence[str],
    console: Console,
    dry_run: bool = False,
    upload_pictures: bool = False,
) -> int:
    """Train every fold that has no file yet, then report.

    Returns:
        Exit status: 0, or 1 if a fold failed in every try.

    Raises:
        InputError: If something is wrong with a job or its data; nothing has been trained then.
    """
    experiments = [Experiment(job) for job in jobs]  # all are parsed before the first one starts
    if any(shares_folds(chosen.config.trainer) for chosen in experiments):
        raise InputError("a sweep gives each device its own folds; trainer.devices and strategy are for mer train")
    if jobs[0].folds_per_batch and not any(chosen.config.stacked for chosen in experiments):
        raise InputError("--folds-per-batch is for recipes that are stacked; add --stacked")
    if tracking.is_trial():
        tracking.check_trial(experiments, seeds)
    if not dry_run:
        for chosen in experiments:
            chosen.data.prepare_data()
    pending = [
        (chosen, fold, seed)
        for chosen in experiments
        for seed in seeds
        for fold in chosen.data.folds
        if not chosen.cell.file(seed, fold).exists()
    ]
    if dry_run:
        _plan(console, experiments, pending, len(seeds), len(devices))
        return 0
    for chosen in experiments:
        chosen.cell.describe(chosen.data.clips, chosen.yaml)
    pools = dict.fromkeys((chosen, seed) for chosen, _, seed in pending)
    if upload_pictures or tracking.is_trial():  # logged again even where all is trained
        pools = dict.fromkeys((chosen, seed) for chosen in experiments for seed in seeds)
    failures = _train(pending, list(pools), devices, console, upload_pictures)
    report.show(Path(jobs[0].results), console, [chosen.cell for chosen in experiments])
    console.print(f"report: {report.write(Path(jobs[0].results), Path(jobs[0].cache))}")
    for reason in dict.fromkeys(failure.reason for _, failure in failures):
        same = [f"{chosen.job.model} {fold} seed {seed}" for (chosen, fold, seed), f in failures if f.reason == reason]
        console.print(f"failed twice: {', '.join(same)}\n{reason}", style="red", highlight=False)
    return 1 if failures else 0


def _plan(
    console: Console, experiments: Sequence[Experiment], pending: Sequence[Fold], seeds: int, workers: int
) -> None:
    total = 0.0
    for chosen in experiments:
        mine = sum(other is chosen for other, _, _ in pending)
        every = len(chosen.data.folds) * seeds
        seconds = estimate(chosen) if mine else 0.0
        total += seconds * mine
        console.print(
            f"{chosen.job.dataset} {chosen.data.protocol} {chosen.job.model}-{chosen.digest}: {every} folds, "
            f"{every - mine} done, {mine} to train" + (f", about {seconds:.0f} s each on one core" if mine else "")
        )
    console.print(f"{len(pending)} folds to train, about {total / workers / 60:.1f} min with {workers} worker(s)")


def _train(
    pending: Sequence[Fold],
    pools: Sequence[tuple[Experiment, int]],
    devices: Sequence[str],
    console: Console,
    upload_pictures: bool,
) -> list[tuple[Fold, Failure]]:
    """Train the folds; log them, and the pooled scores of the cells and seeds in ``pools``."""
    if not pools:
        return []
    failures: list[tuple[Fold, Failure]] = []
    configs = {chosen: tracking.configuration(chosen) for chosen, _ in pools}
    left = Counter((chosen, seed) for chosen, _, seed in pending)
    begun = set()

    with Tracker(Path(pools[0][0].job.results)) as tracker, Display(console, pending) as display:

        def log(kind: str, chosen: Experiment, seed: int, **more) -> None:
            if kind == "begin" and (chosen, seed) in begun:
                return
            begun.add((chosen, seed))
            if kind == "sweep" and upload_pictures:
                more["cache"] = Path(chosen.job.cache)
            tracker.log(Entry(kind, chosen.cell, seed, configs[chosen], **more))

        for chosen, _, seed in pending[:1]:
            log("begin", chosen, seed)
        batches = _batches(pending, len(devices))
        work = [(batch[0][0].job, [(fold, seed) for _, fold, seed in batch]) for batch in batches]
        for index, outcome in executors.run(stacks.run_folds, work, devices):
            for chosen, fold, seed in batches[index]:
                failed = isinstance(outcome, Failure) and not chosen.cell.file(seed, fold).exists()
                log("begin", chosen, seed)
                if failed:
                    failures.append(((chosen, fold, seed), outcome))
                else:
                    curve = [] if isinstance(outcome, Failure) else outcome.get((fold, seed), [])
                    log("fold", chosen, seed, fold=fold, curve=curve)
                display.advance(chosen.cell, fold, seed, failed)
                left[chosen, seed] -= 1
                if not left[chosen, seed]:
                    log("sweep", chosen, seed)
        for chosen, seed in pools:
            if (chosen, seed) not in begun:
                log("sweep", chosen, seed)
    if tracker.problem:
        console.print(tracker.problem, style="yellow", highlight=False, soft_wrap=True)
    return failures


def _batches(pending: Sequence[Fold], workers: int) -> list[list[Fold]]:
    """The folds in the order given, cut into what is handed to a worker at once."""
    batches = []
    for chosen, group in groupby(pending, key=itemgetter(0)):
        folds = list(group)
        size = stacks.share(chosen, len(folds), workers)
        batches += [folds[start : start + size] for start in range(0, len(folds), size)]
    return batches


class Display:
    """Folds done, time left and running pooled UF1 of every cell and seed: bars on a terminal, lines elsewhere."""

    def __init__(self, console: Console, pending: Sequence[tuple[Experiment, str, int]]):
        self.console, self.total, self.ended = console, len(pending), 0
        self.start = self.told = time.monotonic()
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("folds, UF1 {task.fields[uf1]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.tasks: dict[tuple[Cell, int], TaskID] = {}
        for chosen, _, seed in pending:
            cell = chosen.cell
            if (cell, seed) not in self.tasks:
                name, done = f"{cell.dataset} {cell.model} seed {seed}", len(cell.done(seed))
                task = self.bars.add_task(name, total=len(cell.folds), completed=done, uf1="", left="")
                self.tasks[cell, seed] = task

    def __enter__(self) -> "Display":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def advance(self, cell: Cell, fold: str, seed: int, failed: bool) -> None:
        """Count one fold that has ended."""
        self.ended += 1
        now = time.monotonic()
        left = f"{(now - self.start) / self.ended * (self.total - self.ended) / 60:.1f} min left"
        uf1 = "" if failed else f"{_running(cell, seed):.3f}"
        self.bars.update(self.tasks[cell, seed], advance=not failed, uf1=uf1, left=left)
        if not self.console.is_terminal and (now - self.told > EVERY or self.ended in (1, self.total)):
            self.told = now
            self.console.print(
                f"{self.ended} of {self.total} folds, {left}; last: {cell.model} seed {seed} {fold}, "
                + ("failed" if failed else f"running UF1 {uf1}")
            )


def _running(cell: Cell, seed: int) -> float:
    """Pooled UF1 of the folds done so far, in which a class may have no clip yet."""
    return float(metrics.uf1(metrics.confusion(cell.pooled(seed), cell.classes)))

"""Nested search: every group of subjects is tested with the recipe that did best among all the others.

A recipe that was chosen by its score on the subjects it is then scored on is scored too high (Varma and Simon, BMC
Bioinformatics 2006; Cawley and Talbot, JMLR 2010). Here the subjects are divided into outer groups. For each of them,
every candidate is trained and tested in inner groups of the other subjects, and the best one trains the folds of the
group's subjects, each without that subject, as in any sweep. Nobody's clips take part in the choice of what they are
tested with; what counts is the score of the pool. A recipe or a space that somebody has chosen with these subjects in
view is not made honest by this: the search cannot know it.
"""

import itertools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import numpy as np
import pandas as pd
import yaml
from rich.console import Console
from rich.table import Table

from data_modules import protocols
from data_modules.cache import store
from experiments import report
from experiments.experiment import Experiment
from experiments.jobs import CONFIGS, Job
from experiments.progress import count_done, pooled_uf1
from experiments.results import Cell, Fold
from experiments.sweep import name_failures, open_cell, train
from mer import InputError

OUTER, INNER = 5, 4  # groups of subjects
SEEDS = (0, 1)  # of the inner folds
WORK = ".search"  # folder in the results that no report reads: inner folds, and outer ones by recipe

Options = tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """What an outer group is trained with.

    Attributes:
        group: Name of the outer group.
        subjects: Its folds.
        scores: Pooled honest UF1 of the inner folds, mean over the seeds, of each candidate.
    """

    group: str
    subjects: list[str]
    scores: list[float]

    @property
    def best(self) -> int:
        """Index of the candidate with the highest score; of equal ones the first."""
        return self.scores.index(max(self.scores))


def search(job: Job, seeds: Sequence[int], devices: Sequence[str], console: Console, trials: int) -> int:
    """Choose a recipe for each outer group among the others, then train and test the group's folds with it.

    What has been trained already is not trained again, so an interrupted search goes on where it was. The result is a
    cell of its own, ``<model>_searched``; its ``config.yaml`` holds the candidates, the scores and the choices.

    Args:
        job: The model, its recipe and what all candidates share.
        seeds: Of the outer folds.
        devices: One worker each.
        console: Where to print.
        trials: Number of candidates; the first is the job's recipe as it is.

    Returns:
        Exit status: 0, or 1 if a fold failed in every try.

    Raises:
        InputError: If something is wrong with the job, its space or its data; nothing has been trained then.
        WriteError: If a file cannot be written; the folds that are done are kept.
        KeyboardInterrupt: With how many folds of the step, inner or outer, are done.
    """
    recipes = candidates(space(job.model_name), trials)
    hidden = replace(job, results=str(Path(job.results) / WORK))
    clips = Experiment(hidden).data.clips
    groups = {name: _subjects(clips, rows) for name, rows in protocols.folds(clips, f"groups{OUTER}").items()}
    inner: dict[str, list[Experiment]] = {}
    for group in groups:
        parsed = next(iter(inner.values()), [None] * len(recipes))  # of another group
        split = {"split": f"groups{INNER}", "outer_split": f"groups{OUTER}", "outer_fold": group}
        inner[group] = [_experiment(hidden, *pair, **split) for pair in zip(recipes, parsed, strict=True)]
    inner_experiments = [experiment for experiments in inner.values() for experiment in experiments]
    inner_folds = [fold for experiment in inner_experiments for fold in experiment.folds(SEEDS)]
    if not _train(inner_experiments, inner_folds, devices, console):
        return 1
    choices = [
        Choice(
            group,
            groups[group],
            [mean(pooled_uf1(experiment.cell, seed) for seed in SEEDS) for experiment in experiments],
        )
        for group, experiments in inner.items()
    ]
    _show(choices, recipes, console)
    outer = {best: _experiment(hidden, recipes[best], split="loso") for best in dict.fromkeys(c.best for c in choices)}
    outer_folds = [
        Fold(experiment.cell, name, seed)
        for best, experiment in outer.items()
        for seed in seeds
        for choice in choices
        if choice.best == best
        for name in choice.subjects
    ]
    if not _train(list(outer.values()), outer_folds, devices, console):
        return 1
    cell = _publish(job, next(iter(outer.values())), outer_folds, choices, recipes)
    report.show(Path(job.results), console, [cell])
    console.print(f"report: {report.write(Path(job.results), Path(job.cache))}")
    return 0


def space(model: str) -> Mapping[str, Sequence]:
    """Values that a search may give each option of a model's recipe, as written in ``configs/search/<model>.yaml``.

    Raises:
        InputError: If there is no such file.
    """
    file = CONFIGS / "search" / f"{model}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in file.parent.glob("*.yaml")))
        raise InputError(f"{file}: there is no search space for '{model}'; there is one for {known}")
    return yaml.safe_load(file.read_text())


def candidates(values: Mapping[str, Sequence], trials: int) -> list[Options]:
    """Options of each candidate: of the recipe itself, which has none, and of others drawn from a grid, none twice.

    Raises:
        InputError: If the grid holds fewer.
    """
    grid = list(itertools.product(*values.values()))
    if trials > len(grid) + 1:
        raise InputError(f"--trials {trials} is more than the {len(grid) + 1} recipes that the search space holds")
    drawn = np.random.default_rng(0).permutation(len(grid))[: trials - 1]
    return [
        (),
        *(tuple(f"--{name}={value}" for name, value in zip(values, grid[index], strict=True)) for index in drawn),
    ]


def _experiment(job: Job, options: Options, parsed: Experiment | None = None, **data: str) -> Experiment:
    """A candidate's experiment; ``parsed`` differs in nothing but ``data``, and spares a second of parsing."""
    own = (f"--data.{name}={value}" for name, value in data.items())
    config = None
    if parsed:
        config = parsed.config.clone()
        for name, value in data.items():
            config.data.init_args[name] = value
    return Experiment(replace(job, options=(*job.options, *options, *own)), config)


def _subjects(clips: pd.DataFrame, rows: Sequence[int]) -> list[str]:
    names = clips["dataset"] + "-" + clips["subject"]
    return sorted(set(names.iloc[list(rows)]))


def _train(experiments: Sequence[Experiment], folds: Sequence[Fold], devices: Sequence[str], console: Console) -> bool:
    """Train the folds that are not done; whether all are done then."""
    for experiment in experiments:
        experiment.data.prepare_data()
        open_cell(experiment, sorted({fold.seed for fold in folds}), console)
    with count_done(folds):
        pending = [fold for fold in dict.fromkeys(folds) if not fold.is_done]  # two candidates may be the same recipe
        failures = train({experiment.cell: experiment for experiment in experiments}, pending, devices, console)
    name_failures(failures, console)
    return not failures


def _show(choices: Sequence[Choice], recipes: Sequence[Options], console: Console) -> None:
    table = Table("outer group", "subjects", "inner UF1", "of the recipe itself", "chosen", title="choices")
    for choice in choices:
        options = " ".join(recipes[choice.best]) or "the recipe itself"
        figures = (f"{choice.scores[choice.best]:.3f}", f"{choice.scores[0]:.3f}")
        table.add_row(choice.group, str(len(choice.subjects)), *figures, options)
    console.print(table)


def _publish(
    job: Job, first: Experiment, folds: Sequence[Fold], choices: Sequence[Choice], recipes: Sequence[Options]
) -> Cell:
    """Bring the outer folds together in a cell of the results."""
    record = {
        "search": {
            "candidates": [" ".join(options) for options in recipes],
            "groups": {"outer": OUTER, "inner": INNER},
            "seeds": list(SEEDS),
            "choices": {
                choice.group: {"subjects": choice.subjects, "chosen": choice.best, "inner UF1": choice.scores}
                for choice in choices
            },
        }
    }
    digest = store.digest({**record, "cells": sorted({fold.cell.digest for fold in folds})})
    cell = replace(first.cell, results=Path(job.results), model=f"{job.model_name}_searched", digest=digest)
    cell.write_header(first.data.clips, yaml.safe_dump(record, sort_keys=False))
    for fold in folds:
        published = replace(fold, cell=cell)
        if published.is_done:
            continue
        for suffix in (".safetensors", ".json", ".csv"):  # the predictions last: the fold is done when they are there
            if fold.file.with_suffix(suffix).exists():
                with store.whole_file(published.file.with_suffix(suffix)) as temporary:
                    shutil.copyfile(fold.file.with_suffix(suffix), temporary)
    return cell

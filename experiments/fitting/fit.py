"""`mer fit`: trains a recipe on all subjects, nobody held out, and writes the model's folder."""

import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from statistics import mean

import numpy as np
import yaml
from rich.console import Console
from safetensors.numpy import save

from data_modules.cache.store import whole_file, write_text
from data_modules.processes.pool import Failure
from data_modules.processes.whole_files import remove_abandoned, temporary, writing
from experiments import workers
from experiments.experiment import Experiment, versions
from experiments.fitting import card
from experiments.jobs import Job
from experiments.results import Cell, cells
from experiments.tracking import ModelRun, Request, Uploads
from mer import InputError, __version__
from mer.model_folder import read_config, revisions
from mer.trained import Model

Weights = Mapping[str, np.ndarray]
Fit = tuple[Experiment, Cell, Path]  # what is fitted, the cell whose score its recipe has, the model's folder


def fit(
    jobs: Sequence[Job],
    seeds: Sequence[int],
    devices: Sequence[str],
    console: Console,
    models: Path,
    searched: bool = False,
    onnx: bool = False,
    registry: str = "",
    upload_weights: bool = False,
) -> list[Path]:
    """Fit the recipes of some jobs, each into ``models/<dataset>-<model>``.

    A folder that holds the same recipe and seeds keeps its weights; its card is written anew from the results.

    Args:
        jobs: The recipes.
        seeds: Each is a network of the model; their predictions are averaged.
        devices: One worker each, see ``workers.run``.
        console: Where to print.
        models: Folder of the models.
        searched: Fit the candidate of ``mer search`` that did best on average, in place of the recipe itself.
        onnx: Also write ``model.onnx``.
        registry: Collection of W&B's model registry that the models are linked to; none by default.
        upload_weights: Send the weights to W&B, too, not only the card and the configuration.

    Returns:
        The folders.

    Raises:
        InputError: If something is wrong with a job or its data, or a folder holds another model; nothing is trained.
    """
    fits = [_fit_of(job, models, searched) for job in dict.fromkeys(jobs)]
    for experiment, _, folder in fits:
        if experiment.data.outer_fold:
            raise InputError("a model is trained on all subjects: leave --data.outer_fold away")
        _check_free(folder, experiment, seeds)
    for experiment, _, _ in fits:
        experiment.data.prepare_data()
    pending = [fit for fit in fits if not fit[2].exists()]
    for experiment, cell, folder in fits:
        if folder.exists():  # the results may say more of it by now
            write_text(folder / "README.md", card.card(experiment, cell, read_config(folder / "config.yaml")))
    if pending:
        with console.status(f"training {len(pending)} models with {len(seeds)} seeds each"):
            _train(pending, seeds, devices)
    for experiment, _, folder in fits if onnx else ():
        if not (folder / "model.onnx").exists():
            difference = _export(experiment, folder / "model.onnx")
            console.print(f"{folder}/model.onnx: probabilities differ from torch by {difference:.0e} at most")
    _log(fits, seeds, console, registry, upload_weights)  # what is on W&B already is marked, and is left alone
    return [folder for _, _, folder in fits]


def _export(experiment: Experiment, file: Path) -> float:
    """Write a model as ONNX; returns the largest difference of a probability."""
    from mer.onnx_export import export

    model = Model(file.parent, "cpu", experiment.job.packages)
    try:
        content, difference = export(model.tasks, experiment.data.dummy_batch())
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    with whole_file(file) as unfinished:
        unfinished.write_bytes(content)
    return difference


def _log(fits: Sequence[Fit], seeds: Sequence[int], console: Console, registry: str, weights: bool) -> None:
    """Log models as artifacts of W&B."""
    models = tuple(
        ModelRun.of(cell, min(seeds), folder.resolve(), experiment, registry=registry, weights=weights)
        for experiment, cell, folder in fits
    )
    with Uploads(Request(Path(fits[0][0].job.results), models=models), console) as uploads:
        uploads.finish()
    uploads.report()


def _train(fits: Sequence[Fit], seeds: Sequence[int], devices: Sequence[str]) -> None:
    """Train models, and write each as soon as all its seeds are trained."""
    work = [(fit, group) for fit in fits for group in _together(fit[0], seeds)]
    weights: dict[Path, dict[int, Weights]] = {folder: {} for _, _, folder in fits}
    arguments = [(fit[0].job, fit[0].config, group) for fit, group in work]
    with closing(workers.run(workers.fit, arguments, devices)) as ended:
        for index, outcome in ended:
            if isinstance(outcome, Failure):
                raise outcome.error()
            (experiment, cell, folder), group = work[index]
            weights[folder] |= dict(zip(group, outcome, strict=True))
            if len(weights[folder]) == len(seeds):
                _write(folder, experiment, cell, {seed: weights[folder][seed] for seed in seeds})


def _fit_of(job: Job, models: Path, searched: bool) -> Fit:
    experiment = Experiment(job)
    cell, name = experiment.cell, job.model_name
    if searched:
        cell, options = _searched(experiment)
        experiment, name = Experiment(replace(job, options=(*job.options, *options))), cell.model
    return experiment, cell, models / f"{experiment.data.name}-{name}"


def _searched(experiment: Experiment) -> tuple[Cell, tuple[str, ...]]:
    """The cell of a finished search, and the options of the candidate with the highest mean score of inner folds.

    Raises:
        InputError: If there is no such cell, or there are several.
    """
    own = experiment.cell
    same = [
        cell
        for cell in cells(own.results)
        if (cell.dataset, cell.protocol, cell.model) == (own.dataset, own.protocol, f"{own.model}_searched")
    ]
    if len(same) != 1:
        raise InputError(
            f"{own.results}: has {len(same)} searches of {own.model} on {own.dataset}, {own.protocol}, and one is "
            "needed: run mer search, or name another folder with --results"
        )
    record = same[0].config().get("search", {})
    try:
        scores = [choice["inner UF1"] for choice in record["choices"].values()]
        means = [mean(values) for values in zip(*scores, strict=True)]
        options = record["candidates"][means.index(max(means))].split()
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{same[0].folder}/config.yaml: holds no record of a search; search again") from error
    return same[0], tuple(options)


def _together(experiment: Experiment, seeds: Sequence[int]) -> list[tuple[int, ...]]:
    """The seeds that are trained at once: all of a recipe that is stacked, else each alone."""
    return [tuple(seeds)] if experiment.config.stacked else [(seed,) for seed in seeds]


def _check_free(folder: Path, experiment: Experiment, seeds: Sequence[int]) -> None:
    """Refuse a folder that holds anything but the same model.

    Raises:
        InputError: If it does.
    """
    if not folder.exists():
        return
    config = read_config(folder / "config.yaml")
    if (config.get("digest"), config["seeds"]) != (experiment.digest, list(seeds)):
        raise InputError(
            f"{folder}: holds another model (recipe {str(config.get('digest'))[:6]}, seeds {config['seeds']}; this is "
            f"{experiment.digest[:6]}, {list(seeds)}): move it away, or name another folder with --models"
        )


def _write(folder: Path, experiment: Experiment, cell: Cell, weights: Mapping[int, Weights]) -> None:
    """Write a model's folder whole, by rename.

    Raises:
        InputError: If its weights are no numbers, or another process has made the folder meanwhile.
        WriteError: If it cannot be written.
    """
    for seed, state in weights.items():
        if not all(np.isfinite(x).all() for x in state.values()):
            raise InputError(
                f"{folder.name}, seed {seed}: its weights are no numbers. Has the training diverged? Lower --model.lr"
            )
    content = save({f"seed{seed}.{name}": x for seed, state in weights.items() for name, x in state.items()})
    config = {
        "mer": __version__,
        "versions": versions(),
        "digest": experiment.digest,
        "dataset": experiment.data.name,
        "protocol": experiment.data.protocol,
        "classes": list(experiment.data.classes),
        "seeds": list(weights),
        "model": experiment.config.model.as_dict(),
        "input": {"inputs": list(experiment.data.inputs), "input_size": experiment.data.input_size},
        "revisions": revisions(experiment.instantiate().model.network),
        "sha256": sha256(content).hexdigest(),
    }
    for name in ("crop_size", "num_frames", "method", "backend", "head_motion", "motion"):
        if hasattr(experiment.data, name):
            config["input"][name] = getattr(experiment.data, name)
    remove_abandoned(folder.parent, of=folder.name)
    unfinished = temporary(folder)
    try:
        with writing(folder, unfinished):
            unfinished.mkdir(parents=True)
            (unfinished / "model.safetensors").write_bytes(content)
            (unfinished / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
            (unfinished / "README.md").write_text(card.card(experiment, cell, config))
            os.rename(unfinished, folder)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        raise InputError(f"{folder}: was made by another process meanwhile; run the same command again") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

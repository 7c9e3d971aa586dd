"""Trains and tests folds of an experiment, one by one or many as one program, and writes their files."""

import logging
import platform
import resource
import time
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jsonargparse import Namespace
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from data_modules.base import NOBODY
from data_modules.batches import generator
from data_modules.cache import store
from data_modules.fold import FoldDataModule
from data_modules.processes.verbosity import is_verbose
from data_modules.stacked import StackedDataModule
from experiments import loggers
from experiments.callbacks import Curve, FinalWeights, HeldOut
from experiments.configuration import ELSEWHERE
from experiments.experiment import Experiment, versions
from experiments.results import Fold
from mer.training.first_stage import FirstStage
from mer.training.stacked_task import StackedTask, padded_size
from mer.training.task import Task


@dataclass(frozen=True)
class Outcome:
    """What a fold gives.

    Attributes:
        predictions: One row per test clip.
        facts: About the run, never compared; among them the training curve.
        pictures: What the network saw and where it looked, per test clip.
    """

    predictions: pd.DataFrame
    facts: dict
    pictures: dict[str, np.ndarray]


def run(experiment: Experiment, folds: Sequence[Fold]) -> None:
    """Train folds and write their files."""
    if experiment.config.stacked:
        outcomes = train_stack(experiment, folds)
    else:
        outcomes = [train(experiment, fold) for fold in folds]
    for fold, outcome in zip(folds, outcomes, strict=True) if rank_zero_only.rank == 0 else ():
        loggers.log(experiment.config.trainer, fold, outcome.facts["curve"])  # before the fold counts as done
        fold.write(outcome.predictions, outcome.facts, outcome.pictures)


def train(experiment: Experiment, fold: Fold) -> Outcome:
    """Train without the fold's subject, then predict its clips."""
    if experiment.config.stacked:
        return train_stack(experiment, [fold])[0]
    start, held_out = time.perf_counter(), HeldOut()
    curve, steps = _train_alone(experiment, fold, held_out)
    return _outcomes(experiment, held_out, [fold], [curve], steps, start)[0]


def train_stack(experiment: Experiment, folds: Sequence[Fold], **trainer_arguments: object) -> list[Outcome]:
    """Train folds as one program."""
    start, held_out = time.perf_counter(), HeldOut()
    curves, steps = _train_together(experiment, folds, held_out, **trainer_arguments)
    return _outcomes(experiment, held_out, folds, curves, steps, start)


def fit(experiment: Experiment, seeds: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """Train with all subjects; returns the weights of each seed by name, averaged if the recipe averages them."""
    folds, final = [Fold(experiment.cell, NOBODY, seed) for seed in seeds], FinalWeights()
    if experiment.config.stacked:
        _train_together(experiment, folds, final)
        return final.weights[: len(folds)]
    weights = []
    for fold in folds:
        _train_alone(experiment, fold, final)
        weights += final.weights
    return weights


def _train_alone(experiment: Experiment, fold: Fold, watcher: Callback) -> tuple[list[dict], int]:
    """Train one fold; returns its curve and the number of steps."""
    experiment.data.hold_out(fold.name, fold.seed)
    task, arguments = _initial(experiment, fold.seed)
    curve, first = Curve(), task.first_stage()
    if first is not None:
        first.load_state_dict(_first_stage_weights(experiment, first, fold, arguments, curve))
    trainer = _trainer(arguments, curve, watcher)
    rank = trainer.global_rank  # processes that share a fold see other clips, and so they draw other noise
    torch.manual_seed(generator("noise", fold.seed, fold.name, *[rank] * (rank > 0)).initial_seed())
    trainer.fit(task, datamodule=FoldDataModule(experiment.data))
    return curve.rows, trainer.global_step


def _train_together(
    experiment: Experiment, folds: Sequence[Fold], watcher: Callback, **trainer_arguments: object
) -> tuple[list[list[dict]], int]:
    """Train folds as one program, which is filled up with copies of the first to a size that rounds alike.

    Returns:
        The curve of each, and the number of steps.
    """
    size = padded_size(len(folds), experiment.data.batch_size, experiment.job.accelerator == "cpu")
    slots = [*folds, *[folds[0]] * (size - len(folds))]
    initial = {fold.seed: _initial(experiment, fold.seed) for fold in slots}
    noise = [generator("noise", fold.seed, fold.name).initial_seed() for fold in slots]
    stack = StackedTask([initial[fold.seed][0] for fold in slots], noise)
    trainer = _trainer(initial[folds[0].seed][1], Curve(), watcher, **trainer_arguments)
    trainer.fit(stack, datamodule=StackedDataModule(experiment.data, [(fold.name, fold.seed) for fold in slots]))
    curves = [
        [{"step": step, "train/loss": losses[index]} for step, losses in stack.curve] for index in range(len(folds))
    ]
    return curves, trainer.global_step


def _initial(experiment: Experiment, seed: int) -> tuple[Task, Namespace]:
    """A task with its initial weights, which depend on the seed alone, and the trainer's arguments."""
    torch.manual_seed(seed)
    objects = experiment.instantiate()
    return objects.model, objects.trainer


def _outcomes(
    experiment: Experiment, held_out: HeldOut, folds: Sequence[Fold], curves: list[list[dict]], steps: int, start: float
) -> list[Outcome]:
    """What each fold gives, from what was trained just now."""
    facts = {
        **experiment.origin,
        "parameters": experiment.parameters,
        "ended": round(time.time(), 3),
        "seconds": round((time.perf_counter() - start) / len(folds), 3),
        "stack": len(folds),
        "steps": steps,
        "peak_memory_mb": _peak_memory(),
        "device": _device_name(),
        "versions": versions(),
    }
    return [
        Outcome(
            _table(experiment, fold.name, held_out.honest[index], held_out.optimistic[index]),
            {"fold": fold.name, **facts, "curve": curves[index]},
            held_out.pictures[index],
        )
        for index, fold in enumerate(folds)
    ]


def _first_stage_weights(
    experiment: Experiment, first: FirstStage, fold: Fold, arguments: Namespace, curve: Curve
) -> dict[str, Tensor]:
    """Train a copy of a first stage, or take its weights from the cache, which all recipes that have it share."""
    file = _first_file(experiment, first, fold)
    weights = store.read(file)
    if weights is None:
        if file.exists():
            warnings.warn(f"{file}: damaged, trained again", stacklevel=2)
        torch.manual_seed(generator("noise of the first stage", fold.seed, fold.name).initial_seed())
        final = FinalWeights()
        trainer = _trainer(arguments, curve, final, max_steps=first.steps)
        trainer.fit(deepcopy(first), datamodule=FoldDataModule(experiment.data))
        (weights,) = final.weights
        store.write(file, weights)
    return {name: torch.from_numpy(tensor) for name, tensor in weights.items()}


def _first_file(experiment: Experiment, first: FirstStage, fold: Fold) -> Path:
    """Where the weights of a first stage lie: a name for all that they depend on."""
    own = {"protocol", "split", "outer_split", "outer_fold", "inputs"}
    data = {name: value for name, value in experiment.data_arguments.items() if name not in own}
    schedule = ELSEWHERE - {"accelerator"} | {"max_steps", "max_epochs"}
    trained = experiment.data.clips.iloc[experiment.data.train_rows][["dataset", "subject", "clip"]]
    key = {
        "stage": type(first).__qualname__,
        "settings": first.settings,
        "start": store.checksum({name: tensor.numpy() for name, tensor in first.state_dict().items()}),
        "data": data,
        "revision": experiment.data.revision,
        "fingerprint": experiment.data.fingerprint,
        "clips": trained.to_numpy().tolist(),
        "fold": fold.name,
        "seed": fold.seed,
        "trainer": {name: value for name, value in experiment.config.trainer.items() if name not in schedule},
    }
    folder = Path(experiment.job.cache) / experiment.data.name / "first_stage"
    return folder / f"{fold.name}-seed{fold.seed}-{store.digest(key)}.safetensors"


def _table(experiment: Experiment, fold: str, honest: Tensor, optimistic: Tensor) -> pd.DataFrame:
    classes, clips = experiment.data.classes, experiment.data.clips.iloc[experiment.data.folds[fold]]
    columns = {f"p_{name}": honest[:, index].tolist() for index, name in enumerate(classes)}
    return clips[["dataset", "subject", "clip", "target"]].assign(
        prediction=[classes[index] for index in honest.argmax(dim=1)],
        **columns,
        optimistic_prediction=[classes[index] for index in optimistic.argmax(dim=1)],
    )


def _trainer(arguments: Namespace, curve: Curve, *watchers: Callback, **others: object) -> Trainer:
    if not is_verbose():
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric)")
    own = {
        "logger": curve,
        "callbacks": [*(arguments.callbacks or []), *watchers, LearningRateMonitor()],
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 10,
    }
    return Trainer(**{**arguments.as_dict(), **own, **others})


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()

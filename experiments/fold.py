"""Trains and tests one fold; a job is the command line that repeats it.

The configuration is LightningCLI's: ``model.*`` is the task with its network, ``data.*`` the dataset, ``trainer.*``
Lightning's trainer, each with the arguments of its class. A recipe of ``configs/<model>.yaml`` fills it in.
"""

import logging
import platform
import resource
import time
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import torch
from jsonargparse import Namespace
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from data_modules.base import FlowDataModule, generator
from data_modules.cache import store
from data_modules.cache.extract_on_gpu import resolve
from data_modules.stacked import StackedDataModule
from experiments import executors
from experiments.callbacks import Curve, FinalWeights, HeldOut
from experiments.configuration import ALONE, TRAINER, parse, shares_folds
from experiments.jobs import Job, load_class
from experiments.results import Cell
from mer import InputError
from mer.training.first_stage import FirstStage
from mer.training.stacked_task import StackedTask, padded_size
from mer.training.task import Task

Slot = tuple[str, int]  # a fold and a seed


class Experiment:
    """A job's configuration, and its folds.

    Raises:
        InputError: If the job names a dataset, model, recipe or option that there is not.
    """

    def __init__(self, job: Job):
        self.job = job
        self.cli = parse(job)
        self.config: Namespace = self.cli.config
        settings = self.config.data.init_args
        if "backend" in settings:  # resolved here, not where a worker sees other devices: it is part of the digest
            settings.backend = resolve(settings.backend, settings.method, job.accelerator == "gpu")
        objects = self.instantiate()
        self.data: FlowDataModule = objects.data  # shared by all folds
        if self.config.stacked:
            self._check_stackable(objects.model)

    def _check_stackable(self, task: Task) -> None:
        """Complain before the first fold of a task that cannot be stacked."""
        batch = self.data.dummy_batch()
        few = {name: batch[name][:2] for name in (*self.data.inputs, "target")}
        try:
            stack = StackedTask([task, task], noise=(0, 1))
            stack.check_stackable({name: torch.stack([clips, clips]) for name, clips in few.items()})
        except ValueError as error:
            raise InputError(f"{self.job.model}: {error}; {ALONE}") from error

    @cached_property
    def cell(self) -> Cell:
        """Where the predictions lie."""
        job, data = self.job, self.data
        return Cell(Path(job.results), job.dataset, data.protocol, data.split, job.model, self.digest)

    @cached_property
    def digest(self) -> str:
        """Digest of all that can change a prediction."""
        config = self.config.as_dict()
        for place in self.data.path_arguments:
            config["data"]["init_args"].pop(place)
        network = load_class(self.config.model.init_args.network.class_path)
        return store.digest(
            {
                "model": config["model"],
                "data": config["data"],
                "trainer": {name: config["trainer"][name] for name in TRAINER},
                "stacked": config["stacked"],
                "revisions": {"data": self.data.revision, "network": network.revision},
                "fingerprint": self.data.fingerprint,
            }
        )

    @property
    def yaml(self) -> str:
        """The resolved configuration."""
        return self.cli.parser.dump(self.config, skip_link_targets=False)

    def train(self, fold: str, seed: int) -> "Outcome":
        """Train without the fold's subject, then predict its clips."""
        if self.config.stacked:
            return self.train_stack([(fold, seed)])[0]
        start = time.perf_counter()
        self.data.hold_out(fold, seed)
        task, arguments = self._start(seed)
        curve, first, held_out = Curve(), task.first_stage(), HeldOut()
        if first is not None:
            first.load_state_dict(self._first_stage_weights(first, fold, seed, arguments, curve))
        trainer = _trainer(arguments, curve, held_out)
        rank = trainer.global_rank  # processes that share a fold see other clips, and so they draw other noise
        torch.manual_seed(generator("noise", seed, fold, *[rank] * (rank > 0)).initial_seed())
        trainer.fit(task, datamodule=self.data)
        return self._outcomes(held_out, [(fold, seed)], [curve.rows], trainer.global_step, start)[0]

    def train_stack(self, slots: Sequence[Slot], **others: object) -> list["Outcome"]:
        """Train folds as one program; ``others`` are arguments of the trainer."""
        start = time.perf_counter()
        size = padded_size(len(slots), self.data.batch_size, self.job.accelerator == "cpu")
        every = [*slots, *[slots[0]] * (size - len(slots))]
        started = {seed: self._start(seed) for _, seed in every}
        noise = [generator("noise", seed, fold).initial_seed() for fold, seed in every]
        stack = StackedTask([started[seed][0] for _, seed in every], noise)
        held_out = HeldOut()
        trainer = _trainer(started[slots[0][1]][1], Curve(), held_out, **others)
        trainer.fit(stack, datamodule=StackedDataModule(self.data, every))
        curves = [
            [{"step": step, "train/loss": losses[index]} for step, losses in stack.curve] for index in range(len(slots))
        ]
        return self._outcomes(held_out, slots, curves, trainer.global_step, start)

    def run(self, slots: Sequence[Slot]) -> dict[Slot, list[dict]]:
        """Train folds and write their files; returns their training curves."""
        outcomes = self.train_stack(slots) if self.config.stacked else [self.train(*slot) for slot in slots]
        for (fold, seed), outcome in zip(slots, outcomes, strict=True) if rank_zero_only.rank == 0 else ():
            self.cell.write(seed, fold, outcome.predictions, outcome.facts, outcome.pictures)
        return {slot: outcome.curve for slot, outcome in zip(slots, outcomes, strict=True)}

    def _start(self, seed: int) -> tuple[Task, Namespace]:
        """A task with its initial weights, which depend on the seed alone, and the trainer's arguments."""
        torch.manual_seed(seed)
        objects = self.instantiate()
        return objects.model, objects.trainer

    def _outcomes(
        self, held_out: HeldOut, slots: Sequence[Slot], curves: list[list[dict]], steps: int, start: float
    ) -> list["Outcome"]:
        """What each slot gives, from what was trained just now."""
        facts = {
            "seconds": round((time.perf_counter() - start) / len(slots), 3),
            "stack": len(slots),
            "steps": steps,
            "peak_memory_mb": _peak_memory(),
            "device": _device_name(),
            "versions": {
                "python": platform.python_version(),
                **{package.__name__: str(package.__version__) for package in (torch, lightning)},
            },
        }
        return [
            Outcome(
                self._table(fold, held_out.honest[index], held_out.optimistic[index]),
                {"fold": fold, **facts},
                held_out.pictures[index],
                curves[index],
            )
            for index, (fold, _) in enumerate(slots)
        ]

    def _first_stage_weights(
        self, first: FirstStage, fold: str, seed: int, arguments: Namespace, curve: Curve
    ) -> dict[str, Tensor]:
        """Train a copy of a first stage, or take its weights from the cache, which all recipes that have it share."""
        file = self._first_file(first, fold, seed)
        weights = store.read(file)
        if weights is None:
            if file.exists():
                warnings.warn(f"{file}: damaged, trained again", stacklevel=2)
            torch.manual_seed(generator("noise of the first stage", seed, fold).initial_seed())
            final = FinalWeights()
            _trainer(arguments, curve, final, max_steps=first.steps).fit(deepcopy(first), datamodule=self.data)
            weights = final.weights
            store.write(file, weights)
        return {name: torch.from_numpy(tensor) for name, tensor in weights.items()}

    def _first_file(self, first: FirstStage, fold: str, seed: int) -> Path:
        """Where the weights of a first stage lie: a name for all that they depend on."""
        own = {"protocol", "split", "inputs", *self.data.path_arguments}
        data = {name: value for name, value in self.config.as_dict()["data"]["init_args"].items() if name not in own}
        trained = self.data.clips.iloc[self.data.train_rows][["dataset", "subject", "clip"]]
        key = {
            "stage": type(first).__qualname__,
            "settings": first.settings,
            "start": store.checksum({name: tensor.numpy() for name, tensor in first.state_dict().items()}),
            "data": data,
            "revision": self.data.revision,
            "fingerprint": self.data.fingerprint,
            "clips": trained.to_numpy().tolist(),
            "fold": fold,
            "seed": seed,
            "trainer": {
                name: value for name, value in self.config.trainer.items() if name in (*TRAINER[2:], "accelerator")
            },
        }
        folder = Path(self.job.cache) / self.job.dataset / "first_stage"
        return folder / f"{fold}-seed{seed}-{store.digest(key)}.safetensors"

    def instantiate(self) -> Namespace:
        """A new ``model``, ``data`` and ``trainer``."""
        try:
            return self.cli.parser.instantiate(self.config)
        except ValueError as error:  # jsonargparse wraps what a constructor says
            cause: BaseException = error
            while cause.__cause__:
                cause = cause.__cause__
            raise InputError(str(cause)) from error

    def _table(self, fold: str, honest: Tensor, optimistic: Tensor) -> pd.DataFrame:
        classes, clips = self.data.classes, self.data.clips.iloc[self.data.folds[fold]]
        columns = {f"p_{name}": honest[:, index].tolist() for index, name in enumerate(classes)}
        return clips[["dataset", "subject", "clip", "target"]].assign(
            prediction=[classes[index] for index in honest.argmax(dim=1)],
            **columns,
            optimistic_prediction=[classes[index] for index in optimistic.argmax(dim=1)],
        )


@dataclass(frozen=True)
class Outcome:
    """What a fold gives.

    Attributes:
        predictions: One row per test clip.
        facts: About the run, never compared.
        pictures: What the network saw and where it looked, per test clip.
        curve: What was logged while it trained.
    """

    predictions: pd.DataFrame
    facts: dict
    pictures: dict[str, np.ndarray]
    curve: list[dict]


def train_one(job: Job, fold: str, seed: int, device: str) -> int:
    """Train one fold in this process, as a worker of a sweep would, and print its predictions."""
    chosen = Experiment(job)
    executors.settle(device, alone=not shares_folds(chosen.config.trainer))
    chosen.data.hold_out(fold, seed)  # complains of a fold that is none before anything is computed
    chosen.data.prepare_data()
    chosen.cell.describe(chosen.data.clips, chosen.yaml)
    chosen.run([(fold, seed)])
    if rank_zero_only.rank != 0:
        return 0
    print(chosen.cell.read(seed, fold).to_string(index=False))
    print(f"written: {chosen.cell.file(seed, fold)}")
    return 0


def _trainer(arguments: Namespace, curve: Curve, *watchers: Callback, **others: object) -> Trainer:
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

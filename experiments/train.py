"""Trains and tests one fold; a job is the command line that repeats it.

The configuration is LightningCLI's: ``model.*`` is the task with its network, ``data.*`` the dataset, ``trainer.*``
Lightning's trainer, each with the arguments of its class. A recipe of ``configs/<model>.yaml`` fills it in.
"""

import logging
import platform
import resource
import time
import warnings
from argparse import ArgumentError
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import lightning
import numpy as np
import pandas as pd
import torch
import yaml
from jsonargparse import Namespace
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from torch import Tensor

from data_modules import DATASETS, cache
from data_modules.base import FlowDataModule, generator
from data_modules.device_flow import resolve
from data_modules.protocols import protocol
from experiments import callbacks, executors
from experiments.callbacks import Curve, Optimistic
from experiments.jobs import Job, load_class, near
from experiments.results import Cell
from mer import InputError
from mer.task import FirstStage, Task

# Trainer arguments that can change a prediction; the others say where and how loudly.
TRAINER = ("max_steps", "max_epochs", "precision", "gradient_clip_val", "gradient_clip_algorithm", "callbacks")


class FoldCLI(LightningCLI):
    """LightningCLI as a parser: folds are instantiated one by one, many from one configuration."""

    def __init__(self, args: list[str]):
        super().__init__(
            Task,
            FlowDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            run=False,
            args=args,
            save_config_callback=None,
            seed_everything_default=False,
            parser_kwargs={"exit_on_error": False},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Derive what the classes have in common, so that each value is written once."""
        network = "model.init_args.network"
        parser.link_arguments(
            "data.init_args.protocol", f"{network}.init_args.num_classes", lambda name: len(protocol(name).classes)
        )
        parser.link_arguments("data.init_args.size", f"{network}.init_args.size")
        parser.link_arguments("model", "data.init_args.inputs", _inputs)

    def parse_arguments(self, parser: LightningArgumentParser, args: list[str]) -> None:
        """Parse these arguments, whatever the command line of the process is."""
        self.config = parser.parse_args(args)

    def instantiate_classes(self) -> None:
        """Leave it to ``Experiment``."""


class Experiment:
    """A job's configuration, and its folds.

    Raises:
        InputError: If the job names a dataset, model, recipe or option that there is not.
    """

    def __init__(self, job: Job):
        self.job = job
        arguments = ["--config", yaml.safe_dump(_configuration(job))]
        try:
            self.cli = FoldCLI([*arguments, *job.options])
        except ArgumentError as error:
            raise InputError(_explain(error, FoldCLI(arguments).config, job.options)) from error
        self.config: Namespace = self.cli.config
        if self.config.trainer.precision is None:
            self.config.trainer.precision = "bf16-mixed" if job.accelerator == "gpu" and _has_bf16() else "32-true"
        settings = self.config.data.init_args
        if "backend" in settings:  # resolved here, not where a worker sees other devices: it is part of the digest
            settings.backend = resolve(settings.backend, settings.method, job.accelerator == "gpu")
        self.data: FlowDataModule = self._instantiate().data  # shared by all folds

    @cached_property
    def cell(self) -> Cell:
        """Where the predictions lie."""
        job, data = self.job, self.data
        return Cell(Path(job.results), job.dataset, data.protocol, data.split, job.model, self.digest)

    @cached_property
    def digest(self) -> str:
        """Digest of all that can change a prediction."""
        config = self.config.as_dict()
        for place in self.data.places:
            config["data"]["init_args"].pop(place)
        network = load_class(self.config.model.init_args.network.class_path)
        return cache.digest(
            {
                "model": config["model"],
                "data": config["data"],
                "trainer": {name: config["trainer"][name] for name in TRAINER},
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
        start = time.perf_counter()
        self.data.hold_out(fold, seed)
        torch.manual_seed(seed)  # the initial weights depend on the seed alone
        objects = self._instantiate()
        curve, optimistic = Curve(), Optimistic()
        first = objects.model.first_stage()
        if first is not None:
            self._train_first(first, fold, seed, objects.trainer, curve)
        trainer = _trainer(objects.trainer, curve, optimistic)
        torch.manual_seed(generator("noise", seed, fold).initial_seed())
        trainer.fit(objects.model, datamodule=self.data)
        honest = callbacks.predict(trainer, objects.model)
        facts = {
            "fold": fold,
            "seconds": round(time.perf_counter() - start, 3),
            "steps": trainer.global_step,
            "peak_memory_mb": _peak_memory(),
            "device": _device_name(),
            "versions": {
                "python": platform.python_version(),
                **{package.__name__: str(package.__version__) for package in (torch, lightning)},
            },
        }
        pictures = callbacks.pictures(trainer, objects.model)
        return Outcome(self._table(honest, optimistic.best), facts, pictures, curve.rows)

    def run(self, fold: str, seed: int) -> list[dict]:
        """Train a fold and write its files; returns the training curve."""
        outcome = self.train(fold, seed)
        self.cell.write(seed, fold, outcome.predictions, outcome.facts, outcome.pictures)
        return outcome.curve

    def _train_first(self, first: FirstStage, fold: str, seed: int, arguments: Namespace, curve: Curve) -> None:
        """Train a first stage, or take its weights from the cache, where every recipe that shares it finds them."""
        file = self._first_file(first, fold, seed)
        weights = cache.read(file)
        if weights is None:
            torch.manual_seed(generator("noise of the first stage", seed, fold).initial_seed())
            _trainer(arguments, curve, max_steps=first.steps).fit(first, datamodule=self.data)
            weights = {name: tensor.cpu().numpy() for name, tensor in first.state_dict().items()}
            cache.write(file, weights)
        first.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in weights.items()})

    def _first_file(self, first: FirstStage, fold: str, seed: int) -> Path:
        """Where the weights of a first stage lie: a name for all that they depend on."""
        own = {"protocol", "split", "inputs", *self.data.places}
        data = {name: value for name, value in self.config.as_dict()["data"]["init_args"].items() if name not in own}
        trained = self.data.clips.iloc[self.data.train_rows][["dataset", "subject", "clip"]]
        key = {
            "stage": type(first).__qualname__,
            "settings": first.settings,
            "start": cache.checksum({name: tensor.numpy() for name, tensor in first.state_dict().items()}),
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
        return folder / f"{fold}-seed{seed}-{cache.digest(key)}.safetensors"

    def _instantiate(self) -> Namespace:
        try:
            return self.cli.parser.instantiate(self.config)
        except ValueError as error:  # jsonargparse wraps what a constructor says
            cause: BaseException = error
            while cause.__cause__:
                cause = cause.__cause__
            raise InputError(str(cause)) from error

    def _table(self, honest: Tensor, optimistic: Tensor) -> pd.DataFrame:
        classes, clips = self.data.classes, self.data.clips.iloc[self.data.folds[self.data.fold]]
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


@lru_cache(maxsize=1)
def experiment(job: Job) -> Experiment:
    """A worker's experiment; jobs come cell by cell, so it keeps one."""
    return Experiment(job)


def run_fold(job: Job, fold: str, seed: int) -> list[dict]:
    """What a worker does: train one fold and write its files."""
    return experiment(job).run(fold, seed)


def train_one(job: Job, fold: str, seed: int, device: str) -> int:
    """Train one fold in this process, as a worker of a sweep would, and print its predictions."""
    executors.settle(device)
    chosen = Experiment(job)
    chosen.data.hold_out(fold, seed)  # complains of a fold that is none before anything is computed
    chosen.data.prepare_data()
    chosen.cell.describe(chosen.data.clips, chosen.yaml)
    chosen.run(fold, seed)
    print(chosen.cell.read(seed, fold).to_string(index=False))
    print(f"written: {chosen.cell.file(seed, fold)}")
    return 0


def estimate(chosen: Experiment, steps: int = 3) -> float:
    """Seconds that a fold will take on one core, from a few steps on noise."""
    objects, data = chosen._instantiate(), chosen.data
    noise = data.noise()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    task, first = objects.model, objects.model.first_stage()
    total = objects.trainer.max_steps * _seconds(lambda: sum(task.loss(task(noise), noise).values()), steps)
    if first is not None:
        total += first.steps * _seconds(lambda: sum(first.loss(noise).values()), steps)
    torch.set_num_threads(threads)
    return total


def _seconds(loss: Callable[[], Tensor], steps: int) -> float:
    """Seconds that a step takes, without the first one."""
    loss().backward()
    start = time.perf_counter()
    for _ in range(steps):
        loss().backward()
    return (time.perf_counter() - start) / steps


def _inputs(model: Namespace) -> tuple[str, ...]:
    """The tensors that a task and its network read."""
    network = load_class(model.init_args.network.class_path)
    reads = network.reads(**(model.init_args.network.get("init_args") or Namespace()).as_dict())
    return tuple(dict.fromkeys((*reads, *load_class(model.class_path).loss_inputs)))


def _configuration(job: Job) -> dict:
    """The recipe as a LightningCLI configuration."""
    recipe = job.read_recipe()
    dataset = load_class(DATASETS[job.dataset])
    where = {name: getattr(job, name) for name in dataset.places}
    what = {**recipe.get("data", {}), **where, "protocol": job.protocol or dataset.default_protocol}
    return {
        **recipe,
        "data": {"class_path": DATASETS[job.dataset], "init_args": what},
        "trainer": {"accelerator": job.accelerator, "devices": 1, **recipe["trainer"]},
    }


def _explain(error: ArgumentError, config: Namespace, options: tuple[str, ...]) -> str:
    """One line for a wrong option: which, and what it may have meant."""
    known = sorted({"--" + key.replace("init_args.", "") for key in config.keys(branches=True)})
    for option in options:
        name = option.split("=")[0].replace("init_args.", "")
        if name.startswith("--") and name not in known and name in str(error).replace("init_args.", "") + name:
            return f"unknown option {name}{near(name, known)}"
    return "option not accepted: " + " ".join(str(error).split())[:600]


def _has_bf16() -> bool:
    return torch.cuda.is_bf16_supported(including_emulation=False)


def _trainer(arguments: Namespace, curve: Curve, *watchers: Callback, **others: object) -> Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning.pytorch")
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

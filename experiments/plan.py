"""``mer sweep --dry-run``: the folds that a sweep would train, and about how long that would take."""

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch
from jsonargparse import Namespace
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from rich.console import Console

from data_modules.fold import FoldDataModule
from data_modules.stacked import StackedDataModule
from experiments import workers
from experiments.experiment import Experiment
from experiments.results import Fold
from mer.training.stacked_task import StackedTask, padded_size

LARGEST = 68  # folds of the largest stack that is timed; in a larger one a fold takes no longer
STEPS = {"cpu": 4, "gpu": 12}  # the most steps that are timed; a GPU compiles in the first ones
LONG = 5  # seconds after which no further step is begun
FEW = 2  # clips of a batch that tells whether a step on a CPU is long


@dataclass(frozen=True)
class Estimate:
    """How long a fold will take.

    Attributes:
        seconds: Time of a fold; in a stack the time of the stack divided by its folds.
        stack: Size of the stack.
    """

    seconds: float
    stack: int = 1


class Clock(Callback):
    """Times ``steps`` steps, or fewer if they are long, and ends the training."""

    def __init__(self, steps: int):
        self.steps, self.ends = steps, []

    @property
    def seconds(self) -> float:
        """Time of a step: the median of the later half of the steps."""
        spent = [end - start for start, end in zip(self.ends, self.ends[1:])]
        return median(spent[len(spent) // 2 :])

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        """Note the time."""
        self._note_time(trainer)

    def on_train_batch_end(self, trainer: Trainer, *others: object) -> None:
        """Note the time after every step."""
        self._note_time(trainer)
        trainer.should_stop = len(self.ends) > self.steps or self.ends[-1] - self.ends[0] > LONG

    def _note_time(self, trainer: Trainer) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def plan(
    console: Console, experiments: Sequence[Experiment], pending: Sequence[Fold], seeds: int, devices: Sequence[str]
) -> None:
    """Print the pending folds of each experiment and of all, with their time on the devices, one worker each."""
    total = 0.0
    for experiment in experiments:
        waiting = [fold for fold in pending if fold.cell == experiment.cell]
        folds = len(experiment.data.folds) * seeds
        text = f"{folds} folds, {folds - len(waiting)} done, {len(waiting)} to train"
        if waiting:
            fold = estimate(experiment, waiting, devices)
            total += fold.seconds * len(waiting)
            text += f", about {fold.seconds:,.{fold.seconds < 10:d}f} s each"
            text += f" in stacks of {fold.stack}" if fold.stack > 1 else ""
        cell = f"{experiment.cell.dataset} {experiment.data.protocol} {experiment.cell.model}-{experiment.digest}"
        console.print(f"{cell}: {text}", soft_wrap=True)
    text = f"{len(pending)} folds to train"
    text += f", about {duration(total / len(devices))} on {named(devices)}" if pending else ""
    if any(experiment.job.accelerator == "gpu" for experiment in experiments) and not torch.cuda.is_available():
        text += " of this machine, which has no GPU; with one it is much less"
    console.print(text, soft_wrap=True)


def duration(seconds: float) -> str:
    """A time in minutes, or above 120 minutes in hours."""
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes <= 120 else f"{minutes / 60:,.0f} hours"


def named(devices: Sequence[str]) -> str:
    """``1 GPU``, ``2 cores``."""
    kind = "core" if devices[0] == "cpu" else "GPU"
    return f"{len(devices)} {kind}{'s' * (len(devices) > 1)}"


def estimate(experiment: Experiment, folds: Sequence[Fold], devices: Sequence[str]) -> Estimate:
    """Estimate the time of each of these folds from a few steps on noise, on the first of the devices.

    The steps are those of the sweep, with its precision and its stacks; tests are not timed.
    """
    arguments = _arguments(experiment, devices[0])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # like a worker
    try:
        with _noise(experiment):
            if not experiment.config.stacked:
                return Estimate(_alone(experiment, folds[0], arguments))
            size = min(workers.folds_per_task(experiment, len(folds), len(devices)), len(folds), LARGEST)
            while True:
                try:
                    return Estimate(_stacked(experiment, folds[:size], arguments), size)
                except torch.OutOfMemoryError:
                    if size <= 2:
                        raise
                    size = max(2, size // 2)
    finally:
        torch.set_num_threads(threads)


def _arguments(experiment: Experiment, device: str) -> dict:
    """Arguments of the trainer for a device of this machine."""
    arguments = experiment.instantiate().trainer.as_dict()
    if experiment.job.accelerator == "gpu" and not torch.cuda.is_available():  # a login node plans jobs of a cluster
        return {**arguments, "accelerator": "cpu", "precision": "32-true"}
    return {**arguments, "devices": 1 if device == "cpu" else [int(device)]}


@contextmanager
def _noise(experiment: Experiment) -> Iterator[None]:
    """Inside the block the clips are noise of the right shapes, because a sweep prepares its data later."""
    data, noise = experiment.data, experiment.data.dummy_batch()
    rows = torch.arange(len(data.clips))
    store = {name: noise[name][rows % len(noise[name])] for name in data.inputs}
    target = torch.tensor([data.classes.index(name) for name in data.clips["target"]])
    data.store = {**store, "target": target, "clip": rows}
    try:
        yield
    finally:
        data.store = {}


def _alone(experiment: Experiment, fold: Fold, arguments: dict) -> float:
    """Seconds of a fold that is trained alone, with its first stage if it has one."""
    experiment.data.hold_out(fold.name, fold.seed)
    data = FoldDataModule(experiment.data)
    seconds = _steps(experiment) * _step(lambda: experiment.instantiate().model, data, arguments)
    first = experiment.instantiate().model.first_stage()
    if first is not None:
        seconds += first.steps * _step(lambda: experiment.instantiate().model.first_stage(), data, arguments)
    return seconds


def _stacked(experiment: Experiment, folds: Sequence[Fold], arguments: dict) -> float:
    """Seconds of a stack divided by its folds."""
    size = padded_size(len(folds), experiment.data.batch_size, arguments["accelerator"] == "cpu")
    slots = [*folds, *[folds[0]] * (size - len(folds))]
    data = StackedDataModule(experiment.data, [(fold.name, fold.seed) for fold in slots])

    def stack() -> StackedTask:
        return StackedTask([experiment.instantiate().model] * size, noise=range(size))

    return _steps(experiment) * _step(stack, data, arguments) / len(folds)


def _step(start: Callable[[], LightningModule], data: FoldDataModule | StackedDataModule, arguments: dict) -> float:
    """Seconds of a step of the task that ``start`` makes.

    On a CPU a step of a few clips is timed first. If it shows that a whole step is long, it stands for the whole step,
    which might not fit into the memory.
    """
    clips, batch_size = data.data, data.data.batch_size
    if arguments["accelerator"] == "cpu" and batch_size > FEW:
        clips.batch_size = FEW
        try:
            seconds = _timed(start(), data, arguments) * batch_size / FEW
        finally:
            clips.batch_size = batch_size
        if seconds > LONG:
            return seconds
    return _timed(start(), data, arguments)


def _timed(task: LightningModule, data: LightningDataModule, arguments: dict) -> float:
    """Seconds of a step."""
    steps = STEPS[arguments["accelerator"]]
    clock = Clock(steps)
    own = {
        "max_steps": steps,
        "max_epochs": -1,
        "min_epochs": 0,
        "callbacks": [clock],  # without the user's, which may write files or end the training
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric)")
    Trainer(**{**arguments, **own}).fit(task, datamodule=data)
    return clock.seconds


def _steps(experiment: Experiment) -> int:
    """Training steps of a fold; the configuration gives them or the epochs."""
    limits: Namespace = experiment.config.trainer
    if limits.max_steps > 0 and limits.max_epochs in (None, -1):
        return limits.max_steps
    epochs = 1000 if limits.max_epochs is None else limits.max_epochs  # 1000 is Lightning's default
    steps = epochs * experiment.data.steps_per_epoch
    return min(steps, limits.max_steps) if limits.max_steps > 0 else steps

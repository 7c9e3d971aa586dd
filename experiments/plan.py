"""What a sweep would train, and for how long: ``mer sweep --dry-run``."""

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

from data_modules.base import FlowDataModule
from data_modules.stacked import StackedDataModule
from experiments import workers
from experiments.experiment import Experiment
from experiments.fold import Slot
from experiments.progress import Fold
from mer.training.stacked_task import StackedTask, padded_size

LARGEST = 68  # folds of a stack that is timed; what a fold takes in a larger one is no more
STEPS = {"cpu": 4, "gpu": 12}  # timed at most; a GPU's first steps compile and choose, and the later half counts
LONG = 5  # seconds after which no further step is begun: the first ones of a device are slower than the others
FEW = 2  # clips


@dataclass(frozen=True)
class Estimate:
    """How long a fold will take.

    Attributes:
        seconds: Of a fold, as its part of a stack.
        stack: Folds that are trained as one program.
    """

    seconds: float
    stack: int = 1


class Clock(Callback):
    """Times steps, and ends the training when it knows enough."""

    def __init__(self, steps: int):
        self.steps, self.ends = steps, []

    @property
    def seconds(self) -> float:
        """Of a step: the median of the later half."""
        spent = [end - start for start, end in zip(self.ends, self.ends[1:])]
        return median(spent[len(spent) // 2 :])

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        """Start."""
        self._look(trainer)

    def on_train_batch_end(self, trainer: Trainer, *others: object) -> None:
        """Look at the clock after every step."""
        self._look(trainer)
        trainer.should_stop = len(self.ends) > self.steps or self.ends[-1] - self.ends[0] > LONG

    def _look(self, trainer: Trainer) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def plan(
    console: Console, experiments: Sequence[Experiment], pending: Sequence[Fold], seeds: int, devices: Sequence[str]
) -> None:
    """Print what would be trained, and for how long on so many devices."""
    total = 0.0
    for chosen in experiments:
        slots = [(fold, seed) for other, fold, seed in pending if other is chosen]
        every = len(chosen.data.folds) * seeds
        text = f"{every} folds, {every - len(slots)} done, {len(slots)} to train"
        if slots:
            guess = estimate(chosen, slots, devices)
            total += guess.seconds * len(slots)
            text += f", about {guess.seconds:,.{guess.seconds < 10:d}f} s each"
            text += f" in stacks of {guess.stack}" if guess.stack > 1 else ""
        cell = f"{chosen.cell.dataset} {chosen.data.protocol} {chosen.cell.model}-{chosen.digest}"
        console.print(f"{cell}: {text}", soft_wrap=True)
    text = f"{len(pending)} folds to train"
    text += f", about {duration(total / len(devices))} on {named(devices)}" if pending else ""
    if any(chosen.job.accelerator == "gpu" for chosen in experiments) and not torch.cuda.is_available():
        text += " of this machine, which has no GPU; with one it is much less"
    console.print(text, soft_wrap=True)


def duration(seconds: float) -> str:
    """Minutes, or hours above 120 of them."""
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes <= 120 else f"{minutes / 60:,.0f} hours"


def named(devices: Sequence[str]) -> str:
    """``1 GPU``, ``2 cores``."""
    kind = "core" if devices[0] == "cpu" else "GPU"
    return f"{len(devices)} {kind}{'s' * (len(devices) > 1)}"


def estimate(chosen: Experiment, slots: Sequence[Slot], devices: Sequence[str]) -> Estimate:
    """How long each of these folds will take, from a few steps on noise on the first of the devices.

    They are steps as in a sweep, in its precision and in a stack where it has one, without its tests.
    """
    arguments = _arguments(chosen, devices[0])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        with _noise(chosen):
            if not chosen.config.stacked:
                return Estimate(_alone(chosen, slots[0], arguments))
            size = min(workers.folds_per_task(chosen, len(slots), len(devices)), len(slots), LARGEST)
            while True:
                try:
                    return Estimate(_stacked(chosen, slots[:size], arguments), size)
                except torch.OutOfMemoryError:
                    if size <= 2:
                        raise
                    size = max(2, size // 2)
    finally:
        torch.set_num_threads(threads)


def _arguments(chosen: Experiment, device: str) -> dict:
    """The trainer's, for a device of this machine."""
    arguments = chosen.instantiate().trainer.as_dict()
    if chosen.job.accelerator == "gpu" and not torch.cuda.is_available():  # jobs for a cluster, from a login node
        return {**arguments, "accelerator": "cpu", "precision": "32-true"}
    return {**arguments, "devices": 1 if device == "cpu" else [int(device)]}


@contextmanager
def _noise(chosen: Experiment) -> Iterator[None]:
    """Inside the block the clips are noise of the right shapes: a sweep computes its data later."""
    data, noise = chosen.data, chosen.data.dummy_batch()
    rows = torch.arange(len(data.clips))
    store = {name: noise[name][rows % len(noise[name])] for name in data.inputs}
    target = torch.tensor([data.classes.index(name) for name in data.clips["target"]])
    data.store = {**store, "target": target, "clip": rows}
    try:
        yield
    finally:
        data.store = {}


def _alone(chosen: Experiment, slot: Slot, arguments: dict) -> float:
    """Seconds of a fold that is trained by itself, its first stage among them."""
    chosen.data.hold_out(*slot)
    seconds = _steps(chosen) * _step(lambda: chosen.instantiate().model, chosen.data, arguments)
    first = chosen.instantiate().model.first_stage()
    if first is not None:
        seconds += first.steps * _step(lambda: chosen.instantiate().model.first_stage(), chosen.data, arguments)
    return seconds


def _stacked(chosen: Experiment, slots: Sequence[Slot], arguments: dict) -> float:
    """Seconds of a fold as its part of a stack."""
    size = padded_size(len(slots), chosen.data.batch_size, arguments["accelerator"] == "cpu")
    data = StackedDataModule(chosen.data, [*slots, *[slots[0]] * (size - len(slots))])

    def stack() -> StackedTask:
        return StackedTask([chosen.instantiate().model] * size, noise=range(size))

    return _steps(chosen) * _step(stack, data, arguments) / len(slots)


def _step(start: Callable[[], LightningModule], data: FlowDataModule | StackedDataModule, arguments: dict) -> float:
    """Seconds of a step of what ``start`` makes; on a CPU a few clips tell of a long one, which spares the memory."""
    clips = data if isinstance(data, FlowDataModule) else data.data
    whole = clips.batch_size
    if arguments["accelerator"] == "cpu" and whole > FEW:
        clips.batch_size = FEW
        try:
            seconds = _timed(start(), data, arguments) * whole / FEW
        finally:
            clips.batch_size = whole
        if seconds > LONG:
            return seconds
    return _timed(start(), data, arguments)


def _timed(task: LightningModule, data: LightningDataModule, arguments: dict) -> float:
    """Seconds of a step as it is."""
    steps = STEPS[arguments["accelerator"]]
    clock = Clock(steps)
    own = {
        "max_steps": steps,
        "max_epochs": -1,
        "min_epochs": 0,
        "callbacks": [clock],  # a user's own may write, or stop
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


def _steps(chosen: Experiment) -> int:
    """Steps of a fold, of which the configuration may give the epochs instead."""
    limits: Namespace = chosen.config.trainer
    if limits.max_steps > 0 and limits.max_epochs in (None, -1):
        return limits.max_steps
    epochs = 1000 if limits.max_epochs is None else limits.max_epochs  # Lightning's own where nothing is given
    steps = epochs * chosen.data.steps_per_epoch
    return min(steps, limits.max_steps) if limits.max_steps > 0 else steps

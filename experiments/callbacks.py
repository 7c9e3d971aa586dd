"""Callbacks that watch a fold while it trains, and change nothing of it.

What a fold leaves is taken here, while the trainer holds the device: Lightning takes the weights off a GPU at the end.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor

from mer.training.moving_average import MovingAverage
from mer.training.stacked_task import StackedTask
from mer.training.task import Task
from mer.transforms import resize

SIDE = 56
"""Largest side in pixels of the pictures that are kept of a clip."""


class HeldOut(Callback):
    """Predicts the held-out clips of a fold, or of every fold of a stack, and keeps pictures of them.

    The tensors of a stack of F folds have a first dimension F, those of a fold alone do not. All arithmetic is on the
    last dimensions; only what is kept at the end is a list with an item for each fold.

    The honest predictions are those at the end. The optimistic ones are those of the first epoch, a pass over the
    training clips, with the highest accuracy on the held-out subject itself: this is how much of the literature picks
    its epoch. They are reported beside the honest ones, under this name, and never rank. Nothing here draws a random
    number or changes a weight, and nothing waits for the device before the training ends.

    Attributes:
        honest: Probabilities (n, K) of each fold, on the CPU.
        optimistic: Likewise.
        pictures: See ``pictures``, of each fold.
    """

    def on_train_start(self, trainer: Trainer, task: Task | StackedTask) -> None:
        """Ask for the clips, and how many steps a pass has."""
        data, self.batches = trainer.datamodule, 0
        (self.clips,) = data.test_dataloader()
        self.passes = np.atleast_1d(data.steps_per_epoch)
        self.steps = torch.tensor(data.steps_per_epoch, device=task.device)
        self.targets = data.test_targets.to(task.device)
        self.correct, self.best = torch.full_like(self.steps, -1), torch.zeros((), device=task.device)

    def on_train_batch_end(
        self, trainer: Trainer, task: Task | StackedTask, outputs: object, batch: dict, batch_idx: int
    ) -> None:
        """Test the folds that are at the end of a pass."""
        self.batches += 1
        last = trainer.global_step == trainer.max_steps
        if not last and (self.batches % self.passes).all():
            return
        probabilities = predict(trainer, task, self.clips)
        correct = (probabilities.argmax(dim=-1) == self.targets).sum(dim=-1)
        better = (correct > self.correct) & ((self.batches % self.steps == 0) | last)
        self.correct = torch.where(better, correct, self.correct)
        self.best = torch.where(better[..., None, None], probabilities, self.best)

    def on_train_end(self, trainer: Trainer, task: Task | StackedTask) -> None:
        """Take what each fold leaves."""
        by_fold = trainer.datamodule.by_slot if isinstance(task, StackedTask) else lambda clips: [clips]
        self.honest, self.optimistic = by_fold(predict(trainer, task, self.clips).cpu()), by_fold(self.best.cpu())
        kept = {name: by_fold(maps) for name, maps in pictures(trainer, task, self.clips).items()}
        self.pictures = [{name: maps[fold] for name, maps in kept.items()} for fold in range(len(self.honest))]


class FinalWeights(Callback):
    """Takes the weights when the training has ended, averaged if they are.

    Attributes:
        weights: By name, on the CPU; of a stack for each of its slots.
    """

    def on_train_end(self, trainer: Trainer, task: LightningModule) -> None:
        """Copy them."""
        with averaged(trainer, task):
            states = task.slot_states() if isinstance(task, StackedTask) else [task.state_dict()]
            self.weights = [{name: np.array(tensor.cpu()) for name, tensor in state.items()} for state in states]


class Curve(DummyLogger):
    """Keeps what is logged while a fold trains."""

    def __init__(self):
        super().__init__()
        self.rows: list[dict] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row."""
        self.rows.append({"step": step, **metrics})


def predict(trainer: Trainer, task: Task | StackedTask, clips: dict[str, Tensor]) -> Tensor:
    """Probabilities of the held-out clips, (n, K) or (F, n, K), in the precision of the training."""
    with _testing(trainer, task, clips) as batch:
        return task.predict_step(batch)


def pictures(trainer: Trainer, task: Task | StackedTask, clips: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """What is kept of the held-out clips for people to look at.

    Returns:
        ``flow`` (n, 3, S, S) as the network saw it and ``attention`` (n, S, S) in [0, 1], where the network has them;
        of a stack (F, n, ...). float16, S at most 56.
    """
    kept = {}
    with _testing(trainer, task, clips) as batch:
        if "flow" in batch:
            kept["flow"] = batch["flow"]
        if task.network.shows_attention:
            kept["attention"] = task.attention(batch)
    return {name: resize(maps, min(SIDE, maps.shape[-1])).cpu().half().numpy() for name, maps in kept.items()}


@contextmanager
def averaged(trainer: Trainer, task: LightningModule) -> Iterator[None]:
    """Inside the block the task has the averaged weights, if it has a moving average."""
    with ExitStack() as stack:
        for callback in trainer.callbacks:
            if isinstance(callback, MovingAverage):
                stack.enter_context(callback.applied(task))
        yield


@contextmanager
def _testing(trainer: Trainer, task: Task | StackedTask, clips: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The held-out clips in the training's precision, inside a block in which the task is as at test time."""
    was_training = task.training
    task.eval()
    with torch.no_grad(), trainer.precision_plugin.forward_context(), averaged(trainer, task):
        yield trainer.precision_plugin.convert_input(clips)
    task.train(was_training)

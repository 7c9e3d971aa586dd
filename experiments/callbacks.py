"""What watches a fold while it trains, and changes nothing of it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor

from data_modules.base import resize
from mer.fold_batch import FoldBatch
from mer.task import MovingAverage, Task


class Optimistic(Callback):
    """Probabilities of the first epoch with the highest accuracy on the held-out subject itself.

    An epoch is a pass over the training clips. This is how much of the literature picks its epoch; the result is
    reported beside the honest one, under this name, and never ranks. It draws no random number and changes no weight.
    """

    def __init__(self):
        self.passes: list[int] = []
        self.best: list[Tensor] = []
        self.correct: list[int] = []
        self.batches = 0

    def on_train_start(self, trainer: Trainer, task: Task | FoldBatch) -> None:
        """Ask how long a pass of each slot is."""
        self.passes, self.targets = trainer.datamodule.passes, trainer.datamodule.test_targets
        self.best, self.correct = [torch.empty(0)] * len(self.passes), [-1] * len(self.passes)

    def on_train_batch_end(
        self, trainer: Trainer, task: Task | FoldBatch, outputs: object, batch: dict, batch_idx: int
    ) -> None:
        """Test the slots that are at the end of a pass."""
        self.batches += 1
        last = trainer.global_step == trainer.max_steps
        ended = [slot for slot, steps in enumerate(self.passes) if last or self.batches % steps == 0]
        if not ended:
            return
        probabilities = predict(trainer, task)
        for slot in ended:
            correct = int((probabilities[slot].argmax(dim=1) == self.targets[slot]).sum())
            if correct > self.correct[slot]:
                self.best[slot], self.correct[slot] = probabilities[slot], correct


class Curve(DummyLogger):
    """Keeps what is logged while a fold trains."""

    def __init__(self):
        super().__init__()
        self.rows: list[dict] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row."""
        self.rows.append({"step": step, **metrics})


def predict(trainer: Trainer, task: Task | FoldBatch) -> list[Tensor]:
    """Probabilities of the held-out clips of each slot, (n, K) on the CPU, in the precision of the training."""
    with _testing(trainer, task) as batch:
        return trainer.datamodule.by_slot(task.predict_step(batch).cpu())


SIDE = 56
"""Largest side in pixels of the pictures that are kept of a clip."""


def pictures(trainer: Trainer, task: Task | FoldBatch) -> list[dict[str, np.ndarray]]:
    """What is kept of the held-out clips of each slot for people to look at.

    Returns:
        ``flow`` (n, 3, S, S) as the network saw it and ``attention`` (n, S, S) in [0, 1], float16, each
        where the network has it, S at most 56.
    """
    kept = {}
    with _testing(trainer, task) as batch:
        if "flow" in batch:
            kept["flow"] = batch["flow"]
        if task.network.shows_attention:
            kept["attention"] = task.attention(batch)
    small = {name: resize(maps, min(SIDE, maps.shape[-1])).cpu().half() for name, maps in kept.items()}
    by_slot = {name: trainer.datamodule.by_slot(maps) for name, maps in small.items()}
    slots = len(trainer.datamodule.passes)
    return [{name: maps[slot].numpy() for name, maps in by_slot.items()} for slot in range(slots)]


@contextmanager
def _testing(trainer: Trainer, task: Task | FoldBatch) -> Iterator[dict[str, Tensor]]:
    """The batch of held-out clips, inside a block in which the task predicts as it will in the end."""
    was_training = task.training
    task.eval()
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(trainer.precision_plugin.forward_context())
        for callback in trainer.callbacks:
            if isinstance(callback, MovingAverage):
                stack.enter_context(callback.applied(task))
        (batch,) = trainer.datamodule.test_dataloader()
        yield trainer.precision_plugin.convert_input(batch)
    task.train(was_training)

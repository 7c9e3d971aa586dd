"""What watches a fold while it trains, and changes nothing of it."""

from contextlib import ExitStack

import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor

from mer.task import MovingAverage, Task


class Optimistic(Callback):
    """Probabilities of the first epoch with the highest accuracy on the held-out subject itself.

    An epoch is a pass over the training clips. This is how much of the literature picks its epoch; the result is
    reported beside the honest one, under this name, and never ranks. It draws no random number and changes no weight.
    """

    def __init__(self):
        self.best, self.correct = torch.empty(0), -1

    def on_train_batch_end(self, trainer: Trainer, task: Task, outputs: object, batch: dict, batch_idx: int) -> None:
        """Test at the end of a pass."""
        if trainer.is_last_batch or trainer.global_step == trainer.max_steps:
            probabilities = predict(trainer, task)
            (test,) = trainer.datamodule.test_dataloader()
            correct = int((probabilities.argmax(dim=1) == test["target"].cpu()).sum())
            if correct > self.correct:
                self.best, self.correct = probabilities, correct


class Curve(DummyLogger):
    """Keeps what is logged while a fold trains."""

    def __init__(self):
        super().__init__()
        self.rows: list[dict] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row."""
        self.rows.append({"step": step, **metrics})


def predict(trainer: Trainer, task: Task) -> Tensor:
    """Probabilities of the held-out clips, (n, K) on the CPU, in the precision of the training."""
    was_training = task.training
    task.eval()
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(trainer.precision_plugin.forward_context())
        for callback in trainer.callbacks:
            if isinstance(callback, MovingAverage):
                stack.enter_context(callback.applied(task))
        (batch,) = trainer.datamodule.test_dataloader()
        probabilities = task.predict_step(batch)
    task.train(was_training)
    return probabilities.cpu()

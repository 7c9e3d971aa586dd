"""A moving average of the weights while a network trains."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MovingAverage(Callback):
    """Exponential moving average of the weights, which replaces them when training ends.

    The same numbers as Lightning's ``WeightAveraging``, which waits for the device in each step.

    Args:
        decay: Part of the average that each step keeps, in [0, 1].
    """

    def __init__(self, decay: float):
        self.update = get_ema_multi_avg_fn(decay)
        self.average: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, task: LightningModule, *batch: object) -> None:
        """Start with the weights after the first step, and move the average towards those after each later step."""
        if self.average:
            self.update(self.average, _weights(task), 0)
        else:
            self.average = [weight.clone() for weight in _weights(task)]

    def on_train_end(self, trainer: Trainer, task: LightningModule) -> None:
        """Replace the weights by the average."""
        _write(self.average, task)

    @contextmanager
    def applied(self, task: LightningModule) -> Iterator[None]:
        """Inside the block the task has the averaged weights."""
        before = [weight.clone() for weight in _weights(task)]
        _write(self.average or before, task)
        yield
        _write(before, task)


def _weights(task: LightningModule) -> list[Tensor]:
    """Parameters, and those buffers that are not counts."""
    tensors = (*task.parameters(), *task.buffers())
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]


def _write(values: list[Tensor], task: LightningModule) -> None:
    """Copy values into the task's weights, which stay where they are in memory."""
    for weight, value in zip(_weights(task), values, strict=True):
        weight.copy_(value)

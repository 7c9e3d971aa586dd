"""A moving average of the weights while a network trains."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor


class MovingAverage(Callback):
    """Exponential moving average of the weights, which replaces them when training ends.

    Lightning's ``WeightAveraging`` gives the same numbers, but it waits for the device in every step.

    Args:
        decay: Part of the average that each step keeps.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.average: list[Tensor] = []

    def on_train_batch_end(self, trainer: Trainer, task: LightningModule, *batch: object) -> None:
        """Begin with the weights after the first step; move towards those after every other."""
        if self.average:
            torch._foreach_lerp_(self.average, self._weights(task), 1 - self.decay)
        else:
            self.average = [weight.clone() for weight in self._weights(task)]

    def on_train_end(self, trainer: Trainer, task: LightningModule) -> None:
        """Put the average in the place of the weights."""
        torch._foreach_copy_(self._weights(task), self.average)

    @contextmanager
    def applied(self, task: LightningModule) -> Iterator[None]:
        """Inside the block the task has the averaged weights."""
        weights = self._weights(task)
        before = [weight.clone() for weight in weights]
        torch._foreach_copy_(weights, self.average or before)
        yield
        torch._foreach_copy_(weights, before)

    @staticmethod
    def _weights(task: LightningModule) -> list[Tensor]:
        """Parameters, and buffers that are no counts."""
        tensors = (*task.parameters(), *task.buffers())
        return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]

"""UF1 and UAR as torchmetrics, for any LightningModule.

A module has the metric, feeds it and logs the metric itself, not its value; Lightning then takes the score over the
whole epoch and all processes::

    self.uf1 = UF1(num_classes=3)                  # in __init__
    self.uf1.update(logits, batch["target"])       # in validation_step
    self.log("val/uf1", self.uf1)                  # in validation_step, after the update

The score of a protocol is that of the clips of all its folds: one metric is updated with each fold's clips and computed
once. The mean of the values of the folds is another, biased number.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from mer.evaluation import scoring


class _PooledScore(Metric):
    """A score of the confusion matrix of all updates together."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    plot_lower_bound = 0.0
    plot_upper_bound = 1.0

    formula: Callable[[NDArray], NDArray[np.float64]]
    confusion: Tensor  # number of clips, int64 (K, K); a row per target, a column per prediction

    def __init__(self, num_classes: int, **kwargs: Any):
        super().__init__(**kwargs)
        if num_classes < 2:
            raise ValueError(f"num_classes is {num_classes}; a score needs 2 or more")
        self.num_classes = num_classes
        self.add_state("confusion", torch.zeros(num_classes, num_classes, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, target: Tensor) -> None:
        """Count a batch.

        Args:
            predictions: Classes, integers from 0 to K - 1, shape (B,); or logits or probabilities, shape (B, K), of
                which the highest counts.
            target: True classes, integers from 0 to K - 1, shape (B,).

        Raises:
            ValueError: If a shape is another, or there is a class that is none of the K.
        """
        count = self.num_classes
        if target.ndim != 1 or predictions.shape not in (target.shape, (len(target), count)):
            raise ValueError(
                f"predictions have the shape {tuple(predictions.shape)} and target {tuple(target.shape)}; they must be "
                f"(B,) or (B, {count}) and (B,)"
            )
        classes = predictions.argmax(1) if predictions.ndim == 2 else self._checked(predictions, "predictions")
        pairs = self._checked(target, "target") * count + classes
        # Not added in place: a state that was reset in inference mode cannot be changed outside of it.
        self.confusion = self.confusion + torch.bincount(pairs, minlength=count**2).view(count, count)

    def compute(self) -> Tensor:
        """The score in [0, 1], shape (), float64 where the device has it."""
        # By NumPy on every device: torch's mean of five classes can differ from NumPy's in the last bit.
        score = self.formula(self.confusion.numpy(force=True))
        dtype = torch.float32 if self.confusion.is_mps else torch.float64  # Apple's GPUs have no float64
        return torch.tensor(float(score), dtype=dtype, device=self.confusion.device)

    def _checked(self, classes: Tensor, name: str) -> Tensor:
        """The classes as int64; a ValueError if they are no classes."""
        if classes.is_floating_point():
            raise ValueError(
                f"{name} of shape {tuple(classes.shape)} must be classes, integers; they are {classes.dtype}"
            )
        outside = (classes < 0) | (classes >= self.num_classes)
        if outside.any():
            raise ValueError(
                f"{name} have the class {int(classes[outside][0])}; the {self.num_classes} classes are 0 to "
                f"{self.num_classes - 1}"
            )
        return classes.long()


class UF1(_PooledScore):
    """Unweighted F1: mean over the classes of 2 TP / (2 TP + FP + FN) of all updates together.

    A class that is never there and never predicted counts 0. The same as scikit-learn's macro F1 with ``labels`` set to
    all classes and ``zero_division=0``.

    Args:
        num_classes: K, all classes of the protocol, those without a clip included.
        **kwargs: As of every ``torchmetrics.Metric``.

    Raises:
        ValueError: If there are fewer than two classes.
    """

    formula = staticmethod(scoring.uf1)


class UAR(_PooledScore):
    """Unweighted average recall: mean over the classes of TP / clips of all updates together.

    A class without a clip counts 0. The same as scikit-learn's macro recall with ``labels`` set to all classes and
    ``zero_division=0``.

    Args:
        num_classes: K, all classes of the protocol, those without a clip included.
        **kwargs: As of every ``torchmetrics.Metric``.

    Raises:
        ValueError: If there are fewer than two classes.
    """

    formula = staticmethod(scoring.uar)

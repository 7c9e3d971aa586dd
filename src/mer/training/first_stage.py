"""A stage of training before a task."""

import torch
from lightning import LightningModule
from torch import Tensor

from mer.models import Batch


class FirstStage(LightningModule):
    """Trains modules of a task's network before the task, on the training clips of the same fold.

    Only its weights remain: they are cached, and the task starts from them.

    Args:
        steps: Steps of its training.
        settings: All else that its weights depend on; part of the cache's key.
    """

    def __init__(self, steps: int, **settings: float | str):
        super().__init__()
        self.steps, self.settings = steps, {"steps": steps, **settings}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss by name; their sum is minimised, and each is logged."""
        raise NotImplementedError

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The loss of a batch."""
        terms = self.loss(batch)
        self.log_dict({f"first_stage/{name}": term for name, term in terms.items()})
        return torch.stack(list(terms.values())).sum()

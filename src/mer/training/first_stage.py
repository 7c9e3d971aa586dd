"""What is trained before a task."""

import torch
from lightning import LightningModule
from torch import Tensor

from mer.models import Batch


class FirstStage(LightningModule):
    """What is trained before a task, on the training clips of the same fold; the two share modules.

    Its weights are all that it leaves: they are cached, and the task goes on from them.

    Args:
        steps: Steps of its training.
        settings: What else shapes its weights, as numbers and texts.
    """

    def __init__(self, steps: int, **settings: float | str):
        super().__init__()
        self.steps, self.settings = steps, {"steps": steps, **settings}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss by name; they are added up and logged one by one."""
        raise NotImplementedError

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Add the terms of the loss of one batch."""
        terms = self.loss(batch)
        self.log_dict({f"first_stage/{name}": term for name, term in terms.items()})
        return torch.stack(list(terms.values())).sum()

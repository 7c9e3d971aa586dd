"""What every network shares in training: input scaling, loss, optimiser and schedule, per-clip probabilities."""

import math
from typing import Literal

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Batch = dict[str, Tensor]


class Task(LightningModule):
    """Classifies clips with a network; subclasses add the terms of their own loss.

    Args:
        network: Takes the tensors that its attribute ``inputs`` names, returns a dict with ``logits`` (B, K).
        lr: Peak learning rate of AdamW.
        weight_decay: Decoupled weight decay; 0 makes it Adam. Vectors (norms, biases) are left out.
        warmup: Part of the steps in which the learning rate rises linearly.
        schedule: What follows: a cosine to zero, or the peak to the end.
        label_smoothing: Part of the target spread evenly over the classes.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.1,
        schedule: Literal["cosine", "constant"] = "cosine",
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        self.network = network
        self.lr, self.weight_decay, self.warmup, self.schedule = lr, weight_decay, warmup, schedule
        self.label_smoothing = label_smoothing

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """What the network returns for a batch; its flow maps are scaled first."""
        inputs = {name: batch[name] for name in self.network.inputs}
        if "flow" in inputs:
            inputs["flow"] = scale(inputs["flow"])
        return self.network(**inputs)

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss by name; they are added up and logged one by one."""
        return {"classes": cross_entropy(outputs["logits"], batch["target"], label_smoothing=self.label_smoothing)}

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Add the terms of the loss of one batch."""
        terms = self.loss(self(batch), batch)
        total = torch.stack(list(terms.values())).sum()
        self.log("train/loss", total)
        if len(terms) > 1:
            self.log_dict({f"train/{name}": term for name, term in terms.items()})
        return total

    def predict_step(self, batch: Batch, index: int = 0) -> Tensor:
        """Class probabilities of a batch, float32 (B, K)."""
        return self(batch)["logits"].float().softmax(dim=-1)

    def configure_optimizers(self) -> dict:
        """AdamW under a schedule that counts steps."""
        vectors = [parameter for parameter in self.parameters() if parameter.ndim < 2]
        matrices = [parameter for parameter in self.parameters() if parameter.ndim >= 2]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _factor(self, step: int) -> float:
        """Learning rate at a step as a part of its peak."""
        steps = self.trainer.max_steps
        rising = self.warmup * steps
        if step < rising:
            return (step + 1) / (rising + 1)
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def scale(flow: Tensor) -> Tensor:
    """Bring flow maps to one range, clip by clip: no motion becomes 0 and strong motion about 1.

    Args:
        flow: u, v and strain, shape (B, 3, H, W), in any unit.

    Returns:
        The same shape: u and v less their median, over a high quantile of their magnitude; strain likewise.
    """
    return flow

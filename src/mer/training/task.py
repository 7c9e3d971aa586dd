"""What every network shares in training: input scaling, loss, optimiser and schedule, per-clip probabilities."""

import math
from typing import ClassVar, Literal

import torch
from lightning import Callback, LightningModule
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor
from torch.nn import functional

from mer.models import Batch, Network
from mer.training.first_stage import FirstStage
from mer.training.moving_average import MovingAverage
from mer.transforms import MIRRORS, PICTURES, normalise_pictures


class Task(LightningModule):
    """Classifies clips with a network; subclasses add the terms of their own loss.

    Args:
        network: See ``mer.models``.
        lr: Peak learning rate of AdamW.
        weight_decay: Decoupled weight decay; 0 makes it Adam. Vectors (norms, biases) are left out.
        warmup: Part of the steps in which the learning rate rises linearly.
        schedule: What follows: a cosine to zero, or the peak to the end.
        layer_decay: Factor by which the learning rate falls from each layer of the network to the one below it (Bao et
            al., BEiT, ICLR 2022); 1 for one rate. The network's ``group_matcher`` names its layers, as timm's do.
        label_smoothing: Part of the target spread evenly over the classes.
        class_weight_power: Exponent to which a class's weight in the loss grows with its rarity among the training
            clips: 0 treats clips alike, 1 treats classes alike.
        ema_decay: Decay per step of an exponential moving average of the weights, which is what predicts; 0 for none.
        mirror_test: Average the probabilities of a clip and of its mirror image.
    """

    loss_inputs: ClassVar[tuple[str, ...]] = ()  # tensors of a batch that the loss reads, besides the network's

    def __init__(
        self,
        network: Network,
        lr: float = 1e-3,
        weight_decay: float = 0.05,
        warmup: float = 0.1,
        schedule: Literal["cosine", "constant"] = "cosine",
        layer_decay: float = 1.0,
        label_smoothing: float = 0.0,
        class_weight_power: float = 0.0,
        ema_decay: float = 0.0,
        mirror_test: bool = False,
    ):
        super().__init__()
        if lr <= 0 or weight_decay < 0 or not 0 <= warmup < 1 or not 0 <= label_smoothing < 1 or not 0 <= ema_decay < 1:
            raise ValueError(
                f"lr {lr} must be above 0, weight_decay {weight_decay} not below, warmup {warmup}, label_smoothing "
                f"{label_smoothing} and ema_decay {ema_decay} from 0 to below 1"
            )
        if not 0 < layer_decay <= 1:
            raise ValueError(f"layer_decay {layer_decay} must be above 0 and not above 1")
        if layer_decay < 1 and not hasattr(network, "group_matcher"):
            raise ValueError(f"layer_decay {layer_decay} needs layers, and {type(network).__name__} names none")
        self.network = network
        self.lr, self.weight_decay, self.layer_decay = lr, weight_decay, layer_decay
        self.warmup, self.schedule = warmup, schedule
        self.label_smoothing, self.class_weight_power, self.ema_decay, self.mirror_test = (
            label_smoothing,
            class_weight_power,
            ema_decay,
            mirror_test,
        )
        self.class_weights: Tensor | None = None

    def on_fit_start(self) -> None:
        """Weigh the classes by their frequency among the training clips."""
        if self.class_weight_power:
            data = self.trainer.datamodule
            self.class_weights = self.weigh(data.train_targets, len(data.classes)).to(self.device)

    def weigh(self, targets: Tensor, classes: int) -> Tensor:
        """Weights in the loss of so many classes (K,), from those of the training clips; 1 for the average clip."""
        counts = torch.bincount(targets, minlength=classes).clamp(min=1)
        rarity = (counts.sum() / counts) ** self.class_weight_power
        return rarity * counts.sum() / (rarity * counts).sum()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """What the network returns for a batch; pictures are normalised first."""
        return self.network(**self.scaled(batch))

    def scaled(self, batch: Batch) -> Batch:
        """The network's inputs from a batch."""
        inputs = {name: batch[name] for name in self.network.inputs}
        return {name: normalise_pictures(x) if name in PICTURES else x for name, x in inputs.items()}

    def attention(self, batch: Batch) -> Tensor:
        """Where the network looks, shape (B, S, S) in [0, 1]; only of networks that show it."""
        return self.network(**self.scaled(batch), attention=True)["attention"]

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss by name; they are added up and logged one by one."""
        return {"classes": self.cross_entropy(outputs["logits"], batch["target"], self.class_weights)}

    def cross_entropy(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Cross-entropy of logits (B, K) under weights of the classes."""
        return functional.cross_entropy(logits.float(), targets, weight=weights, label_smoothing=self.label_smoothing)

    def first_stage(self) -> FirstStage | None:
        """What is to be trained before, if anything."""
        return None

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Add the terms of the loss of one batch."""
        terms = self.loss(self(batch), batch)
        total = torch.stack(list(terms.values())).sum()
        if (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:  # else Lightning would drop it, slowly
            self.log("train/loss", total)
            if len(terms) > 1:
                self.log_dict({f"train/{name}": term for name, term in terms.items()})
        return total

    def predict_step(self, batch: Batch, index: int = 0) -> Tensor:
        """Class probabilities of a batch, float32 (B, K)."""
        probabilities = self(batch)["logits"].float().softmax(dim=-1)
        if self.mirror_test:
            mirrored = {**batch, **{name: mirror(batch[name]) for name, mirror in MIRRORS.items() if name in batch}}
            probabilities = (probabilities + self(mirrored)["logits"].float().softmax(dim=-1)) / 2
        return probabilities

    def configure_callbacks(self) -> list[Callback]:
        """The moving average, if there is one."""
        return [MovingAverage(self.ema_decay)] if self.ema_decay else []

    def configure_optimizers(self) -> dict:
        """AdamW under a schedule that counts steps."""
        return self.optimizer_config(self.groups())

    def groups(self) -> list[dict]:
        """The network's parameters by their weight decay and learning rate."""
        if self.layer_decay == 1:
            return param_groups_weight_decay(self.network, self.weight_decay)
        groups = param_groups_layer_decay(self.network, self.weight_decay, layer_decay=self.layer_decay)
        for group in groups:
            group["lr"] = self.lr * group.pop("lr_scale")
        return groups

    def optimizer_config(self, groups: list[dict]) -> dict:
        """What changes groups of parameters, and when."""
        optimizer = torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay, fused=True)
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

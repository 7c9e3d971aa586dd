"""How a network is trained: input normalisation, loss, optimiser and schedule, class probabilities."""

import math
from typing import ClassVar, Literal

import torch
from lightning import Callback, LightningModule
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor
from torch.nn import functional

from mer.models import Batch, Network
from mer.training.action_units import ACTION_UNITS, action_unit_loss
from mer.training.first_stage import FirstStage
from mer.training.moving_average import MovingAverage
from mer.transforms import MIRRORS, PICTURES, normalise_pictures


class Task(LightningModule):
    """Classifies clips with a network; a subclass may add terms to the loss.

    Args:
        network: See ``mer.models``.
        lr: Peak learning rate of AdamW.
        weight_decay: Decoupled weight decay; 0 makes it Adam. Vectors (norms, biases) are left out.
        warmup: Part of the steps in which the learning rate rises linearly.
        schedule: Learning rate after the warm-up: a cosine to zero, or the peak to the end.
        layer_decay: Factor by which the learning rate falls from each layer of the network to the one below it (Bao et
            al., BEiT, ICLR 2022); 1 for one rate. The network's ``group_matcher`` names its layers, as timm's do.
        label_smoothing: Part of the target spread evenly over the classes.
        class_weight_power: Power p in a class's weight in the loss, (clips / clips of the class)^p, before scaling: 0
            gives clips equal weight, 1 gives classes equal weight.
        ema_decay: Decay per step of an exponential moving average of the weights, which predicts; 0 for none.
        mirror_test: Average the probabilities of a clip and of its mirror image.
        action_units: Weight in the loss of the action units of the clips that have any, which the last outputs of the
            network tell, see ``mer.training.action_units``; 0 for a network without these outputs.
    """

    loss_inputs: ClassVar[tuple[str, ...]] = ()  # tensors of a batch that only the loss reads

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
        action_units: float = 0.0,
    ):
        super().__init__()
        if lr <= 0 or weight_decay < 0 or not 0 <= warmup < 1 or not 0 <= label_smoothing < 1 or not 0 <= ema_decay < 1:
            raise ValueError(
                f"lr {lr} must be above 0, weight_decay {weight_decay} not below, warmup {warmup}, label_smoothing "
                f"{label_smoothing} and ema_decay {ema_decay} from 0 to below 1"
            )
        if action_units < 0:
            raise ValueError(f"action_units {action_units} must be 0 or more")
        if not 0 < layer_decay <= 1:
            raise ValueError(f"layer_decay {layer_decay} must be above 0 and not above 1")
        if layer_decay < 1 and not hasattr(network, "group_matcher"):
            raise ValueError(f"layer_decay {layer_decay} needs layers, and {type(network).__name__} names none")
        self.network = network
        self.lr, self.weight_decay, self.layer_decay = lr, weight_decay, layer_decay
        self.warmup, self.schedule = warmup, schedule
        self.label_smoothing, self.class_weight_power = label_smoothing, class_weight_power
        self.ema_decay, self.mirror_test = ema_decay, mirror_test
        self.action_units = action_units
        self.class_weights: Tensor | None = None
        self.unit_targets: Tensor | None = None

    def on_fit_start(self) -> None:
        """Weight the classes by their frequency among the training clips, and ask for their action units."""
        data = self.trainer.datamodule
        if self.class_weight_power:
            self.class_weights = self.rarity_weights(data.train_targets, len(data.classes)).to(self.device)
        if self.action_units:
            self.unit_targets = data.unit_targets.to(self.device)

    def rarity_weights(self, targets: Tensor, num_classes: int) -> Tensor:
        """Weights of the classes in the loss, (K,), from the training clips' classes; their mean over clips is 1."""
        counts = torch.bincount(targets, minlength=num_classes).clamp(min=1)
        rarity = (counts.sum() / counts) ** self.class_weight_power
        return rarity * counts.sum() / (rarity * counts).sum()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The network's outputs for a batch; with action units also their logits, ``action_units`` (B, U)."""
        outputs = self.network(**self.network_inputs(batch))
        if not self.action_units:
            return outputs
        classes, units = outputs["logits"].tensor_split([-len(ACTION_UNITS)], dim=-1)
        return {**outputs, "logits": classes, "action_units": units}

    def network_inputs(self, batch: Batch) -> Batch:
        """The tensors of a batch that the network reads; pictures are normalised."""
        inputs = {name: batch[name] for name in self.network.inputs}
        return {name: normalise_pictures(x) if name in PICTURES else x for name, x in inputs.items()}

    def attention(self, batch: Batch) -> Tensor:
        """Attention maps, shape (B, S, S) in [0, 1], of a network with ``shows_attention``."""
        return self.network(**self.network_inputs(batch), attention=True)["attention"]

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Terms of the loss by name; their sum is minimised, and each is logged."""
        terms = {"classes": self.cross_entropy(outputs["logits"], batch["target"], self.class_weights)}
        if self.action_units:
            terms["action_units"] = self.unit_loss(outputs["action_units"], batch["clip"], self.unit_targets)
        return terms

    def cross_entropy(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Cross-entropy of logits (B, K) for targets (B,), with weights (K,) of the classes or None."""
        return functional.cross_entropy(logits.float(), targets, weight=weights, label_smoothing=self.label_smoothing)

    def unit_loss(self, logits: Tensor, clips: Tensor, targets: Tensor) -> Tensor:
        """Weighted loss of logits (B, U) for action units, of clips (B,), rows of targets (N, U)."""
        return self.action_units * action_unit_loss(logits, targets[clips])

    def first_stage(self) -> FirstStage | None:
        """The stage that is trained before this task, if there is one."""
        return None

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The loss of a batch."""
        terms = self.loss(self(batch), batch)
        total = torch.stack(list(terms.values())).sum()
        if (self.trainer.global_step + 1) % self.trainer.log_every_n_steps == 0:  # Lightning drops the others, slowly
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
        return self.optimizer_config(self.param_groups())

    def param_groups(self) -> list[dict]:
        """The network's parameters, grouped by weight decay and learning rate."""
        if self.layer_decay == 1:
            return param_groups_weight_decay(self.network, self.weight_decay)
        groups = param_groups_layer_decay(self.network, self.weight_decay, layer_decay=self.layer_decay)
        for group in groups:
            group["lr"] = self.lr * group.pop("lr_scale")
        return groups

    def optimizer_config(self, param_groups: list[dict]) -> dict:
        """Optimiser and learning-rate schedule of groups of parameters, as Lightning takes them."""
        optimizer = torch.optim.AdamW(param_groups, lr=self.lr, weight_decay=self.weight_decay, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _lr_factor(self, step: int) -> float:
        """Learning rate at a step, divided by its peak."""
        steps = self.trainer.max_steps
        rising = self.warmup * steps
        if step < rising:
            return (step + 1) / (rising + 1)
        if self.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))

"""Many folds as one program: copies of a task, each with its own fold and seed, in one forward, backward and step.

Training a fold of this field is some thousand small operations a second, on maps of 28x28 pixels: a device spends its
time on starting them. ``torch.func.vmap`` starts each of them once for all copies.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import ClassVar

import torch
from lightning import Callback, LightningModule
from torch import Tensor
from torch.func import vmap
from torch.optim import Optimizer

from mer.models import Batch
from mer.training.recorded_step import RecordedStep
from mer.training.stacked_network import StackedNetwork
from mer.training.task import Task

# On a CPU attention has no rule for stacks, and its loop over the slots costs nothing there.
warnings.filterwarnings("ignore", message="There is a performance drop.*scaled_dot_product", category=UserWarning)

EVERY = 10  # steps between two points of a curve

LANES = 64
"""Numbers that a CPU works on at a time; what is left over at the end of a tensor goes through functions that round in
another way. Slots times clips is a multiple of it, so that nothing is, in any stack."""


def padded_size(slots: int, clips: int, cpu: bool) -> int:
    """How many slots a stack of so many has, with those that are there to fill it, for batches of so many clips."""
    least = math.lcm(2, LANES // math.gcd(LANES, clips)) if cpu else 1
    return max(2, -(-slots // least) * least)


class StackedTask(LightningModule):
    """Trains F copies of a task side by side, with the weights that each would get alone.

    A batch has a first dimension F. Nothing joins the slots but the sum of their losses, so none hears of the others.
    The masks of dropout and drop-path come from a generator of the slot. On a CPU, convolutions are not oneDNN's, which
    picks its algorithm, and so its rounding, by the number of slots.

    Args:
        tasks: The copies with their initial weights; at least two. Repeated objects are different slots.
        noise: Seed of each slot's masks.

    Raises:
        ValueError: If such tasks cannot be trained as a stack; the message says why.
    """

    own: ClassVar[tuple[str, ...]] = ("loss", "forward", "training_step", "predict_step", "scaled")

    def __init__(self, tasks: Sequence[Task], noise: Sequence[int]):
        super().__init__()
        first = tasks[0]
        kind = type(first).__name__
        if first.first_stage() is not None:
            raise ValueError(f"{kind} cannot be stacked: it has a first stage, which is trained fold by fold")
        changed = [name for name in self.own if getattr(type(first), name) is not getattr(Task, name)]
        if changed:
            raise ValueError(f"{kind} cannot be stacked: it has its own {' and '.join(changed)}")
        names = {id(weight): name for name, weight in first.network.named_parameters()}
        self.groups = [{**g, "params": [names[id(weight)] for weight in g["params"]]} for g in first.groups()]
        network = StackedNetwork([task.network for task in tasks])
        self.task = deepcopy(first)
        self.task.network = network
        self.noise = noise
        self.step = RecordedStep(self._step)
        self.class_weights: Tensor | None = None
        self.losses: list[tuple[int, Tensor]] = []
        self.curve: list[tuple[int, list[float]]] = []

    @property
    def network(self) -> StackedNetwork:
        """The stacked networks."""
        return self.task.network

    def on_fit_start(self) -> None:
        """Weigh every slot's classes, and start its masks."""
        data = self.trainer.datamodule
        if self.task.class_weight_power:
            weights = [self.task.weigh(targets, len(data.classes)) for targets in data.train_targets]
            self.class_weights = torch.stack(weights).to(self.device)
        self.network.generators = [torch.Generator(self.device).manual_seed(seed) for seed in self.noise]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Sum of the slots' losses, whose gradients are there then: forward and backward are recorded together."""
        losses = self.step({**batch, "numbers": self._draw(batch)})
        if (self.trainer.global_step + 1) % EVERY == 0:
            self.losses.append((self.trainer.global_step, losses.clone()))
        return losses.sum()

    def _draw(self, batch: Batch) -> Tensor:
        """The random numbers of the masks of a step."""
        if self.network.shapes is None:
            self.network.note_shapes(self.task.scaled(batch))
        return self.network.draw()

    def _step(self, inputs: dict[str, Tensor]) -> Tensor:
        """Forward and backward of all slots, whose losses (F,) it returns; ``numbers`` are those of the masks."""
        for weight in self.network.parameters():
            weight.grad = None
        kind, weights = self.device.type, None if self.class_weights is None else 0
        narrow = {"dtype": torch.get_autocast_dtype(kind), "enabled": torch.is_autocast_enabled(kind)}
        with torch.autocast(kind, **narrow, cache_enabled=False):  # what is recorded must not be read from a cache
            self.network.numbers = inputs["numbers"]
            with batch_invariant():
                logits = self.task(inputs)["logits"]
            losses_of_slots = vmap(self.task.cross_entropy, in_dims=(0, 0, weights))
            losses = losses_of_slots(logits, inputs["target"], self.class_weights)
        with batch_invariant(), torch.autocast(kind, enabled=False):
            losses.sum().backward()
        return losses.detach()

    def on_train_end(self) -> None:
        """Bring the curves of all slots to the CPU: steps, and the losses (F,) there."""
        self.curve = [(step, losses.tolist()) for step, losses in self.losses]

    def backward(self, loss: Tensor) -> None:
        """Nothing: ``training_step`` has computed the gradients."""

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Nothing: a step writes its gradients over those of the last."""

    def check_stackable(self, batch: Batch) -> None:
        """One pass over a batch (F, B, ...), without a trainer; its traces stay in the buffers.

        Raises:
            ValueError: If the network cannot be stacked; the message says why.
        """
        self.network.generators = [torch.Generator().manual_seed(seed) for seed in self.noise]
        try:
            self.network.numbers = self._draw(batch)
            with batch_invariant():
                self.task(batch)["logits"].sum().backward()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{type(self.network.slots).__name__} cannot be stacked: {reason}") from error

    def predict_step(self, batch: Batch, index: int = 0) -> Tensor:
        """Class probabilities, float32 (F, B, K)."""
        with batch_invariant():
            return self.task.predict_step(batch)

    def attention(self, batch: Batch) -> Tensor:
        """Where each slot's network looks, shape (F, B, S, S) in [0, 1]."""
        return self.task.attention(batch)

    def configure_callbacks(self) -> list[Callback]:
        """The task's: a moving average of stacked weights is each slot's own."""
        return self.task.configure_callbacks()

    def configure_optimizers(self) -> dict:
        """AdamW on stacked weights is element-wise, hence each slot's own."""
        weights = dict(self.network.slots.named_parameters())
        groups = [{**group, "params": [weights[name] for name in group["params"]]} for group in self.groups]
        return self.task.optimizer_config(groups)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient of each slot by its own norm, as ``torch.nn.utils.clip_grad_norm_`` does."""
        if not gradient_clip_val:
            return
        gradients = [weight.grad for weight in self.network.parameters() if weight.grad is not None]
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(self.network.parameters(), gradient_clip_val)
            return
        norms = torch.stack([gradient.reshape(len(gradient), -1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        factors = (gradient_clip_val / (norms + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(factors.view(-1, *[1] * (gradient.ndim - 1)))


@contextmanager
def batch_invariant() -> Iterator[None]:
    """Inside the block, what is computed for a slot does not depend on the number of slots, to the bit."""
    before = torch.backends.mkldnn.set_flags(False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before[0])

"""Many folds as one program: copies of a task, each with its own fold and seed, in one forward, backward and step.

Training a fold of this field is some thousand small operations a second, on maps of 28x28 pixels: a device spends its
time on starting them. ``torch.func.vmap`` starts each of them once for all copies.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from typing import ClassVar

import torch
from lightning import Callback, LightningModule
from timm.layers import DropPath
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.optim import Optimizer

from mer.models import Network
from mer.task import Batch, Task

# On a CPU attention has no rule for stacks, and its loop over the slots costs nothing there.
warnings.filterwarnings("ignore", message="There is a performance drop.*scaled_dot_product", category=UserWarning)

EVERY = 10  # steps between two points of a curve

LANES = 64
"""Numbers that a CPU works on at a time; what is left over at the end of a tensor goes through functions that round in
another way. Slots times clips is a multiple of it, so that nothing is, in any stack."""


def filled(slots: int, clips: int, cpu: bool) -> int:
    """How many slots a stack of so many has, with those that are there to fill it, for batches of so many clips."""
    least = math.lcm(2, LANES // math.gcd(LANES, clips)) if cpu else 1
    return max(2, -(-slots // least) * least)


class Masks:
    """The masks of one forward pass, in the order in which modules ask for them."""

    def __init__(self):
        self.shapes: list[tuple[float, torch.Size]] | None = None
        self.handed: Iterator[Tensor] = iter(())

    def __call__(self, x: Tensor, rate: float, shape: torch.Size) -> Tensor:
        """Multiply by the next mask; in the dry run, note what is asked for."""
        if self.shapes is not None:
            self.shapes.append((rate, shape))
            return x
        return x * next(self.handed).to(x.dtype)


class Masked(nn.Module):
    """Takes the place of a module that draws at random: multiplies by a mask that is handed in.

    Args:
        rate: Probability of a zero in the mask; what stays is scaled up by its inverse.
        shape: From the shape of an input to that of its mask.
        masks: Where the masks come from.
    """

    def __init__(self, rate: float, shape: Callable[[torch.Size], torch.Size], masks: Masks):
        super().__init__()
        self.rate, self.shape, self.masks = rate, shape, masks

    def forward(self, x: Tensor) -> Tensor:
        return self.masks(x, self.rate, self.shape(x.shape)) if self.training and self.rate else x


def leading(shape: torch.Size, dimensions: int) -> torch.Size:
    """The first dimensions of a shape, and 1 for the others."""
    return torch.Size([*shape[:dimensions], *[1] * (len(shape) - dimensions)])


SHAPES = {
    nn.Dropout: partial(leading, dimensions=99),
    **dict.fromkeys((nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), partial(leading, dimensions=2)),
    DropPath: partial(leading, dimensions=1),
}
"""How the mask of a module that draws is shaped."""


class StackedNetwork(Network):
    """Copies of a network whose weights and buffers have a first dimension F more; so have its inputs and outputs.

    Args:
        networks: The copies, at least two: a stack of one rounds in another way.

    Raises:
        ValueError: If copies of this network cannot share a program.
    """

    def __init__(self, networks: Sequence[Network]):
        super().__init__()
        if len(networks) < 2:
            raise ValueError("a stack has at least two slots")
        first = networks[0]
        self.inputs, self.shows_attention, self.size = first.inputs, first.shows_attention, len(networks)
        self.masks, self.generators = Masks(), []
        self.shapes: list[tuple[float, torch.Size]] | None = None
        weights, buffers = stack_module_state(list(networks))
        if len(weights) < len(list(first.named_parameters(remove_duplicate=False))):
            raise ValueError("cannot be stacked: two of its modules share a weight")
        self.slots = deepcopy(first)
        for name, weight in weights.items():
            self._set(name, nn.Parameter(weight.detach(), weight.requires_grad))
        for name, buffer in buffers.items():
            self._set(name, buffer)
        for name, module in list(self.slots.named_modules()):
            if type(module) in SHAPES:
                rate = module.drop_prob if isinstance(module, DropPath) else module.p
                self._set(name, Masked(rate, SHAPES[type(module)], self.masks))

    def _set(self, name: str, value: object) -> None:
        """Put a weight, buffer or module in the place of the one of this name."""
        owner, _, leaf = name.rpartition(".")
        setattr(self.slots.get_submodule(owner), leaf, value)

    def forward(self, attention: bool = False, **inputs: Tensor) -> dict[str, Tensor]:
        """What every copy returns for its own inputs, (F, B, ...)."""
        if attention:  # once per fold, and the drawing of maps has no rule for stacks
            each = [self.one(slot, inputs, attention=True) for slot in range(self.size)]
            return {name: torch.stack([outputs[name] for outputs in each]) for name in each[0]}
        state = dict(self.slots.named_parameters()), dict(self.slots.named_buffers())
        masks = self._draw(inputs) if self.training else []

        def call(state: tuple, masks: list[Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            self.masks.handed = iter(masks)
            return functional_call(self.slots, state, (), inputs)

        return vmap(call)(state, masks, inputs)

    def one(self, slot: int, inputs: dict[str, Tensor], **options: bool) -> dict[str, Tensor]:
        """What one copy returns."""
        state = {**dict(self.slots.named_parameters()), **dict(self.slots.named_buffers())}
        own = {name: tensor[slot].clone() for name, tensor in state.items()}  # a dry run must not count in the buffers
        return functional_call(self.slots, own, (), {name: x[slot] for name, x in inputs.items()} | options)

    def _draw(self, inputs: dict[str, Tensor]) -> list[Tensor]:
        """The masks of a step, (F, ...) each: a slot's depend on its generator alone."""
        if self.shapes is None:  # a dry run, with a random state that is put back
            self.masks.shapes = []
            with torch.no_grad(), torch.random.fork_rng():
                self.one(0, inputs)
            self.shapes, self.masks.shapes = self.masks.shapes, None
            sizes = [shape.numel() for _, shape in self.shapes]
            kept = torch.tensor([1 - rate for rate, _ in self.shapes])
            self.kept = kept.repeat_interleave(torch.tensor(sizes, dtype=torch.long)).to(inputs[self.inputs[0]].device)
            self.cuts = sizes
        if not self.shapes:
            return []
        draws = torch.empty(self.size, len(self.kept), device=self.kept.device)
        for row, generator in zip(draws, self.generators, strict=True):
            row.uniform_(generator=generator)
        masks = ((draws < self.kept) / self.kept).split(self.cuts, dim=1)
        return [mask.unflatten(1, shape) for mask, (_, shape) in zip(masks, self.shapes, strict=True)]


class FoldBatch(LightningModule):
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
        self.class_weights: Tensor | None = None
        self.curve: list[tuple[int, Tensor]] = []

    @property
    def network(self) -> StackedNetwork:
        """The stacked networks."""
        return self.task.network

    def on_fit_start(self) -> None:
        """Weigh every slot's classes, and start its masks."""
        data = self.trainer.datamodule
        if self.task.balance:
            weights = [self.task.weigh(targets, len(data.classes)) for targets in data.train_targets]
            self.class_weights = torch.stack(weights).to(self.device)
        self.network.generators = [torch.Generator(self.device).manual_seed(seed) for seed in self.noise]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Sum of the slots' losses."""
        with alike():
            logits = self.task(batch)["logits"]
        weights = None if self.class_weights is None else 0
        losses = vmap(self.task.error, in_dims=(0, 0, weights))(logits, batch["target"], self.class_weights)
        if (self.trainer.global_step + 1) % EVERY == 0:
            self.curve.append((self.trainer.global_step, losses.detach()))
        return losses.sum()

    def backward(self, loss: Tensor) -> None:
        """One backward pass for all slots."""
        with alike():
            loss.backward()

    def rehearse(self, batch: Batch) -> None:
        """One pass over a batch (F, B, ...), without a trainer; its traces stay in the buffers.

        Raises:
            ValueError: If the network cannot be stacked; the message says why.
        """
        self.network.generators = [torch.Generator().manual_seed(seed) for seed in self.noise]
        try:
            with alike():
                self.task(batch)["logits"].sum().backward()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{type(self.network.slots).__name__} cannot be stacked: {reason}") from error

    def predict_step(self, batch: Batch, index: int = 0) -> Tensor:
        """Class probabilities, float32 (F, B, K)."""
        with alike():
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
        return self.task.optimisation(groups)

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
def alike() -> Iterator[None]:
    """Inside the block, what is computed for a slot does not depend on the number of slots, to the bit."""
    before = torch.backends.mkldnn.set_flags(False)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(before[0])

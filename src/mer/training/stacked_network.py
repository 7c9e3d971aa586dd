"""Copies of a network as one: the same modules on weights, buffers and inputs with a first dimension more."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from mer.models import Network

AHEAD = 1 << 18
"""Random numbers of a slot that are drawn at once, if a step needs fewer: every draw is a launch for each slot."""


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


class NormOfSlots(torch.autograd.Function):
    """Batch norm whose rule for stacks is one batch norm of F C channels.

    vmap's own multiplies by the weight and adds the bias in steps of their own: two more maps to keep, for every slot.
    """

    @staticmethod
    def forward(x: Tensor, *others: object) -> Tensor:
        """Of one slot; has no gradient."""
        return F.batch_norm(x, *others)

    @staticmethod
    def setup_context(ctx: object, inputs: tuple, output: Tensor) -> None:
        """Keep nothing: what ``vmap`` does keeps its own."""

    @staticmethod
    def vmap(info: object, dimensions: tuple, x: Tensor, *others: object) -> tuple[Tensor, int]:
        """Of all slots; weights and statistics are (F, C), the latter changed in place."""
        channels = x.movedim(dimensions[0], 1)  # (B, F, C, H, W)
        flat = [one.flatten() if isinstance(one, Tensor) else one for one in others]
        return F.batch_norm(channels.flatten(1, 2), *flat).view_as(channels), 1


class Norm(nn.BatchNorm2d):
    """Takes the place of a batch norm in a stack."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        statistics = self.running_mean, self.running_var
        return NormOfSlots.apply(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)


class Pointwise(nn.Conv2d):
    """Takes the place of a 1x1 convolution in a stack: on maps of one pixel its sums are a linear layer's.

    Those over the clips would be rounded by where a channel lies among the channels of all slots.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] == (1, 1):
            return F.linear(x[..., 0, 0], self.weight[..., 0, 0], self.bias)[..., None, None]
        return super().forward(x)


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
        self.numbers = torch.empty(0)
        self.waiting: Iterator[Tensor] = iter(())
        weights, buffers = stack_module_state(list(networks))
        if len(weights) < len(list(first.named_parameters(remove_duplicate=False))):
            raise ValueError("cannot be stacked: two of its modules share a weight")
        self.slots = deepcopy(first)
        for name, module in list(self.slots.named_modules()):
            if type(module) is nn.BatchNorm2d and module.track_running_stats and module.momentum is not None:
                self._set(name, Norm(module.num_features, module.eps, module.momentum, module.affine))
            if type(module) is nn.Conv2d and (module.kernel_size, module.padding, module.groups) == ((1, 1), (0, 0), 1):
                biased = module.bias is not None
                self._set(name, Pointwise(module.in_channels, module.out_channels, 1, module.stride, bias=biased))
            if type(module) in SHAPES:
                rate = module.drop_prob if isinstance(module, DropPath) else module.p
                self._set(name, Masked(rate, SHAPES[type(module)], self.masks))
        for name, weight in weights.items():
            self._set(name, nn.Parameter(weight.detach(), weight.requires_grad))
        for name, buffer in buffers.items():
            self._set(name, buffer)

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
        masks = self._masks() if self.training else []

        def call(state: tuple, masks: list[Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            self.masks.handed = iter(masks)
            return functional_call(self.slots, state, (), inputs)

        return vmap(call)(state, masks, inputs)

    def one(self, slot: int, inputs: dict[str, Tensor], **options: bool) -> dict[str, Tensor]:
        """What one copy returns."""
        state = {**dict(self.slots.named_parameters()), **dict(self.slots.named_buffers())}
        own = {name: tensor[slot].clone() for name, tensor in state.items()}  # a dry run must not count in the buffers
        return functional_call(self.slots, own, (), {name: x[slot] for name, x in inputs.items()} | options)

    def draw(self) -> Tensor:
        """The random numbers of a step in [0, 1), (F, n), which become masks once they are put into ``numbers``.

        A slot's numbers depend on its generator alone. They are drawn for some steps at once, how many depends on the
        network and its batch alone.
        """
        numbers = next(self.waiting, None)
        if numbers is None:
            count = len(self.kept)
            drawn = torch.empty(self.size, max(1, AHEAD // max(1, count)), count, device=self.kept.device)
            for slot, generator in zip(drawn, self.generators, strict=True) if count else ():
                slot.uniform_(generator=generator)
            self.waiting = iter(drawn.unbind(1))
            numbers = next(self.waiting)
        return numbers

    def note_shapes(self, inputs: dict[str, Tensor]) -> None:
        """Note the shapes of the masks of such inputs in a dry run, whose random state is put back."""
        device = inputs[self.inputs[0]].device
        self.masks.shapes = []
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            self.one(0, inputs)
        self.shapes, self.masks.shapes = self.masks.shapes, None
        self.cuts = [shape.numel() for _, shape in self.shapes]
        kept = torch.tensor([1 - rate for rate, _ in self.shapes])
        self.kept = kept.repeat_interleave(torch.tensor(self.cuts, dtype=torch.long)).to(device)

    def _masks(self) -> list[Tensor]:
        """The masks of a step, (F, ...) each."""
        if not self.shapes:
            return []
        masks = ((self.numbers < self.kept) / self.kept).split(self.cuts, dim=1)
        return [mask.unflatten(1, shape) for mask, (_, shape) in zip(masks, self.shapes, strict=True)]

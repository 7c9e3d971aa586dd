"""Copies of a network as one: the same modules, with a first dimension F for the copies in weights, buffers, inputs."""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from mer.models import Network

NUMBERS_PER_DRAW = 1 << 18
"""Random numbers of a slot drawn at once, where a step needs fewer: each draw is a kernel launch per slot."""

ALIGNMENT = 16
"""Numbers, 64 bytes of float32, from which on memory counts as aligned for every CPU."""

MASK_DIMENSIONS = {nn.Dropout: None, nn.Dropout1d: 2, nn.Dropout2d: 2, nn.Dropout3d: 2, DropPath: 1}
"""Modules that draw a random mask, and over how many leading dimensions of their input it varies; None for all."""


class MaskSource:
    """Hands the masks of one forward pass to the modules that ask for them, in the order in which they ask."""

    def __init__(self):
        self.requests: list[tuple[float, tuple[int, ...]]] | None = None
        self.masks: Iterator[Tensor] = iter(())

    def apply(self, x: Tensor, rate: float, shape: tuple[int, ...]) -> Tensor:
        """Multiply by the next mask; while ``requests`` is a list, only note the rate and the shape there."""
        if self.requests is not None:
            self.requests.append((rate, shape))
            return x
        return x * next(self.masks).to(x.dtype)


class MaskedDropout(nn.Module):
    """Replaces a dropout or drop-path in a stack: its mask comes from a source instead of a random generator.

    Args:
        rate: Probability of a zero in the mask; the other values are scaled up by 1 / (1 - rate).
        dimensions: Leading dimensions of the input over which the mask varies; None for all.
        source: Where the masks come from.
    """

    def __init__(self, rate: float, dimensions: int | None, source: MaskSource):
        super().__init__()
        self.rate, self.dimensions, self.source = rate, dimensions, source

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.rate):
            return x
        shape = tuple(x.shape[: self.dimensions])
        return self.source.apply(x, self.rate, shape + (1,) * (x.ndim - len(shape)))


class _BatchNormFunction(torch.autograd.Function):
    """Batch norm that ``vmap`` turns into one batch norm of F C channels.

    vmap's own rule multiplies by the weight and adds the bias in separate steps, whose results it keeps for each slot.
    """

    @staticmethod
    def forward(x: Tensor, *others: object) -> Tensor:
        """Batch norm of one slot (B, C, H, W); it has no gradient."""
        return F.batch_norm(x, *others)

    @staticmethod
    def setup_context(ctx: object, inputs: tuple, output: Tensor) -> None:
        """Keep nothing: autograd sees the batch norm inside ``vmap``."""

    @staticmethod
    def vmap(info: object, dimensions: tuple, x: Tensor, *others: object) -> tuple[Tensor, int]:
        """Batch norm of all slots; weights and statistics are (F, C), the statistics are changed in place."""
        channels = x.movedim(dimensions[0], 1)  # (B, F, C, H, W)
        flat = [value.flatten() if isinstance(value, Tensor) else value for value in others]  # (F C,)
        return F.batch_norm(channels.flatten(1, 2), *flat).view_as(channels), 1  # (B, F, C, H, W)


class StackedBatchNorm(nn.BatchNorm2d):
    """Replaces a batch norm in a stack; each slot has its own statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        statistics = self.running_mean, self.running_var
        return _BatchNormFunction.apply(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)


class _SlotProducts(torch.autograd.Function):
    """Products of rows (F, N, C) and weights (F, C', C): (F, N, C').

    A product of matrices rounds its sums by where its output lies in memory, counted in vectors of a few numbers. Here
    the gradient of each slot's weight begins at a multiple of ``ALIGNMENT``, as that of the first slot always does.
    """

    @staticmethod
    def forward(ctx: object, x: Tensor, weight: Tensor) -> Tensor:
        """The products of all slots."""
        ctx.save_for_backward(x, weight)
        return x @ weight.mT

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        """The gradients of rows and weights."""
        x, weight = ctx.saved_tensors
        size = weight[0].numel()
        places = x.new_empty(len(x), -(-size // ALIGNMENT) * ALIGNMENT)[:, :size]
        transposed = torch.bmm(x.mT, gradient, out=places.view_as(weight.mT))  # (F, C, C')
        return gradient @ weight if ctx.needs_input_grad[0] else None, transposed.mT


class _LinearFunction(torch.autograd.Function):
    """A linear layer without bias that ``vmap`` turns into ``_SlotProducts``."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        """The layer of one slot; it has no gradient."""
        return F.linear(x, weight)

    @staticmethod
    def setup_context(ctx: object, inputs: tuple, output: Tensor) -> None:
        """Keep nothing: autograd sees the products inside ``vmap``."""

    @staticmethod
    def vmap(info: object, dimensions: tuple, x: Tensor, weight: Tensor) -> tuple[Tensor, int]:
        """The layers of all slots."""
        x = x.expand(info.batch_size, *x.shape) if dimensions[0] is None else x.movedim(dimensions[0], 0)  # (F, ..., C)
        return _SlotProducts.apply(x.flatten(1, -2), weight).unflatten(1, x.shape[1:-1]), 0


def stacked_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer inside ``vmap``, for x (..., C) and weight (C', C); a slot's gradient depends on no other slot.

    A GPU rounds alike in every slot. So do a CPU's functions for bfloat16.
    """
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or weight.numel() % ALIGNMENT == 0:
        return F.linear(x, weight, bias)
    product = _LinearFunction.apply(x, weight)
    return product if bias is None else product + bias


class StackedLinear(nn.Linear):
    """Replaces a linear layer in a stack."""

    def forward(self, x: Tensor) -> Tensor:
        return stacked_linear(x, self.weight, self.bias)


class StackedPointwiseConv(nn.Conv2d):
    """Replaces a 1x1 convolution in a stack: on maps of one pixel it is a linear layer.

    A grouped convolution would round its sums over the clips by where a channel lies among the channels of all slots.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] == (1, 1):
            return stacked_linear(x[..., 0, 0], self.weight[..., 0, 0], self.bias)[..., None, None]  # (B, C', 1, 1)
        return super().forward(x)


class StackedNetwork(Network):
    """F copies of a network; weights, buffers, inputs and outputs have a first dimension F.

    Args:
        networks: The copies, at least two, since a stack of one rounds in another way.

    Raises:
        ValueError: If copies of this network cannot be stacked.
    """

    def __init__(self, networks: Sequence[Network]):
        super().__init__()
        if len(networks) < 2:
            raise ValueError("a stack has at least two slots")
        first = networks[0]
        self.inputs, self.shows_attention, self.size = first.inputs, first.shows_attention, len(networks)
        self.mask_source = MaskSource()
        self.mask_shapes: list[tuple[int, ...]] | None = None  # known after ``note_masks``
        self.generators: list[torch.Generator] = []
        self.random_numbers = torch.empty(0)  # of the masks of the next step, (F, n)
        self.drawn: Iterator[Tensor] = iter(())
        weights, buffers = stack_module_state(list(networks))
        if len(weights) < len(list(first.named_parameters(remove_duplicate=False))):
            raise ValueError("cannot be stacked: two of its modules share a weight")
        self.slots = deepcopy(first)
        for name, module in list(self.slots.named_modules()):
            if type(module) is nn.BatchNorm2d and module.track_running_stats and module.momentum is not None:
                norm = StackedBatchNorm(module.num_features, module.eps, module.momentum, module.affine)
                self._replace(name, norm)
            if type(module) is nn.Conv2d and (module.kernel_size, module.padding, module.groups) == ((1, 1), (0, 0), 1):
                sizes, biased = (module.in_channels, module.out_channels, 1, module.stride), module.bias is not None
                self._replace(name, StackedPointwiseConv(*sizes, bias=biased))
            if type(module) is nn.Linear:
                self._replace(name, StackedLinear(module.in_features, module.out_features, module.bias is not None))
            if type(module) in MASK_DIMENSIONS:
                rate = module.drop_prob if isinstance(module, DropPath) else module.p
                self._replace(name, MaskedDropout(rate, MASK_DIMENSIONS[type(module)], self.mask_source))
        for name, weight in weights.items():
            self._replace(name, nn.Parameter(weight.detach(), weight.requires_grad))
        for name, buffer in buffers.items():
            self._replace(name, buffer)

    def _replace(self, name: str, value: object) -> None:
        """Replace the weight, buffer or module of this name."""
        owner, _, leaf = name.rpartition(".")
        setattr(self.slots.get_submodule(owner), leaf, value)

    def forward(self, attention: bool = False, **inputs: Tensor) -> dict[str, Tensor]:
        """The outputs of all copies, (F, B, ...), each for its own inputs (F, B, ...)."""
        if attention:  # once per fold, and vmap has no rule for some of the operations
            outputs = [self.slot_outputs(slot, inputs, attention=True) for slot in range(self.size)]
            return {name: torch.stack([output[name] for output in outputs]) for name in outputs[0]}
        state = dict(self.slots.named_parameters()), dict(self.slots.named_buffers())
        masks = self._masks() if self.training else []

        def call(state: tuple, masks: list[Tensor], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
            self.mask_source.masks = iter(masks)
            return functional_call(self.slots, state, (), inputs)

        return vmap(call)(state, masks, inputs)

    def slot_outputs(self, slot: int, inputs: dict[str, Tensor], **options: bool) -> dict[str, Tensor]:
        """The outputs (B, ...) of one copy, from inputs of all copies (F, B, ...); its buffers stay as they are."""
        state = {**dict(self.slots.named_parameters()), **dict(self.slots.named_buffers())}
        copies = {name: tensor[slot].clone() for name, tensor in state.items()}
        return functional_call(self.slots, copies, (), {name: x[slot] for name, x in inputs.items()} | options)

    def draw_numbers(self) -> Tensor:
        """Draw a step's random numbers in [0, 1), (F, n); stored in ``random_numbers``, they make its masks.

        A slot's numbers depend on its generator alone. Those of several steps are drawn at once; how many steps depends
        only on the network and the size of a batch.
        """
        numbers = next(self.drawn, None)
        if numbers is None:
            count = len(self.keep_rates)
            steps = max(1, NUMBERS_PER_DRAW // count) if count else 1
            drawn = torch.empty(self.size, steps, count, device=self.keep_rates.device)
            for slot, generator in zip(drawn, self.generators, strict=True) if count else ():
                slot.uniform_(generator=generator)
            self.drawn = iter(drawn.unbind(1))
            numbers = next(self.drawn)
        return numbers

    def note_masks(self, inputs: dict[str, Tensor]) -> None:
        """Run one copy to learn the rates and shapes of the masks for inputs (F, B, ...); no random state changes."""
        device = inputs[self.inputs[0]].device
        self.mask_source.requests = requests = []
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            self.slot_outputs(0, inputs)
        self.mask_source.requests = None
        self.mask_shapes = [shape for _, shape in requests]
        self.mask_sizes = [math.prod(shape) for shape in self.mask_shapes]
        rates = torch.tensor([1 - rate for rate, _ in requests])
        self.keep_rates = rates.repeat_interleave(torch.tensor(self.mask_sizes, dtype=torch.long)).to(device)  # (n,)

    def _masks(self) -> list[Tensor]:
        """The masks of a step, (F, ...) each."""
        if not self.mask_shapes:
            return []
        masks = ((self.random_numbers < self.keep_rates) / self.keep_rates).split(self.mask_sizes, dim=1)
        return [mask.unflatten(1, shape) for mask, shape in zip(masks, self.mask_shapes, strict=True)]

"""Many folds as one program: copies of a task, each with its own fold and seed, in one forward, backward and step.

Training a fold of this field is thousands of small operations, on maps of 28x28 pixels: most of the time goes to
launching them. ``torch.func.vmap`` launches an operation once for all copies.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import ClassVar

import torch
from lightning import Callback, LightningModule
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad
from torch.optim import Optimizer

from mer.models import Batch
from mer.training.recorded_step import RecordedStep
from mer.training.stacked_network import StackedNetwork
from mer.training.task import Task

# On a CPU attention has no rule for stacks, and its loop over the slots costs nothing there.
warnings.filterwarnings("ignore", message="There is a performance drop.*scaled_dot_product", category=UserWarning)

REVISION = 2
"""Part of the digest of stacked recipes: raised by hand when a stack of any network gives other weights than before."""

CURVE_INTERVAL = 10
"""Steps between two points of a loss curve."""

CPU_CHUNK = 64
"""Numbers that a CPU computes at a time. A rest at the end of a tensor goes through functions that round in another
way, so slots times clips is always a multiple of this number."""


def padded_size(slots: int, clips: int, cpu: bool) -> int:
    """Size F of a stack with at least so many slots for batches of so many clips, filled up to what a CPU needs."""
    multiple = math.lcm(2, CPU_CHUNK // math.gcd(CPU_CHUNK, clips)) if cpu else 1
    return max(2, -(-slots // multiple) * multiple)


class StackedTask(LightningModule):
    """Trains F copies of a task side by side; each gets the weights that it would get alone.

    The tensors of a batch are (F, B, ...). The slots share only the sum of their losses, so no slot affects another.
    The masks of dropout and drop-path come from a generator per slot. On a CPU, convolutions do not use oneDNN, which
    picks its algorithm, and so its rounding, by the number of slots.

    Args:
        tasks: The copies with their initial weights; at least two. An object that is there twice is two slots.
        noise: Seed of each slot's masks.

    Raises:
        ValueError: If such tasks cannot be trained as a stack; the message says why.
    """

    assumed_methods: ClassVar[tuple[str, ...]] = ("loss", "forward", "training_step", "predict_step", "network_inputs")
    """Methods of ``Task`` that a stackable task does not override."""

    def __init__(self, tasks: Sequence[Task], noise: Sequence[int]):
        super().__init__()
        first = tasks[0]
        kind = type(first).__name__
        if first.first_stage() is not None:
            raise ValueError(f"{kind} cannot be stacked: it has a first stage, which is trained fold by fold")
        changed = [name for name in self.assumed_methods if getattr(type(first), name) is not getattr(Task, name)]
        if changed:
            raise ValueError(f"{kind} cannot be stacked: it has its own {' and '.join(changed)}")
        names = {id(weight): name for name, weight in first.network.named_parameters()}
        self.param_groups = [  # with the names of the weights
            {**group, "params": [names[id(weight)] for weight in group["params"]]} for group in first.param_groups()
        ]
        network = StackedNetwork([task.network for task in tasks])
        self.task = deepcopy(first)
        self.task.network = network
        self.noise = noise
        self.step = RecordedStep(self._step)
        self.filled_up: list[tuple[nn.Parameter, nn.Parameter]] = []  # weights, and what the optimiser has for them
        self.class_weights: Tensor | None = None
        self.unit_targets: Tensor | None = None
        self.losses: list[tuple[int, Tensor]] = []
        self.curve: list[tuple[int, list[float]]] = []

    @property
    def network(self) -> StackedNetwork:
        """The stacked networks."""
        return self.task.network

    def on_fit_start(self) -> None:
        """Compute each slot's class weights (F, K) and action units (F, N, U), and seed the generators of its masks."""
        data = self.trainer.datamodule
        if self.task.class_weight_power:
            weights = [self.task.rarity_weights(targets, len(data.classes)) for targets in data.train_targets]
            self.class_weights = torch.stack(weights).to(self.device)
        if self.task.action_units:
            self.unit_targets = data.unit_targets.to(self.device)
        self.network.generators = [torch.Generator(self.device).manual_seed(seed) for seed in self.noise]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Sum of the slots' losses, with the gradients computed: forward and backward are recorded together."""
        losses = self.step({**batch, "random_numbers": self._draw_numbers(batch)})  # (F,)
        if (self.trainer.global_step + 1) % CURVE_INTERVAL == 0:
            self.losses.append((self.trainer.global_step, losses.clone()))
        return losses.sum()

    def _draw_numbers(self, batch: Batch) -> Tensor:
        """The random numbers (F, n) of the masks of a step."""
        if self.network.mask_shapes is None:
            self.network.note_masks(self.task.network_inputs(batch))
        return self.network.draw_numbers()

    def _step(self, inputs: dict[str, Tensor]) -> Tensor:
        """Forward and backward of all slots; returns their losses (F,)."""
        for weight in self.network.parameters():
            weight.grad = None
        kind, weights = self.device.type, None if self.class_weights is None else 0
        precision = {"dtype": torch.get_autocast_dtype(kind), "enabled": torch.is_autocast_enabled(kind)}
        with torch.autocast(kind, **precision, cache_enabled=False):  # a replay must cast the weights anew
            self.network.random_numbers = inputs["random_numbers"]
            with batch_invariant():
                outputs = self.task(inputs)
            slot_losses = vmap(self.task.cross_entropy, in_dims=(0, 0, weights))
            losses = slot_losses(outputs["logits"], inputs["target"], self.class_weights)  # (F,)
            if self.task.action_units:
                losses = losses + vmap(self.task.unit_loss)(outputs["action_units"], inputs["clip"], self.unit_targets)
        with batch_invariant(), torch.autocast(kind, enabled=False):
            losses.sum().backward()
        for weight, whole in self.filled_up:
            if weight.grad is not None:
                whole.grad = pad(weight.grad.flatten(), (0, whole.numel() - weight.numel()))
                weight.grad = whole.grad[: weight.numel()].view_as(weight)
        return losses.detach()

    def on_train_end(self) -> None:
        """Bring the loss curves to the CPU: a list of steps, each with the losses (F,)."""
        self.curve = [(step, losses.tolist()) for step, losses in self.losses]
        self.step.forget()

    def backward(self, loss: Tensor) -> None:
        """Nothing: ``training_step`` has computed the gradients."""

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Nothing: ``_step`` resets the gradients."""

    def check_stackable(self, batch: Batch) -> None:
        """Forward and backward for a batch (F, B, ...), without a trainer; it changes buffers and gradients.

        Raises:
            ValueError: If the network cannot be stacked; the message says why.
        """
        self.network.generators = [torch.Generator().manual_seed(seed) for seed in self.noise]
        try:
            self.network.random_numbers = self._draw_numbers(batch)
            with batch_invariant():
                self.task(batch)["logits"].sum().backward()
        except RuntimeError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"{type(self.network.slots).__name__} cannot be stacked: {reason}") from error

    def predict_step(self, batch: Batch, index: int = 0) -> Tensor:
        """Class probabilities, float32 (F, B, K)."""
        with batch_invariant():
            return self.task.predict_step(batch)

    def slot_states(self) -> list[dict[str, Tensor]]:
        """The state of each slot, as a task alone has it."""
        state = self.network.slots.state_dict()
        return [{f"network.{name}": x[slot] for name, x in state.items()} for slot in range(self.network.size)]

    def attention(self, batch: Batch) -> Tensor:
        """Attention maps of all slots, shape (F, B, S, S) in [0, 1]."""
        return self.task.attention(batch)

    def configure_callbacks(self) -> list[Callback]:
        """The task's callbacks: the moving average is element-wise, hence independent for each slot."""
        return self.task.configure_callbacks()

    def configure_optimizers(self) -> dict:
        """The task's optimiser on the stacked weights: AdamW is element-wise, hence independent for each slot.

        On a CPU it gets weights without a rest, see ``CPU_CHUNK``: the fused AdamW rounds a rest in another way.
        """
        weights = dict(self.network.slots.named_parameters())
        whole = {name: fill_up(weight) for name, weight in weights.items()} if self.device.type == "cpu" else weights
        self.filled_up = [(weight, whole[name]) for name, weight in weights.items() if whole[name] is not weight]
        groups = [{**group, "params": [whole[name] for name in group["params"]]} for group in self.param_groups]
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


def fill_up(weight: nn.Parameter) -> nn.Parameter:
    """Move a weight into memory of a multiple of ``CPU_CHUNK`` numbers, 0 at the end, and return all of it, flat."""
    size = weight.numel()
    if size % CPU_CHUNK == 0:
        return weight
    whole = pad(weight.detach().flatten(), (0, -size % CPU_CHUNK))
    weight.data = whole[:size].view_as(weight)
    return nn.Parameter(whole, weight.requires_grad)


@contextmanager
def batch_invariant() -> Iterator[None]:
    """Inside the block, the results of a slot are the same bits for any number of slots: oneDNN is off.

    Attention is computed plainly where there is a GPU: there the fused kernels of PyTorch 2.11 cannot train under
    ``vmap`` (float32: "LSE is not correctly aligned"; bfloat16: NaN).
    """
    before = torch.backends.mkldnn.set_flags(False)
    try:
        with sdpa_kernel(SDPBackend.MATH) if torch.cuda.is_available() else nullcontext():
            yield
    finally:
        torch.backends.mkldnn.set_flags(before[0])

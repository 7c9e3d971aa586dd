"""Folds one by one and stacked: seconds per fold and epoch, the least possible, memory; two workers beside one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from experiments import workers
from experiments.benchmarks import page
from experiments.benchmarks.data import SUBJECTS, TRAINED, experiment, seconds
from experiments.benchmarks.memory import TensorBytes
from experiments.fold import train, train_stack

WARM = 2  # steps before the clock starts; the first ones allocate memory and choose kernels
PATIENT = 150  # seconds; a stack that would take longer on a CPU is left out


@dataclass(frozen=True)
class Ceilings:
    """Measured maximum of a device: floating-point operations and bytes of memory traffic, both per second."""

    operations: float
    bytes: float


class Clock(Callback):
    """Measures the memory of the first ``WARM`` steps of a training and the time of the others."""

    times: ClassVar[list[float]] = []
    memory: ClassVar[list[int]] = []

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        """Start to count; on a GPU the weights are there already and count, too."""
        self.bytes = TensorBytes()
        if task.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() - sum(weight.nbytes for weight in task.parameters())
        else:
            self.bytes.__enter__()

    def on_train_batch_end(self, trainer: Trainer, task: LightningModule, *others: object) -> None:
        """Note the time after the first steps and after the last."""
        on_gpu = task.device.type == "cuda"
        if trainer.global_step == WARM:
            if not on_gpu:
                self.bytes.__exit__(None, None, None)
            self.memory.append(torch.cuda.max_memory_allocated() - self.before if on_gpu else self.bytes.most)
        if trainer.global_step in (WARM, trainer.max_steps):
            if on_gpu:
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())


def per_epoch(model: str, accelerator: str, folds: int, stacked: bool, passes: int, *options: str) -> dict:
    """Measure folds of a recipe, which train for ``passes`` epochs after the first ``WARM`` steps.

    Batches come from an endless stream, so an epoch of all training clips is no whole number of steps: a pass is an
    epoch rounded up, and the seconds are scaled back. Each pass ends with a test.

    Returns:
        ``seconds`` per fold and epoch; ``around``, seconds of a fold outside its epochs; ``memory``, bytes of the
        tensors of all folds at their peak, without the data.
    """
    data = experiment(model, accelerator, *options).data
    data.hold_out(next(iter(data.folds)), 0)
    steps, epochs = passes * data.steps_per_epoch, TRAINED / data.batch_size
    options = (*options, f"--trainer.callbacks+={__name__}.Clock", f"--stacked={str(stacked).lower()}")
    own = experiment(model, accelerator, *options, steps=WARM + steps, folds=folds)
    stack = own.folds(range(1 + folds // SUBJECTS))[:folds]
    Clock.times.clear()
    Clock.memory.clear()
    whole = seconds(lambda: train_stack(own, stack) if stacked else train(own, stack[0])) / folds
    step = min(end - start for start, end in zip(*[iter(Clock.times)] * 2, strict=True)) / steps / folds
    around = max(0.0, whole - step * (WARM + steps))
    return {"seconds": step * epochs, "around": around, "memory": max(Clock.memory)}


def ceilings(device: torch.device) -> Ceilings:
    """Measure a product of two matrices, in float32 on a CPU and bfloat16 on a GPU like the recipes, and a copy."""
    side, large = (4096, 1 << 28) if device.type == "cuda" else (1024, 1 << 24)
    matrix = torch.randn(side, side, device=device).to(torch.bfloat16 if device.type == "cuda" else torch.float32)
    numbers = torch.randn(large, device=device)
    target = torch.empty_like(numbers)

    def rate(amount: float, work: Callable[[], object]) -> float:
        def run() -> None:
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()

        run()
        return amount / seconds(run, repeats=5)

    return Ceilings(rate(2 * side**3, lambda: matrix @ matrix), rate(2 * 4 * large, lambda: target.copy_(numbers)))


def floor(model: str, accelerator: str, limits: Ceilings) -> float:
    """Least seconds per fold and epoch: the operations of a step, or its bytes, at the ceilings of the device.

    Bytes are those of the clips, of what the forward pass keeps for the backward pass (written and read once), and of
    the weights, gradients and moments that AdamW reads (four tensors) and writes (three).
    """
    recipe = experiment(model, accelerator)
    task, batch = recipe.instantiate().model, recipe.data.dummy_batch()
    batch = {name: batch[name] for name in (*recipe.data.inputs, "target")}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    narrow = torch.autocast("cpu", torch.bfloat16, enabled=recipe.config.trainer.precision == "bf16-mixed")
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        with narrow:
            loss = task.loss(task(batch), batch)["classes"]
        loss.backward()
    weights = sum(weight.numel() for weight in task.network.parameters()) * 4
    moved = sum(clips.nbytes for clips in batch.values()) + 2 * sum(kept.values()) + 7 * weights
    step = max(counter.get_total_flops() / limits.operations, moved / limits.bytes)
    return step * TRAINED / recipe.data.batch_size


def measure(accelerator: str, models: Sequence[str], sizes: Sequence[int], passes: int) -> list[page.Row]:
    """A row for each model one by one and for each size of the stack."""
    limits, rows = ceilings(torch.device("cuda" if accelerator == "gpu" else "cpu")), []
    for model in models:
        least = floor(model, accelerator, limits)
        alone = per_epoch(model, accelerator, 1, False, passes)
        rows.append(page.Row(model, 0, **alone, floor=least))
        for folds in sizes:
            if accelerator == "cpu" and folds * passes * alone["seconds"] > PATIENT:
                continue
            rows.append(page.Row(model, folds, **per_epoch(model, accelerator, folds, True, passes), floor=least))
            print(page.line(rows[-1], alone["seconds"]), flush=True)
    return rows


def whole(model: str, seeds: int = 1) -> tuple[int, float]:
    """Steps of a model's recipe on a GPU, and seconds of all its folds and seeds as one program with their tests."""
    recipe = experiment(model, "gpu", "--stacked=true")
    folds = recipe.folds(range(seeds))
    train_stack(recipe, folds, max_steps=WARM)
    return recipe.config.trainer.max_steps, seconds(lambda: train_stack(recipe, folds), repeats=1)


def folds_of_a_worker(model: str, steps: int, count: int) -> tuple[float, float]:
    """Train ``count`` folds after one that warms up; return when they began and ended, in seconds since 1970."""
    recipe = experiment(model, "cpu", steps=steps)
    folds = recipe.folds()
    train(recipe, folds[0])
    start = time.time()
    for fold in folds[:count]:
        train(recipe, fold)
    return start, time.time()


def two_workers(model: str, steps: int = 60, count: int = 4) -> float:
    """Folds per second of two workers, divided by those of one."""
    rates = []
    for number in (1, 2):
        work = [(model, steps, count)] * number
        spans = [span for _, span in workers.run(folds_of_a_worker, work, ["cpu"] * number)]
        rates.append(number * count / (max(end for _, end in spans) - min(start for start, _ in spans)))
    return rates[1] / rates[0]

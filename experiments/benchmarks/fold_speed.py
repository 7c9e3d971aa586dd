"""Many folds as one program: seconds per fold and epoch, the floor, memory; and two workers beside one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from experiments import executors
from experiments.benchmarks import page
from experiments.benchmarks.data import SUBJECTS, TRAINED, experiment, seconds
from experiments.benchmarks.memory import Peak

WARM = 2  # steps before the clock starts; the first has allocations and choices that no other has
PATIENT = 150  # seconds; what is likely to take longer on a CPU is left out


@dataclass(frozen=True)
class Ceilings:
    """What a device does at best: operations and bytes per second."""

    operations: float
    bytes: float


class Clock(Callback):
    """Measures the memory of the first steps of a training, and times the others."""

    times: ClassVar[list[float]] = []
    memory: ClassVar[list[int]] = []

    def on_train_start(self, trainer: Trainer, task: LightningModule) -> None:
        """Look at the memory; on a GPU the weights are there already, and count."""
        weights = sum(weight.nbytes for weight in task.parameters()) if task.device.type == "cuda" else 0
        self.weights, self.peak = weights, Peak(task.device).__enter__()

    def on_train_batch_end(self, trainer: Trainer, *others: object) -> None:
        """Look at the clock after the first steps and after the last."""
        if trainer.global_step == WARM:
            self.peak.__exit__(None, None, None)
            self.memory.append(self.peak.bytes + self.weights)
        if trainer.global_step in (WARM, trainer.max_steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())


def per_epoch(model: str, accelerator: str, folds: int, stacked: bool, passes: int, *options: str) -> dict:
    """Measure folds of a recipe.

    An epoch is as much of the endless stream of batches as has each training clip once, so it is no whole number of
    steps. Each pass, an epoch rounded up, ends with a test.

    Returns:
        ``seconds`` per fold and epoch; ``around``, seconds of a fold besides its epochs; ``memory``, bytes of all the
        folds' tensors at their peak, without the data.
    """
    data = experiment(model, accelerator, *options).data
    data.hold_out(next(iter(data.folds)), 0)
    steps, epochs = passes * data.steps_per_epoch[0], TRAINED / data.batch_size
    options = (
        *options,
        f"--trainer.callbacks+={__name__}.Clock",
        f"--stacked={str(stacked).lower()}",
    )
    chosen = experiment(model, accelerator, *options, steps=WARM + steps, folds=folds)
    slots = [(fold, seed) for seed in range(1 + folds // SUBJECTS) for fold in chosen.data.folds][:folds]
    Clock.times.clear()
    Clock.memory.clear()
    whole = seconds(lambda: chosen.train_stack(slots) if stacked else chosen.train(*slots[0])) / folds
    step = min(end - start for start, end in zip(*[iter(Clock.times)] * 2, strict=True)) / steps / folds
    around = max(0.0, whole - step * (WARM + steps))
    return {"seconds": step * epochs, "around": around, "memory": max(Clock.memory)}


def ceilings(device: torch.device) -> Ceilings:
    """Measured with a product of two matrices, on a GPU in bfloat16 as its recipes compute, and with a copy."""
    side, large = (4096, 1 << 28) if device.type == "cuda" else (1024, 1 << 24)
    matrix = torch.randn(side, side, device=device).to(torch.bfloat16 if device.type == "cuda" else torch.float32)
    numbers = torch.randn(large, device=device)
    target = torch.empty_like(numbers)

    def rate(amount: float, work: Callable[[], object]) -> float:
        def ended() -> None:
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()

        ended()
        return amount / seconds(ended, repeats=5)

    return Ceilings(rate(2 * side**3, lambda: matrix @ matrix), rate(2 * 4 * large, lambda: target.copy_(numbers)))


def floor(model: str, accelerator: str, limits: Ceilings) -> float:
    """Seconds per fold and epoch below which no program can be: its operations, or its bytes, at the device's best.

    Bytes are those of the clips, of what the forward pass keeps for the backward pass, once written and once read, and
    of the weights, gradients and moments that AdamW reads (four) and writes (three).
    """
    chosen = experiment(model, accelerator)
    task, batch = chosen.instantiate().model, chosen.data.dummy_batch()
    batch = {name: batch[name] for name in (*chosen.data.inputs, "target")}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    narrow = torch.autocast("cpu", torch.bfloat16, enabled=chosen.config.trainer.precision == "bf16-mixed")
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        with narrow:
            loss = task.loss(task(batch), batch)["classes"]
        loss.backward()
    weights = sum(weight.numel() for weight in task.network.parameters()) * 4
    moved = sum(clips.nbytes for clips in batch.values()) + 2 * sum(kept.values()) + 7 * weights
    step = max(counter.get_total_flops() / limits.operations, moved / limits.bytes)
    return step * TRAINED / chosen.data.batch_size


def measure(accelerator: str, models: Sequence[str], sizes: Sequence[int], passes: int) -> list[page.Row]:
    """One row per model and size of the stack."""
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
    """Steps of a model's recipe on a GPU, and seconds of all its folds and seeds as one program, tests and all."""
    chosen = experiment(model, "gpu", "--stacked=true")
    slots = [(fold, seed) for seed in range(seeds) for fold in chosen.data.folds]
    chosen.train_stack(slots, max_steps=WARM)
    return chosen.config.trainer.max_steps, seconds(lambda: chosen.train_stack(slots), repeats=1)


def folds_of_a_worker(model: str, steps: int, count: int) -> tuple[float, float]:
    """When a worker that is warm began and ended so many folds."""
    chosen = experiment(model, "cpu", steps=steps)
    names = list(chosen.data.folds)
    chosen.train(names[0], 0)
    start = time.time()
    for name in names[:count]:
        chosen.train(name, 0)
    return start, time.time()


def workers(model: str, steps: int = 60, count: int = 4) -> float:
    """How many times the folds per second of one worker two workers have."""
    rates = []
    for number in (1, 2):
        work = [(model, steps, count)] * number
        spans = [span for _, span in executors.run(folds_of_a_worker, work, ["cpu"] * number)]
        rates.append(number * count / (max(end for _, end in spans) - min(start for start, _ in spans)))
    return rates[1] / rates[0]

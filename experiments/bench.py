"""`make bench`: seconds per fold and epoch, one by one and stacked, beside the least that the device allows.

All figures of a table come from one run on one machine; ratios between them are what is meant to be read.
"""

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd
import torch
from lightning import Callback, Trainer
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

import data_modules
from data_modules.base import Batch, FlowDataModule
from experiments import bench_page, executors
from experiments.jobs import Job
from experiments.train import Experiment
from mer.models.ststnet import STSTNet

MODELS = {"ststnet": (), "ahmsa_net": (), "hsta": ()}
LONG = 20  # seconds; what takes longer is not repeated
CLIPS, SUBJECTS = 442, 68  # those of the composite of MEGC 2019


class Noise(FlowDataModule):
    """Noise in the shapes and the number of the clips of the composite of MEGC 2019."""

    name = "noise"
    default_protocol = "megc2019"
    available_inputs = ("flow", "onset", "apex", "frames")
    places = ("root",)

    def read_clips(self) -> pd.DataFrame:
        rows = [("noise", f"s{clip % SUBJECTS:02}", f"c{clip}", self.classes[clip % 3]) for clip in range(CLIPS)]
        return pd.DataFrame(rows, columns=["dataset", "subject", "clip", "target"])

    def label(self, clips: pd.DataFrame, protocol: str = "") -> pd.DataFrame:
        return clips

    def source_files(self, clips: pd.DataFrame) -> dict[str, int]:
        return {}

    def load(self, clips: pd.DataFrame) -> Batch:
        draws, picture = torch.Generator().manual_seed(0), (3, self.size, self.size)
        shapes = {"flow": picture, "onset": picture, "apex": picture, "frames": (6, *picture)}
        tensors = {name: torch.randn(len(clips), *shapes[name], generator=draws) for name in self.inputs}
        return {name: x if name == "flow" else x.mul(50).add(128).byte() for name, x in tensors.items()}


data_modules.DATASETS["noise"] = f"{__name__}.Noise"  # also in workers, which import this file for their work


@dataclass(frozen=True)
class Ceilings:
    """What a device does at best: operations and bytes per second."""

    operations: float
    bytes: float


def experiment(model: str, accelerator: str, steps: int, *options: str, folds: int = 0) -> Experiment:
    """A recipe's quick version, with so many steps."""
    options = (*MODELS.get(model, ()), f"--trainer.max_steps={steps}", *options)
    return Experiment(Job("noise", model, accelerator=accelerator, folds_per_batch=folds, options=options))


def seconds(work: Callable[[], object], repeats: int = 2) -> float:
    """The shortest of a few runs, or one long run, of what ends with its results on the CPU."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
        if times[-1] > LONG:
            break
    return min(times)


class Clock(Callback):
    """Times the steps of a training from one of them to the last.

    Args:
        first: Step after which the time starts.
    """

    times: ClassVar[list[float]] = []

    def __init__(self, first: int):
        self.first = first

    def on_train_batch_end(self, trainer: Trainer, *others: object) -> None:
        """Look at the clock after the first and after the last of the steps."""
        if trainer.global_step in (self.first, trainer.max_steps):
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.times.append(time.perf_counter())


def per_epoch(model: str, accelerator: str, folds: int, stacked: bool, passes: int, *options: str) -> dict:
    """Seconds per fold and epoch after the first epoch; seconds of a fold besides its epochs; memory on a GPU."""
    data = experiment(model, accelerator, 1, *options).data
    data.hold_out(next(iter(data.folds)), 0)
    (length,) = data.passes
    options = (*options, "--trainer.callbacks+=experiments.bench.Clock", f"--trainer.callbacks.first={length}")
    options = (*options, "--stacked=true") if stacked else options
    chosen = experiment(model, accelerator, length * (1 + passes), *options, folds=folds)
    slots = [(fold, seed) for seed in range(1 + folds // SUBJECTS) for fold in chosen.data.folds][:folds]
    if accelerator == "gpu":
        torch.cuda.reset_peak_memory_stats()
    Clock.times.clear()
    whole = seconds(lambda: chosen.train_stack(slots) if stacked else chosen.train(*slots[0])) / folds
    each = min(end - start for start, end in zip(*[iter(Clock.times)] * 2, strict=True)) / passes / folds
    memory = torch.cuda.max_memory_allocated() >> 20 if accelerator == "gpu" else None
    return {"seconds": each, "around": max(0.0, whole - each * (1 + passes)), "memory": memory}


def ceilings(device: torch.device) -> Ceilings:
    """Measured with a product of two matrices and with a copy, in float32."""
    side, large = (4096, 1 << 28) if device.type == "cuda" else (1024, 1 << 24)
    matrix, numbers = torch.randn(side, side, device=device), torch.randn(large, device=device)
    target = torch.empty_like(numbers)

    def rate(amount: float, work: Callable[[], object]) -> float:
        def ended() -> None:
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()

        ended()
        return amount / seconds(ended, repeats=5)

    return Ceilings(rate(2 * side**3, lambda: matrix @ matrix), rate(2 * 4 * large, lambda: target.copy_(numbers)))


def floor(model: str, limits: Ceilings) -> float:
    """Seconds per fold and epoch below which no program can be: its operations, or its bytes, at the device's best.

    Bytes are those of the clips, of what the forward pass keeps for the backward pass, once written and once read, and
    of the weights, gradients and moments that AdamW reads (four) and writes (three).
    """
    chosen = experiment(model, "cpu", 1)
    task, batch = chosen._instantiate().model, chosen.data.noise()
    batch = {name: batch[name] for name in (*chosen.data.inputs, "target")}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        task.loss(task(batch), batch)["classes"].backward()
    weights = sum(weight.numel() for weight in task.network.parameters()) * 4
    moved = sum(clips.nbytes for clips in batch.values()) + 2 * sum(kept.values()) + 7 * weights
    steps = -(-(CLIPS - CLIPS // SUBJECTS) // chosen.data.batch_size)
    return steps * max(counter.get_total_flops() / limits.operations, moved / limits.bytes)


def plain(clips: int, passes: int) -> float:
    """Seconds per epoch of STSTNet as a plain script has it: three branches, a loop, Adam, no augmentation."""
    torch.manual_seed(0)
    network, flow, target = STSTNet(3), torch.randn(CLIPS, 3, 28, 28), torch.arange(CLIPS) % 3
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-5)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(flow, target), clips, shuffle=True)

    def train() -> None:
        for _ in range(passes):
            for x, y in loader:
                optimizer.zero_grad()
                cross_entropy(network(x)["logits"], y).backward()
                optimizer.step()

    return seconds(train) / passes


def bare(clips: int, passes: int) -> float:
    """Seconds per epoch of the recipe of STSTNet in a loop of our own: same batches, steps and tests, no Lightning."""
    chosen = experiment("ststnet", "cpu", 1, f"--data.batch_size={clips}")
    task, data = chosen._instantiate().model, chosen.data
    data.setup()
    data.hold_out(next(iter(data.folds)), 0)
    batches, optimizer = data.train_dataloader(), torch.optim.AdamW(task.groups(), lr=task.lr)

    def train() -> None:
        for _ in range(passes):
            for batch in batches:
                optimizer.zero_grad()
                sum(task.loss(task(batch), batch).values()).backward()
                optimizer.step()
            with torch.no_grad():
                (test,) = data.test_dataloader()
                task.eval()
                task.predict_step(test)
                task.train()

    return seconds(train) / passes


def folds_of_a_worker(model: str, steps: int, count: int) -> tuple[float, float]:
    """When a worker that is warm began and ended so many folds."""
    chosen = experiment(model, "cpu", steps)
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


def measure(accelerator: str, models: Sequence[str], sizes: Sequence[int], passes: int) -> list[bench_page.Row]:
    """One row per model and size of the stack."""
    limits, rows = ceilings(torch.device("cuda" if accelerator == "gpu" else "cpu")), []
    for model in models:
        least = floor(model, limits)
        alone = per_epoch(model, accelerator, 1, False, passes)
        rows.append(bench_page.Row(model, 0, **alone, floor=least))
        for folds in sizes:
            rows.append(bench_page.Row(model, folds, **per_epoch(model, accelerator, folds, True, passes), floor=least))
            print(bench_page.line(rows[-1], alone["seconds"]), flush=True)
    return rows


def main() -> None:
    """Measure and write ``docs/benchmarks.md`` and ``docs/bench.svg``."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated (default: all three)")
    parser.add_argument("--folds", default="1,4,16,68", help="sizes of the stack (default 1,4,16,68)")
    parser.add_argument("--passes", type=int, default=2, help="epochs that are timed (default 2)")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder to write into (default docs)")
    options = parser.parse_args()
    executors.warm_up([__name__ if __name__ != "__main__" else "experiments.bench"])
    torch.set_num_threads(1)
    models, sizes = options.models.split(","), [int(size) for size in options.folds.split(",")]
    measured, extras = {}, []
    for accelerator in ("cpu", "gpu") if torch.cuda.is_available() else ("cpu",):
        name = torch.cuda.get_device_name() if accelerator == "gpu" else f"{platform.machine()}, one thread"
        measured[f"{accelerator}, {name}, torch {torch.__version__}"] = measure(
            accelerator, models, sizes, options.passes
        )
    if "ststnet" in models:
        for clips in (32, 256):
            ours = per_epoch("ststnet", "cpu", 1, False, 4 * options.passes, f"--data.batch_size={clips}")["seconds"]
            script, loop = plain(clips, 4 * options.passes), bare(clips, 4 * options.passes)
            extras.append(
                f"- STSTNet on the CPU, batches of {clips}: {ours:.3f} s per fold and epoch, {ours / script:.2f} times "
                f"a plain eager script of three branches ({script:.3f} s); {100 * (1 - loop / ours):.0f} % of it is "
                f"not in a bare loop of the same batches, steps and tests ({loop:.3f} s)."
            )
        extras.append(f"- Two workers on the CPU train {workers('ststnet'):.2f} times the folds of one.")
    bench_page.write(options.docs, measured, extras)


if __name__ == "__main__":
    # As a module of its own name: a worker must find the functions that it is sent.
    from experiments.bench import main as run

    run()

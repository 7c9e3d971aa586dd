"""The figures of ``make bench`` and ``make bench-flow`` with the least work that gives them."""

from functools import partial

from experiments.benchmarks import fold_speed
from experiments.benchmarks.data import SUBJECTS
from experiments.benchmarks.flow import many
from experiments.benchmarks.gpu_check.check import NEEDS_A_GPU, Check, Skip, need

SEEDS = 5


def checks(cpu: bool) -> list[Check]:
    """A check for each figure. They have no bounds, because GPUs differ."""
    pairs, batch, size = (6, 2, 48) if cpu else (1024, 128, 224)
    models = ("ststnet",) if cpu else ("ststnet", "ahmsa_net")
    return [
        *(Check(f"{model}, s per fold and epoch", partial(per_epoch, model, cpu)) for model in models),
        Check(f"ahmsa_net's recipe, {SUBJECTS} folds as one program", partial(whole, 1, cpu)),
        Check(f"ahmsa_net's recipe, {SEEDS} seeds, {SEEDS * SUBJECTS} folds", partial(whole, SEEDS, cpu)),
        Check(f"optical flow, {pairs} pairs of {size} px", lambda: flow(pairs, batch, size)),
    ]


def per_epoch(model: str, cpu: bool) -> str:
    """Seconds per fold and epoch, one by one and stacked."""
    accelerator, folds, options = ("cpu", 2, ("--data.batch_size=256",)) if cpu else ("gpu", SUBJECTS, ())
    alone, stacked = (
        fold_speed.per_epoch(model, accelerator, size, size > 1, 1, *options)["seconds"] for size in (1, folds)
    )
    return f"{alone:.4f} one by one, {stacked:.5f} in a stack of {folds}: {alone / stacked:.1f} times as fast"


def whole(seeds: int, cpu: bool) -> str:
    """Seconds of all folds with their tests."""
    if cpu:
        raise Skip(NEEDS_A_GPU)
    steps, seconds = fold_speed.whole("ahmsa_net", seeds)
    return f"{seconds:.1f} s for {steps} steps"


def flow(pairs: int, batch: int, size: int) -> str:
    """Pairs per second, from and to the memory of the host, and the memory held."""
    need("mediapipe", "filming faces")
    return many(pairs, batch, size).partition(": ")[2]

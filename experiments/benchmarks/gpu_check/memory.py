"""A stack as large as ``auto`` makes it takes the memory that was expected."""

from functools import partial

import torch

from experiments import workers
from experiments.benchmarks.data import experiment
from experiments.benchmarks.gpu_check.check import NEEDS_A_GPU, Check, Skip, Wrong
from experiments.fold import train_stack

ROOM = 2 << 30  # bytes that are left free, so that a stack that fills them takes seconds
MODELS = ("ststnet", "ahmsa_net", "hsta")


def checks(cpu: bool) -> list[Check]:
    """One for each model."""
    return [Check(f"{model}, stack of the size of `auto`", partial(fits, model, cpu)) for model in MODELS]


def fits(model: str, cpu: bool) -> str:
    """What the stack was to take, and took; the rest of the memory is filled with something else meanwhile."""
    if cpu:
        raise Skip(NEEDS_A_GPU)
    chosen = experiment(model, "gpu", "--stacked=true", steps=2)
    slots = [(fold, seed) for seed in range(20) for fold in chosen.data.folds]
    train_stack(chosen, slots[:2])  # what is only there once: the data, the libraries' own
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    ballast = torch.empty(max(0, free - ROOM), dtype=torch.uint8, device="cuda")
    free, _ = torch.cuda.mem_get_info()
    fitting = workers.largest_stack(chosen, slots)
    size = min(fitting, len(slots))
    expected = workers.OF_MEMORY * free * size / fitting
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    try:
        train_stack(chosen, slots[:size])
    except torch.OutOfMemoryError as error:
        raise Wrong(f"{size} folds do not fit into {free / 1e6:.0f} MB, {expected / 1e6:.0f} MB expected") from error
    took = torch.cuda.max_memory_allocated() - before
    del ballast
    figure = f"{size} folds, {expected / 1e6:.0f} MB expected, {took / 1e6:.0f} MB taken"
    if took * workers.OF_MEMORY > expected:  # a stack that fills what it may would be out of memory
        raise Wrong(figure)
    return figure

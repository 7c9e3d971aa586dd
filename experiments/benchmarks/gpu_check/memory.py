"""A stack of the size that ``auto`` chooses takes the memory that was expected."""

from functools import partial

import torch

from experiments import workers
from experiments.benchmarks.data import experiment
from experiments.benchmarks.gpu_check.check import NEEDS_A_GPU, Check, Skip, Wrong
from experiments.fold import train_stack

ROOM = 2 << 30  # free bytes, few enough that a stack that fills them trains in seconds
MODELS = ("ststnet", "ahmsa_net", "hsta")


def checks(cpu: bool) -> list[Check]:
    """A check for each model."""
    return [Check(f"{model}, stack of the size of `auto`", partial(fits, model, cpu)) for model in MODELS]


def fits(model: str, cpu: bool) -> str:
    """The memory that the stack should take, and took; a large tensor fills the rest of the device."""
    if cpu:
        raise Skip(NEEDS_A_GPU)
    recipe = experiment(model, "gpu", "--stacked=true", steps=2)
    folds = recipe.folds(range(20))
    train_stack(recipe, folds[:2])  # allocates what every stack shares: the data, the libraries' buffers
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    ballast = torch.empty(max(0, free - ROOM), dtype=torch.uint8, device="cuda")
    free, _ = torch.cuda.mem_get_info()
    fitting = workers.largest_stack(recipe, folds)
    size = min(fitting, len(folds))
    expected = workers.OF_MEMORY * free * size / fitting
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    try:
        train_stack(recipe, folds[:size])
    except torch.OutOfMemoryError as error:
        raise Wrong(f"{size} folds do not fit into {free / 1e6:.0f} MB, {expected / 1e6:.0f} MB expected") from error
    took = torch.cuda.max_memory_allocated() - before
    del ballast
    figure = f"{size} folds, {expected / 1e6:.0f} MB expected, {took / 1e6:.0f} MB taken"
    if took * workers.OF_MEMORY > expected:  # a stack that fills all the memory it may would fail
        raise Wrong(figure)
    return figure

"""A stack that does not fit into memory is halved, and all its folds are trained."""

import gc

import torch

from experiments import fold, workers
from experiments.benchmarks.data import experiment
from experiments.benchmarks.gpu_check.check import NEEDS_A_GPU, Check, Skip, Wrong
from experiments.experiment import Experiment
from experiments.fold import train_stack
from experiments.results import Fold

SIZE = 32  # folds


def checks(cpu: bool) -> list[Check]:
    """The only check of this part."""
    return [Check(f"ststnet, {SIZE} folds in too little memory", lambda: is_halved(cpu))]


def is_halved(cpu: bool) -> str:
    """The sizes of the stacks that were tried, the first in too little memory."""
    if cpu:
        raise Skip(NEEDS_A_GPU)
    parsed = experiment("ststnet", "gpu", "--stacked=true", steps=2, folds=SIZE)
    own = workers.latest_experiment(parsed.job, parsed.config)  # the same object that `run_folds` uses
    folds = own.folds()[:SIZE]
    train_stack(own, folds[:2])  # allocates what every stack shares
    half, whole = (_allocated(own, folds[:size]) for size in (SIZE // 2, SIZE))
    tried = []

    def train_and_note(experiment: Experiment, stack: list[Fold]) -> list:
        tried.append(len(stack))
        return train_stack(experiment, stack)

    fold.train_stack = train_and_note
    own.cell.write_header(own.data.clips, own.yaml)
    _empty()
    torch.cuda.set_per_process_memory_fraction((half + whole) / 2 / torch.cuda.mem_get_info()[1])
    workers.run_folds(own.job, own.config, folds)
    figure = f"between {half / 1e6:.0f} and {whole / 1e6:.0f} MB: stacks of {', '.join(map(str, tried))}"
    missing = sum(not fold.is_done for fold in folds)
    if missing or tried[0] != SIZE or max(tried[1:], default=SIZE) >= SIZE:
        raise Wrong(f"{figure}; {missing} folds have no file")
    return figure


def _allocated(own: Experiment, folds: list[Fold]) -> int:
    """Peak bytes of a stack's tensors, without which it must fail; of what the allocator reserves it can spare some."""
    _empty()
    torch.cuda.reset_peak_memory_stats()
    train_stack(own, folds)
    return torch.cuda.max_memory_allocated()


def _empty() -> None:
    gc.collect()
    torch.cuda.empty_cache()

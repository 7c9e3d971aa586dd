"""A stack that does not fit is halved, and its folds end."""

import gc

import torch

from experiments import fold, workers
from experiments.benchmarks.data import experiment
from experiments.benchmarks.gpu_check.check import NEEDS_A_GPU, Check, Skip, Wrong
from experiments.experiment import Experiment
from experiments.fold import Slot, train_stack

SIZE = 32  # folds


def checks(cpu: bool) -> list[Check]:
    """The one."""
    return [Check(f"ststnet, {SIZE} folds in too little memory", lambda: is_halved(cpu))]


def is_halved(cpu: bool) -> str:
    """The stacks that were tried."""
    if cpu:
        raise Skip(NEEDS_A_GPU)
    parsed = experiment("ststnet", "gpu", "--stacked=true", steps=2, folds=SIZE)
    chosen = workers.latest_experiment(parsed.job, parsed.config)  # the very one that the folds are run with
    slots = [(fold, 0) for fold in list(chosen.data.folds)[:SIZE]]
    train_stack(chosen, slots[:2])  # what is only there once
    half, whole = (_reserved(chosen, slots[:size]) for size in (SIZE // 2, SIZE))
    tried = []

    def noted(experiment: Experiment, some: list[Slot]) -> list:
        tried.append(len(some))
        return train_stack(experiment, some)

    fold.train_stack = noted
    chosen.cell.describe(chosen.data.clips, chosen.yaml)
    _empty()
    torch.cuda.set_per_process_memory_fraction((half + whole) / 2 / torch.cuda.mem_get_info()[1])
    workers.run_folds(chosen.job, chosen.config, slots)
    figure = f"between {half / 1e6:.0f} and {whole / 1e6:.0f} MB: stacks of {', '.join(map(str, tried))}"
    missing = [fold for fold, seed in slots if not chosen.cell.file(seed, fold).exists()]
    if missing or tried[0] != SIZE or max(tried[1:], default=SIZE) >= SIZE:
        raise Wrong(f"{figure}; {len(missing)} folds have no file")
    return figure


def _reserved(chosen: Experiment, slots: list[Slot]) -> int:
    """Bytes that the allocator takes from the device at most."""
    _empty()
    torch.cuda.reset_peak_memory_stats()
    train_stack(chosen, slots)
    return torch.cuda.max_memory_reserved()


def _empty() -> None:
    gc.collect()
    torch.cuda.empty_cache()

"""How many folds a worker trains at once, and the work of a worker."""

import gc
from collections.abc import Sequence
from functools import lru_cache

import torch

from experiments.fold import Experiment, Slot
from experiments.jobs import Job
from mer.training.recorded_step import WARM_UP

ON_A_CPU = 8  # more gain AHMSA-Net a little and cost STSTNet much, whose maps then leave the caches
OF_MEMORY = 0.8  # part of the free memory that a stack may fill; the rest is for what grows in fragments


@lru_cache(maxsize=1)
def experiment(job: Job) -> Experiment:
    """A worker's experiment; jobs come cell by cell, so it keeps one."""
    return Experiment(job)


def share(chosen: Experiment, folds: int, workers: int) -> int:
    """How many folds are handed to a worker at once."""
    if not chosen.config.stacked:
        return 1
    if chosen.job.stack_size:
        return chosen.job.stack_size
    each = max(1, -(-folds // workers))
    return min(each, ON_A_CPU) if chosen.job.accelerator == "cpu" else each


def run_folds(job: Job, slots: Sequence[Slot]) -> dict[Slot, list[dict]]:
    """What a worker does: train folds, in stacks as large as memory allows, and write their files.

    Returns:
        The training curve of each fold that had no file yet.
    """
    chosen, curves = experiment(job), {}
    waiting = [(fold, seed) for fold, seed in slots if not chosen.cell.file(seed, fold).exists()]
    size = job.stack_size or (_fitting(chosen, waiting) if chosen.config.stacked and len(waiting) > 2 else 2)
    while waiting:
        try:
            curves |= chosen.run(waiting[:size])
        except torch.OutOfMemoryError:
            if not chosen.config.stacked or min(size, len(waiting)) <= 2:
                raise
            size = max(2, min(size, len(waiting)) // 2)
        else:
            waiting = waiting[size:]
            continue
        gc.collect()  # here the error, which holds the tensors, is gone
        torch.cuda.empty_cache()
    return curves


def _fitting(chosen: Experiment, slots: Sequence[Slot]) -> int:
    """Slots that fit into the free memory, from what two of them take in a few steps, the recorded one and tests."""
    if not torch.cuda.is_available():
        return ON_A_CPU
    chosen.train_stack(slots[:2], max_steps=1)  # what is only there once: the data, the libraries' own
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, (free, _) = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()
    chosen.train_stack(slots[:2], max_steps=WARM_UP + 2)
    each = (torch.cuda.max_memory_allocated() - before) / 2
    return max(2, int(OF_MEMORY * free / each))

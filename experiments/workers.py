"""Worker processes, one per device or core: how folds are spread over them, and what each does."""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from data_modules.processes import pool
from mer import InputError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from experiments.experiment import Experiment
    from experiments.jobs import Job
    from experiments.results import Fold

FEW = 8  # folds that are trained at once unmeasured; on a CPU also at most, as STSTNet's maps then leave the caches
OF_MEMORY = 0.8  # part of the free memory that a stack may fill; the rest is for what grows in fragments


def warm_up(modules: Sequence[str] = ("experiments.fold",)) -> None:
    """Start the process that workers are forked from; it imports what they need while the caller goes on."""
    pool.warm_up(modules)


def devices(asked: str | None, workers: int) -> tuple[str, ...]:
    """The devices that a sweep runs on, one worker each.

    Args:
        asked: ``cpu``, or GPU numbers separated by commas; by default all GPUs, or the CPU where there is none.
        workers: Processes on the CPU.

    Raises:
        InputError: If a GPU is not there.
    """
    import torch

    there = [str(number) for number in range(torch.cuda.device_count())]
    if asked == "cpu" or (not asked and not there):
        return ("cpu",) * workers
    wanted = asked.split(",") if asked else there
    missing = [number for number in wanted if number not in there]
    if missing:
        known = f"the GPUs here are {', '.join(there)}" if there else "there is no GPU here"
        raise InputError(f"device {', '.join(missing)} was asked for with DEVICES={asked}, but {known}; use cpu")
    return tuple(wanted)


def run(work: Callable, jobs: Sequence[tuple], devices: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Do ``work(*job)`` for every job on the devices, see ``pool.run``.

    Args:
        work: A function of a module; runs in a worker.
        jobs: Arguments of each call.
        devices: One worker each; ``cpu`` is one core, a number is that GPU.

    Returns:
        Index of a job and what it returned, or a ``Failure``, in the order in which they end.
    """
    return pool.run(work, jobs, [(bind_to_device, (device,)) for device in devices])


def bind_to_device(device: str, alone: bool = True) -> None:
    """Bind this process to one device, before it has used any; or to a CPU's core, if Lightning hands out the GPUs."""
    if alone:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # SLURM, or the user, may have chosen some; ours count these
        mine = visible.split(",")[int(device)] if visible and device != "cpu" else device
        os.environ["CUDA_VISIBLE_DEVICES"] = "" if device == "cpu" else mine
        os.environ["SLURM_JOB_NAME"] = "interactive"  # Lightning's word for a process that is no rank of a SLURM job
    import torch

    torch.set_num_threads(1)  # on a CPU a result must not depend on the number of threads


_latest: dict["Job", "Experiment"] = {}


def latest_experiment(job: "Job", config: "Namespace") -> "Experiment":
    """A worker's experiment, of a configuration that the parent has parsed; jobs come cell by cell, so it keeps one."""
    from experiments.experiment import Experiment

    if job not in _latest:
        _latest.clear()
        _latest[job] = Experiment(job, config)
    return _latest[job]


def folds_per_task(experiment: "Experiment", folds: int, workers: int) -> int:
    """How many folds are handed to a worker at once."""
    if not experiment.config.stacked:
        return 1
    if experiment.job.stack_size:
        return experiment.job.stack_size
    share = max(1, -(-folds // workers))
    return min(share, FEW) if experiment.job.accelerator == "cpu" else share


def run_folds(job: "Job", config: "Namespace", folds: Sequence["Fold"]) -> None:
    """What a worker does: train folds that have no file yet, in stacks as large as memory allows, and write them."""
    import torch

    from experiments.fold import run as train

    experiment = latest_experiment(job, config)
    stacked = experiment.config.stacked
    waiting = [fold for fold in folds if not fold.is_done]
    # To measure what few folds take would cost as much as to train them: if they do not fit, they are halved below.
    size = job.stack_size or (largest_stack(experiment, waiting) if len(waiting) > FEW else FEW)
    while waiting:
        try:
            train(experiment, waiting[:size])
        except torch.OutOfMemoryError:
            if not stacked or min(size, len(waiting)) <= 2:
                raise
            size = max(2, min(size, len(waiting)) // 2)
        else:
            waiting = waiting[size:]
        if torch.cuda.is_available():
            gc.collect()  # what was trained, or the error that holds its tensors, is gone here
            torch.cuda.empty_cache()


def fit(job: "Job", config: "Namespace", seeds: Sequence[int]) -> list[dict]:
    """What a worker does for a model: train it with all subjects; returns the weights of each seed."""
    from experiments.fold import fit

    return fit(latest_experiment(job, config), seeds)


def largest_stack(experiment: "Experiment", folds: Sequence["Fold"]) -> int:
    """Folds that fit into the free memory, from what two of them take in a few steps, the recorded one and tests."""
    import torch

    from experiments.fold import train_stack
    from mer.training.recorded_step import WARM_UP

    if not torch.cuda.is_available():
        return FEW
    train_stack(experiment, folds[:2], max_steps=1)  # what is only there once: the data, the libraries' own
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before, (free, _) = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()
    train_stack(experiment, folds[:2], max_steps=WARM_UP + 2)
    bytes_of_fold = (torch.cuda.max_memory_allocated() - before) / 2
    return max(2, int(OF_MEMORY * free / bytes_of_fold))

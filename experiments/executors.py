"""Spreads folds over worker processes, one per device or core."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from data_modules.processes import pool
from data_modules.processes.pool import Failure
from mer import InputError

__all__ = ["Failure", "devices", "run", "settle", "warm_up"]


def warm_up(modules: Sequence[str] = ("experiments.stacks",)) -> None:
    """Start the process that workers are forked from; it imports what they need while the caller goes on."""
    pool.warm_up(modules)


def devices(chosen: str | None, workers: int) -> tuple[str, ...]:
    """The devices that a sweep runs on, one worker each.

    Args:
        chosen: ``cpu``, or GPU numbers separated by commas; by default all GPUs, or the CPU where there is none.
        workers: Processes on the CPU.

    Raises:
        InputError: If a GPU is not there.
    """
    import torch

    there = [str(number) for number in range(torch.cuda.device_count())]
    if chosen == "cpu" or (not chosen and not there):
        return ("cpu",) * workers
    wanted = chosen.split(",") if chosen else there
    missing = [number for number in wanted if number not in there]
    if missing:
        found = f"the GPUs here are {', '.join(there)}" if there else "there is no GPU here"
        raise InputError(f"device {', '.join(missing)} was asked for with DEVICES={chosen}, but {found}; use cpu")
    return tuple(wanted)


def run(work: Callable, jobs: Sequence[tuple], devices: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Do ``work(*job)`` for every job on the devices, see ``workers.run``.

    Args:
        work: A function of a module; runs in a worker.
        jobs: Arguments of each call.
        devices: One worker each; ``cpu`` is one core, a number is that GPU.

    Returns:
        Index of a job and what it returned, or a ``Failure``, in the order in which they end.
    """
    return pool.run(work, jobs, [(settle, (device,)) for device in devices])


def settle(device: str, alone: bool = True) -> None:
    """Bind this process to one device, before it has used any; or to a CPU's core, if Lightning hands out the GPUs."""
    if alone:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # SLURM, or the user, may have chosen some; ours count these
        mine = visible.split(",")[int(device)] if visible and device != "cpu" else device
        os.environ["CUDA_VISIBLE_DEVICES"] = "" if device == "cpu" else mine
        os.environ["SLURM_JOB_NAME"] = "interactive"  # Lightning's word for a process that is no rank of a SLURM job
    import torch

    torch.set_num_threads(1)  # on a CPU a result must not depend on the number of threads

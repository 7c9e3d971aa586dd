"""What a job requests from SLURM, and the options for it. Imports nothing heavy."""

import argparse
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields

from mer import InputError


@dataclass(frozen=True)
class Request:
    """What each job requests; an empty string leaves the choice to the cluster.

    Attributes:
        partition: Name of a partition.
        time: Time limit in minutes or as ``hours:minutes:seconds`` or ``days-hours``. A job that reaches it is queued
            again and goes on.
        gpus: Number of GPUs, or type and number, ``a100:1``.
        memory: Memory of a node, ``16G``.
        account: Account that pays.
        cpus: Number of cores; without a GPU each core trains a fold.
        folds_per_job: Folds of a job; 0 for all of a cell and seed.
        print_only: Print the jobs instead of submitting them.
    """

    partition: str = ""
    time: str = "4:00:00"
    gpus: str = "0"
    memory: str = ""
    account: str = ""
    cpus: int = 1
    folds_per_job: int = 0
    print_only: bool = False

    @property
    def devices(self) -> str:
        """Devices of a job in the form of ``mer sweep --devices``."""
        return ",".join(map(str, range(int(self.gpus.split(":")[-1])))) or "cpu"

    @property
    def accelerator(self) -> str:
        return "cpu" if self.devices == "cpu" else "gpu"

    @property
    def directives(self) -> dict[str, str]:
        """Options of ``sbatch``."""
        gpus = "" if self.accelerator == "cpu" else f"gpu:{self.gpus}"
        optional = {"partition": self.partition, "account": self.account, "mem": self.memory, "gres": gpus}
        always = {"time": self.time, "cpus-per-task": str(self.cpus)}
        return {**always, **{name: value for name, value in optional.items() if value}}


def add_options(parser: argparse.ArgumentParser, positive: Callable[[str], int]) -> None:
    """Add the options of ``Request``; ``positive`` parses a whole number above 0."""
    parser.add_argument(
        "--launcher", choices=("local", "slurm"), default="local", help="train here (default) or submit SLURM jobs"
    )
    group = parser.add_argument_group("with --launcher slurm")
    group.add_argument("--partition", metavar="NAME", help="partition (default: the cluster's own)")
    group.add_argument("--time", type=_time, help="time limit of a job: minutes, h:mm:ss or d-hh (default 4:00:00)")
    group.add_argument("--gpus", type=_gpus, metavar="[TYPE:]N", help="GPUs of a job (default none)")
    group.add_argument("--cpus", type=positive, metavar="N", help="cores of a job (default 1)")
    group.add_argument("--memory", metavar="16G", help="memory of a job (default: the cluster's own)")
    group.add_argument("--account", metavar="NAME", help="who pays (default: your own)")
    group.add_argument("--folds-per-job", type=positive, metavar="N", help="default: all of a model and seed")
    group.add_argument("--print-only", action="store_true", default=None, help="print what would be submitted")


def read(options: argparse.Namespace) -> Request | None:
    """The request of the options; None for a sweep on this machine.

    Raises:
        InputError: If options contradict each other, or SLURM is not installed.
    """
    names = [field.name for field in fields(Request)]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.launcher == "local":
        for name in given:
            raise InputError(f"--{name.replace('_', '-')} is for jobs of a cluster; add --launcher slurm")
        return None
    if options.devices:
        raise InputError("--devices are those of this machine; with --launcher slurm say --gpus 1, or nothing for CPUs")
    if not given.get("print_only") and not all(map(shutil.which, ("sbatch", "srun", "squeue"))):
        raise InputError(
            "--launcher slurm: there is no SLURM here (no sbatch, srun, squeue); call it on a login node of the "
            "cluster, or print the jobs with --print-only and submit them there"
        )
    return Request(**given)


def minutes(time: str) -> int:
    """Minutes of a time as ``sbatch`` reads it.

    Raises:
        ValueError: If the text is no time.
    """
    days, dash, clock = time.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in [*parts, *([days] if dash else [])]) or len(parts) > 3:
        raise ValueError(f"'{time}' is no time like 90 (minutes), 4:00:00 or 1-12 (days and hours)")
    numbers = [int(part) for part in parts]
    if dash or len(numbers) == 3:
        hours, more, seconds = (*numbers, 0, 0)[:3]
    else:
        hours, (more, seconds) = 0, (*numbers, 0)[:2]
    return (int(days or 0) * 24 + hours) * 60 + more + (seconds > 0)


def _time(text: str) -> str:
    try:
        if minutes(text) > 0:
            return text
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    raise argparse.ArgumentTypeError(f"'{text}' leaves no time")


def _gpus(text: str) -> str:
    if not re.fullmatch(r"([\w.-]+:)?\d+", text):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of GPUs like 1 or a100:1")
    return text

"""`make bench`: seconds per fold and epoch, one by one and stacked, beside the least that the device allows.

All figures come from one run on one machine. Compare them with one another, not with those of other machines.
"""

import argparse
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from data_modules.processes.pool import Failure
from experiments import workers
from experiments.benchmarks import fold_speed, page, plain_script

MODELS = ("ststnet", "ahmsa_net", "hsta")


def in_a_worker(device: str, work: Callable, *arguments: object) -> Any:
    """Return ``work(*arguments)``, done in a new process with the settings of a sweep's worker."""
    ((_, outcome),) = workers.run(work, [arguments], [device])
    if isinstance(outcome, Failure):
        raise SystemExit(outcome.reason)
    return outcome


def main() -> None:
    """Measure and write ``docs/benchmarks.md`` and ``docs/bench.svg``."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--models", default=",".join(MODELS), help="comma-separated (default: all three)")
    parser.add_argument("--folds", default="1,4,16,68", help="sizes of the stack (default 1,4,16,68)")
    parser.add_argument("--passes", type=int, default=1, help="epochs to time (default 1)")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder to write into (default docs)")
    options = parser.parse_args()
    workers.warm_up(["experiments.benchmarks.plain_script"])
    models, sizes = options.models.split(","), [int(size) for size in options.folds.split(",")]
    measured, extras = {}, []
    if "ststnet" in models:
        extras += in_a_worker("cpu", plain_script.table, options.passes)
        extras.append(f"- Two workers on the CPU train {fold_speed.two_workers('ststnet'):.2f} times the folds of one.")
    for accelerator in ("cpu", "gpu") if torch.cuda.is_available() else ("cpu",):
        device, name = "cpu", f"{platform.machine()}, one thread"
        if accelerator == "gpu":
            device, name = "0", torch.cuda.get_device_name()
        rows = in_a_worker(device, fold_speed.measure, accelerator, models, sizes, options.passes)
        measured[f"{accelerator}, {name}, torch {torch.__version__}"] = rows
        for model in models if accelerator == "gpu" else ():
            steps, seconds = in_a_worker(device, fold_speed.whole, model)
            extras.append(f"- All 68 folds of {model}'s recipe, {steps} steps, as one program: {seconds:.0f} s.")
    page.write(options.docs, measured, extras)


if __name__ == "__main__":
    main()

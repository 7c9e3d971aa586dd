"""What `make bench` trains: the recipes, on noise with the shapes of the composite of MEGC 2019."""

import time
from collections.abc import Callable

import pandas as pd
import torch

from data_modules.base import FlowDataModule
from experiments.experiment import Experiment
from experiments.jobs import Job
from mer.models import Batch

CLIPS, SUBJECTS = 442, 68  # those of the composite of MEGC 2019
TRAINED = CLIPS - CLIPS // SUBJECTS  # clips of an epoch
LONG = 20  # seconds; longer work is not repeated


class Noise(FlowDataModule):
    """Noise with the shapes and the number of clips of the composite of MEGC 2019."""

    name = "noise"
    default_protocol = "megc2019"
    available_inputs = ("flow", "onset", "apex", "frames")
    path_arguments = ("root",)

    def read_clips(self) -> pd.DataFrame:
        rows = [("noise", f"s{clip % SUBJECTS:02}", f"c{clip}", self.classes[clip % 3]) for clip in range(CLIPS)]
        return pd.DataFrame(rows, columns=["dataset", "subject", "clip", "target"])

    def label(self, clips: pd.DataFrame, protocol: str = "") -> pd.DataFrame:
        return clips

    def source_files(self, clips: pd.DataFrame) -> dict[str, int]:
        return {}

    def load(self, clips: pd.DataFrame) -> Batch:
        draws, picture = torch.Generator().manual_seed(0), (3, self.input_size, self.input_size)
        shapes = {"flow": picture, "onset": picture, "apex": picture, "frames": (6, *picture)}
        tensors = {name: torch.randn(len(clips), *shapes[name], generator=draws) for name in self.inputs}
        return {name: x if name == "flow" else x.mul(50).add(128).byte() for name, x in tensors.items()}


def experiment(model: str, accelerator: str, *options: str, steps: int = 0, folds: int = 0) -> Experiment:
    """A model's quick recipe on noise.

    Args:
        model: Name of the model.
        accelerator: ``cpu`` or ``gpu``.
        *options: Options of ``mer train``.
        steps: Training steps; 0 for the recipe's own.
        folds: Size of a stack; 0 for ``auto``.
    """
    options = (*options, f"--trainer.max_steps={steps}") if steps else options
    return Experiment(Job(f"{__name__}.Noise", model, accelerator=accelerator, stack_size=folds, options=options))


def seconds(work: Callable[[], object], repeats: int = 2) -> float:
    """Seconds of the fastest of a few runs, or of the first that is ``LONG``; the work must wait for the device."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
        if times[-1] > LONG:
            break
    return min(times)

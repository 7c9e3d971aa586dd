"""Small models as ``mer fit`` writes them, trained in the process of the test."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from experiments import fold
from experiments.experiment import Experiment
from experiments.fitting.fit import _write
from experiments.jobs import Job

FEW = ("--trainer.max_steps=2", "--data.batch_size=4")
NETWORKS = {
    "ststnet": ("ststnet", ()),
    "ahmsa_net": ("ahmsa_net", ()),
    "hsta-flow": ("hsta", ("--data.input_size=34",)),
    "hsta-frames": ("hsta", ("--data.input_size=34", "--model.network.special=frames", "--model.network.stages=1")),
    "mfvan": ("mfvan", ("--model.first_stage_steps=2",)),
    "timm_baseline": ("timm_baseline", ("--model.network.name=test_resnet",)),
}
"""Recipe and options of each network; those of HSTA read special flow and special frames."""


def recipe(root: Path, cache: Path, network: str, *options: str, **others) -> Experiment:
    """A recipe of few steps on films, with its data prepared."""
    model, own = NETWORKS[network]
    experiment = Experiment(
        Job(others.pop("dataset", "synthetic"), model, root=str(root), cache=str(cache), results=str(cache / "results"),
            options=(*FEW, *own, *options), **others)
    )  # fmt: skip
    experiment.data.prepare_data()
    return experiment


def weights(experiment: Experiment, seeds: Sequence[int]) -> dict[int, dict[str, np.ndarray]]:
    """Weights of each seed, trained with all subjects, as a worker does it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return dict(zip(seeds, fold.fit(experiment, seeds), strict=True))
    finally:
        torch.set_num_threads(threads)


def write(folder: Path, experiment: Experiment, seeds: Sequence[int] = (0, 1)) -> dict[int, dict[str, np.ndarray]]:
    """Train a model and write its folder; returns its weights."""
    trained = weights(experiment, seeds)
    _write(folder, experiment, experiment.cell, trained)
    return trained


def write_untrained(folder: Path, experiment: Experiment, seeds: Sequence[int]) -> None:
    """Write the folder of a model whose seeds all have the weights that a network starts with."""
    state = {name: value.numpy() for name, value in experiment.instantiate().model.state_dict().items()}
    _write(folder, experiment, experiment.cell, dict.fromkeys(seeds, state))

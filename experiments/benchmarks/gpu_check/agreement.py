"""A recipe in float32 gives on the GPU what it gives on the CPU."""

import shutil
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.benchmarks.data import experiment
from experiments.benchmarks.gpu_check.check import Check, Wrong
from experiments.experiment import Experiment
from experiments.fold import Outcome, train, train_stack
from experiments.jobs import models

STEPS = 20
STACK = 4  # slots
NEAR = 1e-3  # a probability
# Two devices add up in another order, and so do two of a CPU's libraries. Training carries such a difference on: where
# a gradient is nearly nothing, AdamW makes a full step of its sign. How far that takes a recipe is measured here, by
# training it on the CPU with oneDNN's convolutions and with PyTorch's own; a GPU may be a few times as far, as its
# libraries round in more places.
TIMES = 4
FAR = 0.02  # but no further than this: what is wrong on a GPU, a kernel or a mask, is further
# Masks of dropout and drop-path come from the device, so there are none.
CALM = {
    "ahmsa_net": ("--model.network.dropout=0", "--model.network.drop_path=0", "--model.network.feature_dropout=0"),
    "hsta": ("--model.network.drop_path=0",),
    # At its own rates two roundings on a CPU are .01 apart after four steps.
    "mfvan": ("--model.first_stage_steps=4", "--model.first_stage_lr=1e-4", "--model.lr=1e-4"),
    "ststnet": ("--model.network.dropout=0",),
}


def checks(cpu: bool) -> list[Check]:
    """One for each model; on a CPU, whether a stack agrees with a fold alone."""
    torch.backends.cudnn.allow_tf32 = False  # on by default there, and off in products of matrices
    chosen = ("ststnet",) if cpu else models()
    return [Check(f"{model}, 32-true, {STEPS} steps", partial(agrees, model, cpu)) for model in chosen]


def agrees(model: str, cpu: bool) -> str:
    """The largest difference of a probability, alone and as a part of a stack."""
    device = "cpu" if cpu else "gpu"
    reference = alone(_experiment(model, "cpu", stacked=False))
    with torch.backends.mkldnn.flags(enabled=False):
        rounding = _apart(alone(_experiment(model, "cpu", stacked=False)), reference)
    bound = min(FAR, max(NEAR, TIMES * rounding))
    apart = {"alone": _apart(alone(_experiment(model, device, stacked=False)), reference)}
    if model != "mfvan":  # its first stage is trained fold by fold
        chosen = _experiment(model, device, stacked=True)
        slots = [(fold, 0) for fold in list(chosen.data.folds)[:STACK]]
        apart[f"in a stack of {STACK}"] = _apart(_probabilities(train_stack(chosen, slots)[0]), reference)
    figure = ", ".join(f"{value:.1e} {where}" for where, value in apart.items())
    figure += f" from the CPU's (bound {bound:.1e})"
    if not max(apart.values()) <= bound:  # nan is no agreement
        raise Wrong(figure)
    return figure


def alone(chosen: Experiment) -> NDArray[np.float64]:
    """Probabilities of the first fold's clips."""
    shutil.rmtree("cache", ignore_errors=True)  # else a first stage would be taken from there
    return _probabilities(train(chosen, next(iter(chosen.data.folds)), 0))


def _experiment(model: str, accelerator: str, stacked: bool) -> Experiment:
    options = (*CALM.get(model, ()), "--trainer.precision=32-true", f"--stacked={str(stacked).lower()}")
    return experiment(model, accelerator, *options, steps=STEPS)


def _probabilities(outcome: Outcome) -> NDArray[np.float64]:
    return outcome.predictions.filter(regex="^p_").to_numpy()


def _apart(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.abs(one - other).max())

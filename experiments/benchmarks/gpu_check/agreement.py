"""A recipe in float32 gives the same probabilities on the GPU as on the CPU, within rounding."""

import shutil
from functools import partial
from inspect import signature

import numpy as np
import torch
from numpy.typing import NDArray

from experiments.benchmarks.data import experiment
from experiments.benchmarks.gpu_check.check import Check, Wrong
from experiments.experiment import Experiment
from experiments.fold import Outcome, train, train_stack
from experiments.jobs import load_class, models

STEPS = 20
STACK = 4  # slots
NEAR = 1e-3  # difference of a probability that is always allowed
# Devices, and a CPU's libraries, add numbers in different orders. Training amplifies such a difference: where a
# gradient is nearly 0, AdamW makes a full step in the direction of its sign. How much depends on the recipe and is
# measured here: it is trained on the CPU with oneDNN's convolutions and with PyTorch's own. A GPU's libraries round in
# more places, so it may differ by a few times as much.
TIMES = 4
FAR = 0.02  # difference that is never allowed; an error in a kernel or a mask gives more
# With its own learning rates the two CPU libraries differ by .01 after four steps.
GENTLE = {"mfvan": ("--model.first_stage_steps=4", "--model.first_stage_lr=1e-4", "--model.lr=1e-4")}


def checks(cpu: bool) -> list[Check]:
    """A check for each model; on a CPU, whether a stack agrees with a fold alone."""
    torch.backends.cudnn.allow_tf32 = False  # PyTorch's default is True for convolutions, False for matrix products
    names = ("ststnet",) if cpu else models()
    return [Check(f"{model}, 32-true, {STEPS} steps", partial(agrees, model, cpu)) for model in names]


def agrees(model: str, cpu: bool) -> str:
    """The largest difference of a probability from the CPU's, of a fold alone and in a stack."""
    device = "cpu" if cpu else "gpu"
    reference = alone(_experiment(model, "cpu", stacked=False))
    with torch.backends.mkldnn.flags(enabled=False):
        rounding = _apart(alone(_experiment(model, "cpu", stacked=False)), reference)
    bound = min(FAR, max(NEAR, TIMES * rounding))
    apart = {"alone": _apart(alone(_experiment(model, device, stacked=False)), reference)}
    if model != "mfvan":  # its first stage is trained fold by fold
        recipe = _experiment(model, device, stacked=True)
        stacked, *_ = train_stack(recipe, recipe.folds()[:STACK])
        apart[f"in a stack of {STACK}"] = _apart(_probabilities(stacked), reference)
    figure = ", ".join(f"{value:.1e} {where}" for where, value in apart.items())
    figure += f" from the CPU's (bound {bound:.1e})"
    if not max(apart.values()) <= bound:  # also fails for nan
        raise Wrong(figure)
    return figure


def alone(recipe: Experiment) -> NDArray[np.float64]:
    """Probabilities (clips, classes) of the first fold, trained alone."""
    shutil.rmtree("cache", ignore_errors=True)  # which may hold the first stage of another device
    return _probabilities(train(recipe, recipe.folds()[0]))


def _experiment(model: str, accelerator: str, stacked: bool) -> Experiment:
    network = experiment(model, "cpu").config.model.init_args.network
    # Masks are left out, as they come from the random numbers of the device.
    masks = (
        f"--model.network.{name}=0" for name in signature(load_class(network.class_path)).parameters if "drop" in name
    )
    options = (*masks, *GENTLE.get(model, ()), "--trainer.precision=32-true", f"--stacked={str(stacked).lower()}")
    return experiment(model, accelerator, *options, steps=STEPS)


def _probabilities(outcome: Outcome) -> NDArray[np.float64]:
    return outcome.predictions.filter(regex="^p_").to_numpy()


def _apart(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return float(np.abs(first - second).max())

"""Every model trains and tests a fold, one by one and stacked, in both precisions."""

import warnings
from functools import partial

import numpy as np

from experiments.benchmarks.data import experiment
from experiments.benchmarks.gpu_check.check import Check, Wrong
from experiments.fold import train, train_stack
from experiments.jobs import models
from mer.training.recorded_step import WARM_UP

NOT_STACKED = ("mfvan",)  # its first stage is trained fold by fold
WAYS = ("one by one", "stacked")
PRECISIONS = ("32-true", "bf16-mixed")
SMALL = {  # options on a CPU
    "hsta": ("--data.input_size=32",),
    "mfvan": ("--model.first_stage_steps=1",),
    "timm_baseline": ("--model.network.name=test_resnet",),
}


def checks(cpu: bool) -> list[Check]:
    """A check for each model, way to train and precision."""
    return [
        Check(f"{model}, {WAYS[stacked]}, {precision}", partial(trains, model, stacked, precision, cpu))
        for model in models()
        for stacked in ((False,) if model in NOT_STACKED else (False, True))
        for precision in PRECISIONS
    ]


def trains(model: str, stacked: bool, precision: str, cpu: bool) -> str:
    """Train a few steps, on a GPU also steps recorded as a CUDA graph; the figure is the number of tested clips."""
    warnings.filterwarnings("error", message="the step cannot be recorded")
    clips = 32 if stacked else 2  # on a CPU a stack of smaller batches is filled with more slots
    options = (f"--data.batch_size={clips}", *SMALL.get(model, ())) if cpu else ()
    options = (*options, f"--stacked={str(stacked).lower()}", f"--trainer.precision={precision}")
    recipe = experiment(model, "cpu" if cpu else "gpu", *options, steps=1 if cpu else WARM_UP + 3)
    folds = recipe.folds()[: 2 if stacked else 1]
    outcomes = train_stack(recipe, folds) if stacked else [train(recipe, fold) for fold in folds]
    for fold, outcome in zip(folds, outcomes, strict=True):
        clips, probabilities = len(recipe.data.folds[fold.name]), outcome.predictions.filter(regex="^p_").to_numpy()
        if len(probabilities) != clips:
            raise Wrong(f"{len(probabilities)} predictions for the {clips} clips of {fold.name}")
        if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-4):  # of nan, too
            raise Wrong(f"the probabilities of {fold.name} do not sum to 1: {probabilities.sum(axis=1).tolist()}")
    return f"{sum(len(outcome.predictions) for outcome in outcomes)} clips tested"

"""Trials of a W&B sweep agent: what they may choose by."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_modules.protocols import is_inner
from mer import InputError

if TYPE_CHECKING:
    from experiments.experiment import Experiment


def is_trial() -> bool:
    """Whether a W&B sweep agent has started this process."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def check_trial(experiments: Sequence["Experiment"], seeds: Sequence[int]) -> None:
    """Refuse a trial whose objective would not be a score on inner subjects.

    Raises:
        InputError: With what to change in the command of the search.
    """
    if len(experiments) != 1 or len(seeds) != 1:
        raise InputError("a trial of a W&B search is one model and one seed; name them with --model and --seeds")
    data = experiments[0].data
    if not is_inner(data.split):
        raise InputError(
            f"a W&B search may not choose by the subjects that test the result, and split '{data.split}' leaves out no "
            f"outer fold. Name one, e.g. --data.split={data.split}-without-{next(iter(data.folds))}"
        )

"""Trials of a W&B search: sweeps that an agent of W&B starts."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mer import InputError

if TYPE_CHECKING:
    from experiments.experiment import Experiment


def is_trial() -> bool:
    """Whether an agent of a W&B search has started this process, which is then a trial: one run, with a given id."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def check_trial(experiments: Sequence["Experiment"], seeds: Sequence[int]) -> None:
    """Refuse a trial whose objective would not be a score on inner subjects.

    Raises:
        InputError: With what to change in the command of the search.
    """
    if len(experiments) != 1 or len(seeds) != 1:
        raise InputError("a trial of a W&B search is one model and one seed; name them with --model and --seeds")
    data = experiments[0].data
    if not data.outer_fold:
        raise InputError(
            "a W&B search may not choose by the subjects that test the result, and these data leave out no outer fold. "
            f"Name one, e.g. --data.outer_split={data.split} --data.outer_fold={next(iter(data.folds))}"
        )

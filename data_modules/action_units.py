"""Action units that people have coded: what a clip's code says, and what the clips of a fold teach."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from mer import InputError

if TYPE_CHECKING:
    from torch import Tensor

FEWEST = 5
"""Training clips that must have an action unit, for a network to learn it."""


def parse(code: str) -> frozenset[int]:
    """The numbers in a code, ``4+L7B``: sides and intensities do not count. None in ``?``, a code not known."""
    return frozenset(int(number) for number in re.findall(r"\d+", code))


def training_targets(clips: pd.DataFrame, train_rows: Sequence[int]) -> "Tensor":
    """What a fold's training clips teach of ``ACTION_UNITS``: (N, U), 1 for a unit that a clip has, 0 for the others.

    It is -1, left out, for all units of a clip that is not trained on or has no code, and for every unit that fewer
    than ``FEWEST`` training clips have.

    Args:
        clips: Clip table, N rows; without a column ``action_units`` it has no codes.
        train_rows: Rows of the clips that the fold trains on.
    """
    import torch

    from mer.training.action_units import ACTION_UNITS

    codes = clips["action_units"].tolist() if "action_units" in clips else [""] * len(clips)
    coded = {row: units for row in train_rows if (units := parse(codes[row]))}
    counts = Counter(unit for units in coded.values() for unit in units)
    targets = torch.full((len(clips), len(ACTION_UNITS)), -1.0, dtype=torch.float32)
    for place, unit in enumerate(ACTION_UNITS):
        if counts[unit] >= FEWEST:
            targets[list(coded), place] = torch.tensor([float(unit in units) for units in coded.values()])
    return targets


def check_coded(clips: pd.DataFrame) -> None:
    """Complain of data that have nothing to learn.

    Raises:
        InputError: If no action unit is coded in ``FEWEST`` clips.
    """
    if (training_targets(clips, range(len(clips))) < 0).all():
        raise InputError(
            f"--model.action_units: no action unit is coded in {FEWEST} of the {len(clips)} clips. They are "
            "read from the sheets of CASME II, SAMM and CAS(ME)^3, and from the column action_units of a clips.csv; "
            "leave the option away for data without them"
        )

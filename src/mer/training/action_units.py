"""Action units as an auxiliary task: a network's last layer gets an output for each, on the features of the classes."""

import torch.nn.functional as F
from torch import Tensor

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 16, 17, 18, 20, 24, 25, 26, 28, 38, 39, 43)
"""Those of FACS (Ekman and Friesen, 1978) that five clips or more of CASME II, SAMM or CAS(ME)^3 have. All folds have
these outputs, so that folds can be stacked."""


def network_outputs(classes: int, weight: float) -> int:
    """Logits of a network for so many classes whose loss has action units with this weight."""
    return classes + len(ACTION_UNITS) * bool(weight)


def action_unit_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy, averaged over the clips whose action units are known; 0 if there are none.

    Args:
        logits: Shape (B, U), an output for each of ``ACTION_UNITS``.
        targets: Shape (B, U), float: 1 where a clip has the action unit, 0 where it has not, -1 where it is left out.
    """
    known = targets >= 0
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets.clamp(min=0), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)

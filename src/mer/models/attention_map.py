"""What the attention of more than one architecture shares."""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def overlay(maps: list[Tensor], size: int) -> Tensor:
    """Average attention maps of several sizes on the grid of the input.

    Args:
        maps: Attention maps, each of shape (B, h, w).
        size: Height and width S of the input.

    Returns:
        One map per clip, shape (B, S, S), from 0 to 1: each map scaled to that range within the clip, averaged, and
        scaled again; all 0 where every position is alike.
    """
    grown = [F.interpolate(unit(one.float())[:, None], (size, size), mode="bilinear")[:, 0] for one in maps]
    return unit(torch.stack(grown).mean(0))


def unit(maps: Tensor) -> Tensor:
    """Scale every map of a batch (B, h, w) to the range 0 to 1."""
    lowest, highest = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - lowest) / (highest - lowest).clamp(min=1e-12)

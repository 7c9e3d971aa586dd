"""Attention maps on the grid of a network's input."""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def average_maps(maps: list[Tensor], size: int) -> Tensor:
    """Average attention maps of several sizes on the grid of the input.

    Args:
        maps: Attention maps, each of shape (B, h, w).
        size: Height and width S of the input.

    Returns:
        One map per clip, shape (B, S, S) in [0, 1]: each map is rescaled and resized, and the average is rescaled
        again; all 0 where every position is alike.
    """
    resized = [F.interpolate(rescale(x.float())[:, None], (size, size), mode="bilinear")[:, 0] for x in maps]
    return rescale(torch.stack(resized).mean(0))


def rescale(maps: Tensor) -> Tensor:
    """Scale each map of a batch (B, h, w) linearly to the range from 0 to 1."""
    lowest, highest = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - lowest) / (highest - lowest).clamp(min=1e-12)


def patch_map(weights: Tensor, patch: int, size: int) -> Tensor:
    """Weights of patches (B, N), averaged over time, at the pixels of each patch, (B, S, S); 0 at pixels not read."""
    side = size // patch
    squares = rescale(weights.unflatten(1, (-1, side, side)).mean(1))  # (B, side, side)
    squares = squares.repeat_interleave(patch, 1).repeat_interleave(patch, 2)
    return F.pad(squares, (0, size - side * patch, 0, size - side * patch))

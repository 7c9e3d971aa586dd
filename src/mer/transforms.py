"""The inputs of the networks: normalised flow maps and pictures, mirror images, shifts, resampling."""

from functools import cache

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.nn.functional import interpolate

REVISION = 2
"""Part of every digest: raised by hand when a change here gives other inputs from the same flow and pictures."""

FAINTEST = 0.05
"""Least motion in pixels to divide by: weaker motion is noise."""


def normalise_flow(flow: Tensor) -> Tensor:
    """Scale each flow map to one range, for all clips, cameras and files.

    The median motion is subtracted, so that 0 is a face at rest for any drift of the head or offset in a file; motion
    and strain are each divided by their 95th percentile.

    Args:
        flow: u, v and strain of one or more maps, shape (..., 3 maps, H, W), in pixels or in any other unit.

    Returns:
        The same shape, without unit: strong motion and strain are about 1.
    """
    maps = flow.unflatten(-3, (-1, 3)).flatten(-2)
    motion, strain = maps[..., :2, :], maps[..., 2:, :]
    motion = motion - motion.median(dim=-1, keepdim=True).values
    strong = max(1, motion.shape[-1] // 20)  # pixels; the weakest of them is the 95th percentile
    lengths = motion.square().sum(dim=-2, keepdim=True).sqrt()
    motion = motion / lengths.topk(strong, sorted=False).values.amin(-1, keepdim=True).clamp(min=FAINTEST)
    strain = strain / strain.topk(strong, sorted=False).values.amin(-1, keepdim=True).clamp(min=FAINTEST / 10)
    return torch.cat([motion, strain], dim=-2).view_as(flow)


def normalise_pictures(pictures: Tensor) -> Tensor:
    """Pictures (..., 3, H, W), uint8 RGB, normalised as float32 by the mean and standard deviation of ImageNet."""
    mean, deviation = _imagenet(pictures.device)
    return (pictures - mean) / deviation


@cache
def _imagenet(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation (3, 1, 1) in 0..255; kept, because the host waits when it sends them to a GPU."""
    constants = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    mean, deviation = (torch.tensor(values, device=device).view(3, 1, 1) * 255 for values in constants)
    return mean, deviation


def mirror_flow(flow: Tensor) -> Tensor:
    """Flow maps (..., 3 maps, H, W) of the mirrored clips: columns reversed and u negated."""
    u, v_and_strain = flow.flip(-1).unflatten(-3, (-1, 3)).split([1, 2], dim=-3)
    return torch.cat([-u, v_and_strain], dim=-3).view_as(flow)


def mirror_pictures(pictures: Tensor) -> Tensor:
    """The mirror image of pictures (..., H, W)."""
    return pictures.flip(-1)


def shift(maps: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Shift the maps of each clip, (B, ..., H, W), by whole pixels (B,) down and right; the border is repeated."""
    height, width = maps.shape[-2:]
    rows = (torch.arange(height, device=maps.device) - down[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=maps.device) - right[:, None]).clamp(0, width - 1)
    clips = torch.arange(len(maps), device=maps.device)
    pixels = maps.flatten(1, -3).permute(0, 2, 3, 1)[clips[:, None, None], rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2).reshape(maps.shape)


def resize(maps: Tensor, size: int) -> Tensor:
    """Resample maps (..., C, h, w) to (..., C, size, size), reduced by averages over areas; unit and type stay."""
    if maps.shape[-2:] == (size, size):
        return maps
    mode = "area" if min(maps.shape[-2:]) >= size else "bilinear"
    resized = interpolate(maps.reshape(-1, 1, *maps.shape[-2:]).float(), (size, size), mode=mode)
    resized = resized if maps.is_floating_point() else resized.round()
    return resized.to(maps.dtype).view(*maps.shape[:-2], size, size)


PICTURES = ("onset", "apex", "frames")

MIRRORS = {"flow": mirror_flow, "depth": mirror_pictures, **dict.fromkeys(PICTURES, mirror_pictures)}
"""The function that mirrors each input of a network."""

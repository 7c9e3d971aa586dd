"""AHMSA-Net: Adaptive Hierarchical Multi-Scale Attention Network on flow maps (Zhang et al., arXiv 2501.02539, 2025).

Feature maps keep their channels last, (B, H, W, C), as layer norms and linear layers want them.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerScale, Mlp
from torch import Tensor, nn

from mer.models import Network
from mer.models.attention_map import overlay


def cells(x: Tensor, side: int) -> Tensor:
    """Means over square cells of a map (B, H, W, C), (B, H / side, W / side, C)."""
    return x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).mean((2, 4)) if side > 1 else x


class ChannelGate(nn.Module):
    """Channel attention as a gate: one MLP reads the average and the maximum over positions; their sum is squashed.

    Args:
        width: Channels C.
        reduction: Factor by which the MLP's hidden layer is narrower.
    """

    def __init__(self, width: int, reduction: int):
        super().__init__()
        self.mlp = Mlp(width, max(width // reduction, 4), act_layer=nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.mlp(x.mean((1, 2))) + self.mlp(x.amax((1, 2))))
        return x * gate[:, None, None]


class TransposedAttention(nn.Module):
    """Channel attention across channels: every channel is a token, its values over all positions are its features.

    Args:
        width: Channels C.
        heads: Groups of channels that attend to one another.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).flatten(1, 2).unflatten(2, (3, self.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 4, 1)  # each (B, heads, C / heads, H W)
        weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        mixed = weights.softmax(-1) @ v
        return self.project(mixed.flatten(1, 2).transpose(1, 2)).view_as(x)


class SpatialGate(nn.Module):
    """Spatial attention as a gate, for maps with too many positions to compare all pairs.

    Args:
        kernel: Side of the convolution over the average and the maximum of the channels; odd.
    """

    def __init__(self, kernel: int):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the positions; returns the features and the gate, (B, H, W)."""
        gate = torch.sigmoid(self.conv(torch.stack([x.mean(-1), x.amax(-1)], dim=1)))[:, 0]
        return x * gate[..., None], gate


class SpatialAttention(nn.Module):
    """Spatial attention as multi-head self-attention; on large maps keys and values are averages of cells.

    Args:
        width: Channels C.
        heads: Heads.
        cell: Side of the square of positions that shares a key and a value.
    """

    def __init__(self, width: int, heads: int, cell: int):
        super().__init__()
        self.heads, self.cell = heads, cell
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the positions; returns the features and how much attention each cell receives, (B, H/cell, W/cell)."""
        _, height, width, channels = x.shape
        q = self.query(x).flatten(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2)
        key_value = self.key_value(cells(x, self.cell)).flatten(1, 2)
        k, v = key_value.unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q * (self.heads / channels) ** 0.5 @ k.transpose(-2, -1)).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        received = weights.mean((1, 2)).unflatten(1, (height // self.cell, width // self.cell))
        return self.project(mixed).view_as(x), received


class MultiScaleAttention(nn.Module):
    """The paper's block: channel attention, spatial attention, feed-forward, each after a layer norm and added back.

    Args:
        width: Channels C.
        channel: The channel attention.
        spatial: The spatial attention; also returns its map.
        ratio: Factor by which the feed-forward's hidden layer is wider.
        layer_scale: First factor of what each part adds (Touvron et al., ICCV 2021).
        drop_path: Probability of skipping a part.
    """

    def __init__(
        self, width: int, channel: nn.Module, spatial: nn.Module, ratio: float, layer_scale: float, drop_path: float
    ):
        super().__init__()
        self.channel_norm, self.channel = nn.LayerNorm(width), channel
        self.spatial_norm, self.spatial = nn.LayerNorm(width), spatial
        self.ffn_norm, self.ffn = nn.LayerNorm(width), Mlp(width, int(width * ratio))
        self.scales = nn.ModuleList(LayerScale(width, layer_scale) for _ in range(3))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        of_channels, of_positions, of_ffn = self.scales
        x = x + self.drop_path(of_channels(self.channel(self.channel_norm(x))))
        spatial, attention = self.spatial(self.spatial_norm(x))
        x = x + self.drop_path(of_positions(spatial))
        return x + self.drop_path(of_ffn(self.ffn(self.ffn_norm(x)))), attention


class AdaptiveDownsampling(nn.Module):
    """Halves a map: means, and added to them a mix of mean, maximum and strided convolution that each input chooses.

    Args:
        width: Channels of the finer level.
        wider: Channels of the coarser level; the means have 0 in those beyond ``width``.
        layer_scale: First factor of the mix.
    """

    def __init__(self, width: int, wider: int, layer_scale: float):
        super().__init__()
        self.new = wider - width
        self.choice = nn.Linear(width, 3)
        self.project = nn.Linear(width, wider)
        self.conv = nn.Conv2d(width, wider, 3, stride=2, padding=1)
        self.scale = LayerScale(wider, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        average, maximum, strided = self.choice(x.mean((1, 2))).softmax(-1)[..., None, None, None].unbind(1)
        means, channels_first = cells(x, 2), x.permute(0, 3, 1, 2)
        mixed = self.project(average * means + maximum * F.max_pool2d(channels_first, 2).permute(0, 2, 3, 1))
        mixed = mixed + strided * self.conv(channels_first).permute(0, 2, 3, 1)
        return F.pad(means, (0, self.new)) + self.scale(mixed)


class AHMSANet(Network):
    """Levels of multi-scale attention blocks at ever coarser sizes, with adaptive downsampling between them.

    Published: input of horizontal flow, vertical flow and strain; a hierarchy that changes the size of the feature map
    at each level; blocks of channel attention, spatial attention and feed-forward, each with a layer norm before it;
    cross-entropy; the number of blocks and the batch size matter.
    Our choice, the paper being silent: 28x28 input; two levels, 14 and 7 pixels; both channel attentions;
    self-attention up to ``attend`` pixels and a gate above; all widths, depths and rates. The first three channels of
    every level are the flow map itself, averaged, to which blocks and downsampling add little at first: some hundred
    clips do not teach a network more about motion than that, and the amplitude that layer norms hide stays. Channels
    beyond, if any, come from a stem of conv3x3, ReLU and batch norm. A hidden layer reads the coarsest level whole,
    since in an aligned face the place of a motion tells the emotion.

    Args:
        num_classes: Classes K of the protocol.
        size: Height and width S of the flow map in pixels.
        finest: Side of the first level in pixels, to which the flow map is averaged; halved between levels.
        widths: Channels of each level, 3 of them the flow map; none narrower than the one before.
        depths: Blocks of each level.
        heads: Attention heads of each level.
        channel: Channel attention: ``gate`` or ``transposed``.
        reduction: Factor by which the channel gate's hidden layer is narrower.
        kernel: Side of the spatial gate's convolution; odd.
        ratio: Factor by which the feed-forward's hidden layer is wider.
        attend: Largest map, in pixels, with spatial self-attention; larger ones have a spatial gate.
        keys: Largest side of the grid of keys and values in spatial self-attention.
        hidden: Width of the hidden layer.
        layer_scale: First factor of what attention, feed-forward and downsampling add.
        drop_path: Probability of skipping a part of a block.
        feature_dropout: Probability of dropping a value of the coarsest level before the hidden layer.
        dropout: Probability of dropping a value of the hidden layer.

    Raises:
        ValueError: If the arguments do not fit one another or the size.
    """

    shows_attention = True
    revision = 3  # a correction of the flow map, read by a hidden layer

    def __init__(
        self,
        num_classes: int,
        size: int = 28,
        finest: int = 14,
        widths: tuple[int, ...] = (3, 3),
        depths: tuple[int, ...] = (1, 1),
        heads: tuple[int, ...] = (1, 1),
        channel: Literal["gate", "transposed"] = "gate",
        reduction: int = 4,
        kernel: int = 3,
        ratio: float = 2.0,
        attend: int = 14,
        keys: int = 7,
        hidden: int = 256,
        layer_scale: float = 0.01,
        drop_path: float = 0.3,
        feature_dropout: float = 0.2,
        dropout: float = 0.5,
    ):
        super().__init__()
        if not len(widths) == len(depths) == len(heads) > 0:
            raise ValueError(
                f"AHMSA-Net needs one width, depth and number of heads per level, not widths={tuple(widths)}, "
                f"depths={tuple(depths)}, heads={tuple(heads)}"
            )
        if min(depths) < 1:
            raise ValueError(f"AHMSA-Net needs at least one block in every level, not depths={tuple(depths)}")
        if list(widths) != sorted(widths) or widths[0] < FLOW:
            raise ValueError(f"AHMSA-Net's levels are at least {FLOW} wide and never narrow, not {tuple(widths)}")
        if finest < 1 or size % finest:
            raise ValueError(f"AHMSA-Net's flow map of {size} pixels is no multiple of finest={finest}")
        halvings = 2 ** (len(widths) - 1)
        if finest % halvings:
            raise ValueError(f"AHMSA-Net of {len(widths)} levels needs finest divisible by {halvings}, not {finest}")
        for width, count in zip(widths, heads, strict=True):
            if count < 1 or width % count:
                raise ValueError(f"AHMSA-Net cannot split {width} channels among {count} heads")
        if channel not in ("gate", "transposed"):
            raise ValueError(f"AHMSA-Net's channel attention is 'gate' or 'transposed', not {channel!r}")
        if kernel % 2 == 0:
            raise ValueError(f"AHMSA-Net's spatial gate needs an odd kernel, not {kernel}")
        self.cell = size // finest
        new = widths[0] - FLOW
        self.stem = nn.Sequential(nn.Conv2d(FLOW, new, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(new)) if new else None
        self.levels = nn.ModuleList()
        for level, (width, depth, count) in enumerate(zip(widths, depths, heads, strict=True)):
            side = finest // 2**level
            cell = next(c for c in range(1, side + 1) if side % c == 0 and side // c <= keys)
            blocks = nn.ModuleList()
            for _ in range(depth):
                across = ChannelGate(width, reduction) if channel == "gate" else TransposedAttention(width, count)
                spatial = SpatialAttention(width, count, cell) if side <= attend else SpatialGate(kernel)
                blocks.append(MultiScaleAttention(width, across, spatial, ratio, layer_scale, drop_path))
            self.levels.append(blocks)
        self.downsamplings = nn.ModuleList(
            AdaptiveDownsampling(width, wider, layer_scale) for width, wider in zip(widths, widths[1:], strict=False)
        )
        self.classifier = Mlp(widths[-1] * (finest // halvings) ** 2, hidden, num_classes, drop=(dropout, 0.0))
        self.dropout = nn.Dropout(feature_dropout)

    def forward(self, flow: Tensor, attention: bool = False) -> dict[str, Tensor]:
        """Classify flow maps.

        Args:
            flow: u, v and strain, scaled, shape (B, 3, S, S).
            attention: Also return where the network looked.

        Returns:
            ``logits`` of shape (B, K); with ``attention`` also ``attention``, shape (B, S, S) in [0, 1]: the overlay of
            the spatial attention of all blocks.
        """
        x = flow if self.stem is None else torch.cat([flow, self.stem(flow)], dim=1)
        x, maps = cells(x.permute(0, 2, 3, 1), self.cell), []
        for level, blocks in enumerate(self.levels):
            if level:
                x = self.downsamplings[level - 1](x)
            for block in blocks:
                x, looked = block(x)
                maps.append(looked)
        outputs = {"logits": self.classifier(self.dropout(x.flatten(1)))}
        if attention:
            outputs["attention"] = overlay(maps, flow.shape[-1])
        return outputs


FLOW = 3
"""Channels of a flow map: u, v and strain."""

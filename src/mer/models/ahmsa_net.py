"""AHMSA-Net: Adaptive Hierarchical Multi-Scale Attention Network on flow maps (Zhang et al., arXiv 2501.02539, 2025).

Feature maps are (B, H, W, C), channels last, as layer norms and linear layers want them.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath, LayerScale, Mlp
from torch import Tensor, nn

from mer.models import Network
from mer.models.attention_map import average_maps


def average_pool(x: Tensor, side: int) -> Tensor:
    """Average pooling over squares of ``side`` pixels: (B, H, W, C) becomes (B, H / side, W / side, C)."""
    return x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).mean((2, 4)) if side > 1 else x


class ChannelGate(nn.Module):
    """Channel attention as a gate: the sigmoid of one MLP's outputs for the channels' averages and maxima, summed.

    Args:
        width: Channels C.
        reduction: Factor by which the MLP's hidden layer is narrower.
    """

    def __init__(self, width: int, reduction: int):
        super().__init__()
        self.mlp = Mlp(width, max(width // reduction, 4), act_layer=nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.mlp(x.mean((1, 2))) + self.mlp(x.amax((1, 2))))  # (B, H, W, C) -> (B, C)
        return x * gate[:, None, None]  # (B, H, W, C)


class TransposedAttention(nn.Module):
    """Self-attention between channels: a channel is a token, its values at all positions are its features.

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
        qkv = self.qkv(x).flatten(1, 2).unflatten(2, (3, self.heads, -1))  # (B, H W, 3, heads, C / heads)
        q, k, v = qkv.permute(2, 0, 3, 4, 1)  # (B, heads, C / heads, H W) each
        weights = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)  # (B, heads, C / heads, C / heads)
        mixed = (weights * self.temperature).softmax(-1) @ v  # (B, heads, C / heads, H W)
        return self.project(mixed.flatten(1, 2).transpose(1, 2)).view_as(x)  # (B, H, W, C)


class SpatialGate(nn.Module):
    """Spatial attention as a gate, for maps with too many positions for self-attention.

    Args:
        kernel: Side of the convolution over the average and the maximum of the channels; odd.
    """

    def __init__(self, kernel: int):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Weigh the positions; returns the features (B, H, W, C) and the gate (B, H, W)."""
        pooled = torch.stack([x.mean(-1), x.amax(-1)], dim=1)  # (B, 2, H, W)
        gate = torch.sigmoid(self.conv(pooled))[:, 0]  # (B, H, W)
        return x * gate[..., None], gate


class SpatialAttention(nn.Module):
    """Spatial attention as multi-head self-attention; on large maps keys and values are averages over squares.

    Args:
        width: Channels C.
        heads: Heads.
        cell: Side of the square of positions that share a key and a value.
    """

    def __init__(self, width: int, heads: int, cell: int):
        super().__init__()
        self.heads, self.cell = heads, cell
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the positions; returns the features (B, H, W, C) and the attention on each cell, (B, H/cell, W/cell)."""
        _, height, width, channels = x.shape
        q = self.query(x).flatten(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, H W, C / heads)
        key_value = self.key_value(average_pool(x, self.cell)).flatten(1, 2)  # (B, N, 2 C), N cells
        k, v = key_value.unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, heads, N, C / heads) each
        weights = (q * (self.heads / channels) ** 0.5 @ k.transpose(-2, -1)).softmax(-1)  # (B, heads, H W, N)
        mixed = (weights @ v).transpose(1, 2).flatten(2)  # (B, H W, C)
        received = weights.mean((1, 2)).unflatten(1, (height // self.cell, width // self.cell))
        return self.project(mixed).view_as(x), received


class MultiScaleAttention(nn.Module):
    """The paper's block: channel attention, spatial attention, feed-forward, each after a layer norm and added back.

    Args:
        width: Channels C.
        channel: The channel attention.
        spatial: The spatial attention; also returns its attention map.
        ratio: Factor by which the feed-forward's hidden layer is wider.
        layer_scale: Initial factor on the output of each part (Touvron et al., ICCV 2021).
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
        """Returns the features (B, H, W, C) and the map of the spatial attention (B, h, w)."""
        channel_scale, spatial_scale, ffn_scale = self.scales
        x = x + self.drop_path(channel_scale(self.channel(self.channel_norm(x))))
        spatial, attention = self.spatial(self.spatial_norm(x))  # (B, H, W, C), (B, h, w)
        x = x + self.drop_path(spatial_scale(spatial))
        return x + self.drop_path(ffn_scale(self.ffn(self.ffn_norm(x)))), attention


class AdaptiveDownsampling(nn.Module):
    """Halves a map: its means over 2x2, plus a mix of mean, maximum and strided convolution weighted by the input.

    Args:
        width: Channels C of the finer level.
        wider: Channels C' of the coarser level; the means are 0 in those beyond C.
        layer_scale: Initial factor on the mix.
    """

    def __init__(self, width: int, wider: int, layer_scale: float):
        super().__init__()
        self.new = wider - width
        self.choice = nn.Linear(width, 3)
        self.project = nn.Linear(width, wider)
        self.conv = nn.Conv2d(width, wider, 3, stride=2, padding=1)
        self.scale = LayerScale(wider, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        shares = self.choice(x.mean((1, 2))).softmax(-1)  # (B, 3)
        average, maximum, strided = shares[..., None, None, None].unbind(1)  # (B, 1, 1, 1) each
        means, channels_first = average_pool(x, 2), x.permute(0, 3, 1, 2)  # (B, H / 2, W / 2, C), (B, C, H, W)
        maxima = F.max_pool2d(channels_first, 2).permute(0, 2, 3, 1)  # (B, H / 2, W / 2, C)
        mixed = self.project(average * means + maximum * maxima)  # (B, H / 2, W / 2, C')
        mixed = mixed + strided * self.conv(channels_first).permute(0, 2, 3, 1)
        return F.pad(means, (0, self.new)) + self.scale(mixed)


class AHMSANet(Network):
    """Levels of multi-scale attention blocks, each coarser than the last, with adaptive downsampling between them.

    Published: input of horizontal flow, vertical flow and strain; a hierarchy that changes the size of the feature map
    at each level; blocks of channel attention, spatial attention and feed-forward, each with a layer norm before it;
    cross-entropy; the number of blocks and the batch size matter.
    Our choice, the paper being silent: 28x28 input; two levels, 14 and 7 pixels; both channel attentions;
    self-attention up to ``attend`` pixels and a gate above; all widths, depths and rates. The first channels of every
    level are the flow maps themselves, averaged, to which blocks and downsampling add little at first: a few hundred
    clips do not teach a network much more about motion, and the amplitude that layer norms remove is kept. Further
    channels, if any, come from a stem of conv3x3, ReLU and batch norm. A hidden layer reads all positions of the
    coarsest level, since in an aligned face the place of a motion tells the emotion.

    Args:
        num_classes: Classes K of the protocol.
        size: Height and width S of the flow map in pixels.
        finest: Side of the first level in pixels, to which the flow map is averaged; halved between levels.
        widths: Channels of each level, those of the flow map among them, for which a level is widened if need be; none
            narrower than the one before.
        depths: Blocks of each level.
        heads: Attention heads of each level.
        channel: Channel attention: ``gate`` or ``transposed``.
        reduction: Factor by which the channel gate's hidden layer is narrower.
        kernel: Side of the spatial gate's convolution; odd.
        ratio: Factor by which the feed-forward's hidden layer is wider.
        attend: Largest map, in pixels, with spatial self-attention; larger ones have a spatial gate.
        keys: Largest side of the grid of keys and values in spatial self-attention.
        hidden: Width of the hidden layer.
        layer_scale: Initial factor on the outputs of attention, feed-forward and downsampling.
        drop_path: Probability of skipping a part of a block.
        feature_dropout: Probability of dropping a value of the coarsest level before the hidden layer.
        dropout: Probability of dropping a value of the hidden layer.
        flow_channels: Channels of the flow, 3 for each of its maps.

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
        flow_channels: int = 3,
    ):
        super().__init__()
        if not len(widths) == len(depths) == len(heads) > 0:
            raise ValueError(
                f"AHMSA-Net needs one width, depth and number of heads per level, not widths={tuple(widths)}, "
                f"depths={tuple(depths)}, heads={tuple(heads)}"
            )
        if min(depths) < 1:
            raise ValueError(f"AHMSA-Net needs at least one block in every level, not depths={tuple(depths)}")
        if list(widths) != sorted(widths) or widths[0] < 3:
            raise ValueError(f"AHMSA-Net's levels are at least 3 wide and never narrow, not {tuple(widths)}")
        widths = tuple(max(width, flow_channels) for width in widths)
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
        new = widths[0] - flow_channels
        self.stem = None
        if new:
            self.stem = nn.Sequential(nn.Conv2d(flow_channels, new, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(new))
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
            flow: u, v and strain of each map, scaled, shape (B, flow_channels, S, S).
            attention: Also return the attention map.

        Returns:
            ``logits`` of shape (B, K); with ``attention`` also ``attention``, shape (B, S, S) in [0, 1]: the average of
            the spatial attention of all blocks.
        """
        x = flow if self.stem is None else torch.cat([flow, self.stem(flow)], dim=1)  # (B, C, S, S)
        x, maps = average_pool(x.permute(0, 2, 3, 1), self.cell), []  # (B, finest, finest, C)
        for level, blocks in enumerate(self.levels):
            if level:
                x = self.downsamplings[level - 1](x)  # (B, H, W, C) -> (B, H / 2, W / 2, C')
            for block in blocks:
                x, spatial_map = block(x)  # (B, H, W, C), (B, h, w)
                maps.append(spatial_map)
        outputs = {"logits": self.classifier(self.dropout(x.flatten(1)))}  # (B, K)
        if attention:
            outputs["attention"] = average_maps(maps, flow.shape[-1])
        return outputs

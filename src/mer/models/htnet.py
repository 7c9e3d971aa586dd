"""HTNet: a hierarchical transformer on areas of the face (Wang, Zhang, Luo and Sankaranarayana, Neurocomputing, 2024).

Feature maps are (B, H, W, C), channels last, as layer norms and linear layers want them.
"""

import torch
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from mer.models import Network
from mer.models.attention_map import average_maps


def cut(x: Tensor, across: int) -> Tensor:
    """Cut a map into blocks, ``across`` in a row: (B, H, W, C) becomes (B, blocks, positions of a block, C)."""
    blocks = x.unflatten(2, (across, -1)).unflatten(1, (across, -1))  # (B, across, h, across, w, C)
    return blocks.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def join(blocks: Tensor, across: int) -> Tensor:
    """Put blocks together again: the inverse of ``cut``."""
    side = int(blocks.shape[2] ** 0.5)
    x = blocks.unflatten(2, (side, side)).unflatten(1, (across, across))  # (B, across, across, h, w, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class BlockAttention(nn.Module):
    """Multi-head self-attention between the positions of one block; blocks do not see one another.

    Args:
        width: Channels C.
        heads: Heads; each has C / heads features, rounded down, as the published 256 channels have for 3 heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        inner = width // heads * heads
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.project = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the features (B, blocks, N, C), and the attention on each position, (B, blocks, N)."""
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1))  # (B, blocks, N, 3, heads, C / heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5)  # (B, blocks, heads, N, C / heads) each
        weights = (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1)  # (B, blocks, heads, N, N)
        mixed = (weights @ v).transpose(2, 3).flatten(3)  # (B, blocks, N, C)
        return self.project(mixed), weights.mean((2, 3))


class Layer(nn.Module):
    """A transformer layer: self-attention and a feed-forward, each after a layer norm and added back.

    Args:
        width: Channels C.
        heads: Heads of the self-attention.
        drop_path: Probability of skipping a part.
    """

    def __init__(self, width: int, heads: int, drop_path: float):
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), BlockAttention(width, heads)
        self.ffn_norm, self.ffn = nn.LayerNorm(width), Mlp(width, 4 * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the features (B, blocks, N, C) and the attention on each position, (B, blocks, N)."""
        mixed, received = self.attention(self.attention_norm(x))
        x = x + self.drop_path(mixed)
        return x + self.drop_path(self.ffn(self.ffn_norm(x))), received


class Level(nn.Module):
    """Transformer layers on the blocks of a map, which share their weights but not their learned positions.

    Args:
        width: Channels C.
        heads: Heads of the self-attention.
        depth: Layers.
        across: Blocks in a row.
        side: Height and width of the map in positions, a multiple of ``across``.
        drop_path: Probability of skipping a part of a layer.
    """

    def __init__(self, width: int, heads: int, depth: int, across: int, side: int, drop_path: float):
        super().__init__()
        self.across = across
        self.positions = nn.Parameter(torch.empty(across**2, (side // across) ** 2, width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.layers = nn.ModuleList(Layer(width, heads, drop_path) for _ in range(depth))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns the features (B, H, W, C) and a map (B, H, W) of each layer's attention."""
        x, maps = cut(x, self.across) + self.positions, []  # (B, blocks, N, C)
        for layer in self.layers:
            x, received = layer(x)
            maps.append(join(received[..., None], self.across)[..., 0])
        return join(x, self.across), maps


class Aggregation(nn.Module):
    """Block aggregation (Zhang et al., Nested Hierarchical Transformer, AAAI 2022): halves a map, across its blocks.

    Args:
        width: Channels C of the finer level.
        wider: Channels C' of the coarser level.
    """

    def __init__(self, width: int, wider: int):
        super().__init__()
        self.conv = nn.Conv2d(width, wider, 3, padding=1)
        self.norm = nn.LayerNorm(wider)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))  # (B, H, W, C')
        return self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, H / 2, W / 2, C')


class HTNet(Network):
    """Transformer layers within areas of the face; the areas are merged, four to one, between levels.

    Published: the flow map from onset to apex; four areas of the face, left and right eye, left and right corner of the
    lips, cut out around landmarks; a transformer layer attends within each area; an aggregation layer joins areas. As
    released 28x28 px, patches of 7x7, 256 channels and 3 heads, both doubled with every level, levels of 2, 2 and 10
    layers: 139.6 M parameters, which ``dim=256, patch=7, depths=(2, 2, 10)`` has too. In this reading 28 px hold one
    patch per block at every level, and attention within a block has nothing to choose from.
    Our choice: the areas are the quarters of the aligned face, each with an eye or a corner of the lips, since a flow
    map has no landmarks; two levels, so that the first has the four areas and the second the whole face, and patches of
    2x2, so that an area has 49 of them, in a network that trains on a CPU; drop-path; no layer norm of the patches,
    whose amplitude it would remove.

    Args:
        num_classes: Classes K of the protocol.
        size: Height and width S of the flow map in pixels.
        patch: Side of a patch in pixels.
        dim: Channels of the first level; doubled with every level.
        heads: Attention heads of the first level; doubled with every level.
        depths: Transformer layers of each level. The last level is one block, each before it has four times as many.
        drop_path: Probability of skipping a part of a layer.
        flow_channels: Channels of the flow, 3 for each of its maps.

    Raises:
        ValueError: If the arguments do not fit one another or the size.
    """

    shows_attention = True

    def __init__(
        self,
        num_classes: int,
        size: int = 28,
        patch: int = 2,
        dim: int = 24,
        heads: int = 3,
        depths: tuple[int, ...] = (2, 2),
        drop_path: float = 0.2,
        flow_channels: int = 3,
    ):
        super().__init__()
        if not depths or min(depths) < 1:
            raise ValueError(f"HTNet needs at least one layer in every level, not depths={tuple(depths)}")
        if not 1 <= heads <= dim:
            raise ValueError(f"HTNet cannot split {dim} channels among {heads} heads")
        across = 2 ** (len(depths) - 1)  # blocks in a row of the first level
        if patch < 1 or size < 1 or size % (patch * across):
            raise ValueError(
                f"HTNet of {len(depths)} levels cuts a flow map into {across} by {across} blocks of whole patches: "
                f"size must be a multiple of {across} x patch={patch}, not {size}"
            )
        self.patch = patch
        self.embed = nn.Linear(flow_channels * patch * patch, dim)
        self.levels, self.aggregations = nn.ModuleList(), nn.ModuleList()
        for level, depth in enumerate(depths):
            scale, side = 2**level, size // patch // 2**level
            if level:
                self.aggregations.append(Aggregation(dim * scale // 2, dim * scale))
            self.levels.append(Level(dim * scale, heads * scale, depth, across // scale, side, drop_path))
        self.norm = nn.LayerNorm(dim * across)
        self.head = nn.Linear(dim * across, num_classes)

    def forward(self, flow: Tensor, attention: bool = False) -> dict[str, Tensor]:
        """Classify flow maps.

        Args:
            flow: u, v and strain of each map, scaled, shape (B, flow_channels, S, S).
            attention: Also return the attention map.

        Returns:
            ``logits`` of shape (B, K); with ``attention`` also ``attention``, shape (B, S, S) in [0, 1]: the average of
            what each position of a block receives in all layers; 0 where blocks have one patch each.
        """
        patches = cut(flow.permute(0, 2, 3, 1), flow.shape[-1] // self.patch)  # (B, patches, pixels of one, channels)
        x = self.embed(patches.flatten(2))  # (B, patches, C)
        x, maps = x.unflatten(1, (flow.shape[-1] // self.patch, -1)), []  # (B, H, W, C)
        for level, layers in enumerate(self.levels):
            if level:
                x = self.aggregations[level - 1](x)  # (B, H, W, C) -> (B, H / 2, W / 2, C')
            x, of_level = layers(x)
            maps += of_level
        outputs = {"logits": self.head(self.norm(x).mean((1, 2)))}  # (B, K)
        if attention:
            outputs["attention"] = average_maps(maps, flow.shape[-1])
        return outputs

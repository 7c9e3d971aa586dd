"""HSTA: Hierarchical Space-Time Attention on video and special frames (Hao et al., arXiv 2405.03202, 2024).

The tokens of a branch are (B, 1 + N, D): the CLS token, then N patches, ordered by time, row and column.
"""

import math
import operator
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, calculate_drop_path_rates
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from mer.models import Network
from mer.models.attention_map import average_maps, patch_map

PRESETS = {"tiny": ((96, 192), 3), "small": ((192, 384), 6), "base": ((384, 768), 12)}
"""Widths of the special and the video branch, and the number of heads of both."""

SPECIAL = {"frames": ("onset", "apex"), "flow": ("flow",), "depth": ("depth",)}
"""The inputs that the special branch reads as its frames."""

PATCHES = (12, 16)
"""Sides of the patches of the special and the video branch, in pixels."""

LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class Tubelets(nn.Module):
    """Makes the tokens of a branch: a convolution cuts space-time patches; a CLS token, positions and dropout follow.

    Args:
        width: Features D of a token.
        frames: Frames of a tubelet.
        patch: Its height and width in pixels; pixels left over at the right and lower edge are not read.
        dropout: Probability of dropping a feature.
    """

    def __init__(self, width: int, frames: int, patch: int, dropout: float):
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.project = nn.Conv3d(3, width, (frames, patch, patch), stride=(frames, patch, patch))
        self.dropout = nn.Dropout(dropout)

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.project(pictures.transpose(1, 2))  # (B, T, 3, S, S) -> (B, D, T / frames, S / patch, S / patch)
        patches = patches.flatten(2).transpose(1, 2)  # (B, N, D)
        cls = self.cls.expand(patches.shape[0], -1, -1)  # not len(), which takes B for a constant in an export
        tokens = torch.cat([cls, patches], dim=1)  # (B, 1 + N, D)
        return self.dropout(tokens + positions(tokens))


def positions(tokens: Tensor) -> Tensor:
    """Sinusoidal position encoding (Vaswani et al., NeurIPS 2017) of the tokens, shape (1, 1 + N, D).

    Made anew in each pass: it is cheap, and a tensor made in ``torch.func`` or inference mode must not outlive it.
    """
    width, exact = tokens.shape[-1], torch.promote_types(tokens.dtype, torch.float32)
    place = torch.arange(tokens.shape[1], device=tokens.device, dtype=exact)  # (1 + N,)
    octave = torch.arange(0, width, 2, device=tokens.device, dtype=exact) / width
    angles = place[:, None] * torch.exp(-math.log(10_000) * octave)  # (1 + N, D / 2)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None].to(tokens.dtype)


class Attention(nn.Module):
    """Multi-head attention between tokens of D = ``width`` features; queries and values have a bias, keys have none."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.project = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Attention of the queries (B, M, D) to the tokens (B, N, D); returns (B, M, D)."""
        q = self.split(self.query(queries))  # (B, heads, M, D / heads)
        k, v = self.split(self.key(tokens)), self.split(self.value(tokens))  # (B, heads, N, D / heads)
        q, v = q.to(k.dtype), v.to(k.dtype)  # in a stack, a layer with a bias returns float32 under autocast
        with torch.autocast("cuda", enabled=False):  # which would cast within the plain attention of a stack on a GPU
            mixed = F.scaled_dot_product_attention(q, k, v)  # (B, heads, M, D / heads)
        return self.project(mixed.transpose(1, 2).flatten(2))  # (B, M, D)

    def split(self, x: Tensor) -> Tensor:
        """Split the features of tokens (B, N, D) by head, (B, heads, N, D / heads)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    @torch.no_grad()
    def weights(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Attention weights, averaged over the heads, (B, M, N)."""
        q, k = self.split(self.query(queries)).float(), self.split(self.key(tokens)).float()
        return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1).mean(1)


class USTA(nn.Module):
    """Unimodal space-time attention: self-attention over all tokens (B, 1 + N, D) of a branch, then a feed-forward.

    Args:
        width: Features D of a token.
        heads: Heads.
        drop_path: Probability of skipping the attention, and of skipping the feed-forward.
    """

    def __init__(self, width: int, heads: int, drop_path: float):
        super().__init__()
        self.attention_norm, self.attention = LayerNorm(width), Attention(width, heads)
        self.mlp_norm, self.mlp = LayerNorm(width), Mlp(width, 4 * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.attention_norm(tokens)
        tokens = tokens + self.drop_path(self.attention(x, x))
        return tokens + self.drop_path(self.mlp(self.mlp_norm(tokens)))


class CSTA(nn.Module):
    """Crossmodal space-time attention in one direction: the CLS token of a branch attends to the other's patches.

    Args:
        width: Features D of the branch.
        partner: Features D' of the other branch.
        heads: Heads.
        drop_path: Probability of skipping the attention.
    """

    def __init__(self, width: int, partner: int, heads: int, drop_path: float):
        super().__init__()
        self.enter = nn.Sequential(LayerNorm(width), nn.GELU(), nn.Linear(width, partner))
        self.norm, self.attention = LayerNorm(partner), Attention(partner, heads)
        self.leave = nn.Sequential(LayerNorm(partner), nn.GELU(), nn.Linear(partner, width))
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, others: Tensor, look: bool = False) -> tuple[Tensor, Tensor | None]:
        """Update the CLS token of ``tokens`` (B, 1 + N, D) from the patches of ``others`` (B, 1 + N', D').

        Returns:
            The tokens with the new CLS token; with ``look`` its attention weights over the other patches, (B, N').
        """
        cls = self.enter(tokens[:, :1])  # (B, 1, D')
        mixture = self.norm(torch.cat([cls, others[:, 1:]], dim=1))  # (B, 1 + N', D')
        weights = self.attention.weights(mixture[:, :1], mixture)[:, 0, 1:] if look else None  # (B, N')
        cls = cls + self.drop_path(self.attention(mixture[:, :1], mixture))
        return torch.cat([self.leave(cls), tokens[:, 1:]], dim=1), weights  # (B, 1 + N, D)


class Stage(nn.Module):
    """Blocks of USTA in each branch, then CSTA in both directions, each from the tokens before the other's update.

    Args:
        widths: Features of the special and the video branch.
        heads: Heads.
        depths: Blocks of USTA in the special and the video branch.
        drop_paths: Drop-path probability of each block of the deeper branch; CSTA has the last.
        checkpoint: Recompute each block in the backward pass instead of keeping its activations.
    """

    def __init__(
        self, widths: tuple[int, int], heads: int, depths: tuple[int, int], drop_paths: list[float], checkpoint: bool
    ):
        super().__init__()
        self.special = nn.ModuleList(USTA(widths[0], heads, rate) for rate in drop_paths[: depths[0]])
        self.video = nn.ModuleList(USTA(widths[1], heads, rate) for rate in drop_paths[: depths[1]])
        self.special_looks = CSTA(widths[0], widths[1], heads, drop_paths[-1])
        self.video_looks = CSTA(widths[1], widths[0], heads, drop_paths[-1])
        self.checkpoint = checkpoint

    def forward(
        self, special: Tensor, video: Tensor, look: bool
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, Tensor | None]]:
        """Both branches' tokens and, with ``look``, the attention weights of special and video patches."""
        run = partial(recompute, use_reentrant=False) if self.checkpoint and torch.is_grad_enabled() else operator.call
        for block in self.special:
            special = run(block, special)
        for block in self.video:
            video = run(block, video)
        new_special, video_weights = run(self.special_looks, special, video, look)  # (B, 1 + N, D), (B, N')
        new_video, special_weights = run(self.video_looks, video, special, look)  # (B, 1 + N', D'), (B, N)
        return new_special, new_video, (special_weights, video_weights)


class HSTA(Network):
    """Two branches of space-time attention, special frames and video, that exchange CLS tokens after each stage.

    Published: special frames (or data) and video frames in parallel, cascaded USTA; CSTA fuses them while each branch
    keeps its content; the two are stacked hierarchically. In the authors' code: tubelets of 2x12x12 and 2x16x16; a CLS
    token per branch; fixed sinusoidal positions over all tokens, dropout after them; USTA as a pre-norm transformer
    block over all space-time tokens, feed-forward x4, no bias of keys, norms with an epsilon of 1e-6; CSTA; a linear
    head on both CLS tokens; widths, heads, stages and depths; 6 video frames; dropout and drop-path of 0.2.
    Our choice: flow or depth is cut into 1x12x12; dropout nowhere else; in CSTA a layer norm before the attention and
    drop-path after it; drop-path that rises linearly from 0 with the depth; a layer norm of each branch before the
    head; Glorot's linear layers, tubelets and CLS tokens from a normal distribution of deviation 0.02; layer-wise
    learning rates.

    Args:
        num_classes: Classes K of the protocol.
        size: Height and width S of the pictures and flow maps in pixels; the weights do not depend on it.
        preset: Widths and heads.
        special: Input of the special branch: onset and apex ``frames``, the ``flow`` map, or ``depth``, of CAS(ME)^3
            alone. The paper speaks of special frames or data; that depth is one of these is our reading.
        stages: Stages.
        depths: Blocks of USTA per stage in the special and the video branch.
        dropout: Probability of dropping a feature of a token before the first stage.
        drop_path: Drop-path probability of the last block.
        checkpoint: Recompute blocks in the backward pass: less memory, more time, the same gradients. Not in a stack.
        flow_channels: Channels of the flow, 3 for each of its maps.

    Raises:
        ValueError: If an argument is unknown or out of range.
    """

    shows_attention = True

    def __init__(
        self,
        num_classes: int,
        size: int = 224,
        preset: Literal["tiny", "small", "base"] = "tiny",
        special: Literal["frames", "flow", "depth"] = "frames",
        stages: int = 4,
        depths: tuple[int, int] = (1, 2),
        dropout: float = 0.2,
        drop_path: float = 0.2,
        checkpoint: bool = False,
        flow_channels: int = 3,
    ):
        super().__init__()
        if preset not in PRESETS:
            raise ValueError(f"HSTA's preset is {', '.join(map(repr, PRESETS))}, not {preset!r}")
        if size < max(PATCHES):
            raise ValueError(f"HSTA needs a size of at least {max(PATCHES)}, that of a patch, not {size}")
        if stages < 1 or len(depths) != 2 or min(depths) < 1:
            raise ValueError(f"HSTA needs stages with blocks of both branches, not {stages=}, depths={tuple(depths)}")
        self.inputs = self.reads(special=special)
        widths, heads = PRESETS[preset]
        moments = {"frames": 2, "flow": flow_channels // 3, "depth": 1}[special]
        self.special = Tubelets(widths[0], moments, PATCHES[0], dropout)
        self.video = Tubelets(widths[1], 2, PATCHES[1], dropout)
        drop_paths = calculate_drop_path_rates(drop_path, [max(depths)] * stages, stagewise=True)
        self.stages = nn.ModuleList(Stage(widths, heads, depths, rates, checkpoint) for rates in drop_paths)
        self.special_norm, self.video_norm = map(LayerNorm, widths)
        self.head = nn.Linear(sum(widths), num_classes)
        self.apply(init_weights)

    @classmethod
    def reads(cls, **arguments: object) -> tuple[str, ...]:
        """The special branch's inputs, then ``frames``; a ValueError if ``special`` is unknown."""
        special = arguments.get("special", "frames")
        if special not in SPECIAL:
            raise ValueError(f"HSTA's special data is {', '.join(map(repr, SPECIAL))}, not {special!r}")
        return *SPECIAL[special], "frames"

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Patterns of the layers for ``layer_decay``, lowest first, for timm; all other weights are the top layer."""
        return {"stem": r"^(?:special|video)\.", "stages": r"^stages\.(\d+)"}

    def forward(self, frames: Tensor, attention: bool = False, **special: Tensor) -> dict[str, Tensor]:
        """Classify clips.

        Args:
            frames: Video frames, normalised, shape (B, T, 3, S, S); a ValueError if T is odd.
            attention: Also return the attention map.
            **special: The other ``inputs``, normalised: ``onset`` and ``apex``, ``flow``, or ``depth``; (B, C, S, S).

        Returns:
            ``logits`` (B, K); with ``attention`` also ``attention``, (B, S, S) in [0, 1]: the attention of the CLS
            tokens to the patches of the other branch, drawn at the patches' places and averaged over all stages.
        """
        if frames.shape[1] < 2 or frames.shape[1] % 2:
            raise ValueError(f"HSTA reads video frames in pairs, not {frames.shape[1]} of them")
        special_tokens = self.special(torch.cat([special[name].unflatten(1, (-1, 3)) for name in self.inputs[:-1]], 1))
        video_tokens, size, maps = self.video(frames), frames.shape[-1], []  # tokens are (B, 1 + N, D)
        for stage in self.stages:
            special_tokens, video_tokens, weights = stage(special_tokens, video_tokens, attention)
            if attention:
                maps += [patch_map(w, patch, size) for w, patch in zip(weights, PATCHES, strict=True)]  # (B, S, S)
        cls = [self.special_norm(special_tokens[:, 0]), self.video_norm(video_tokens[:, 0])]  # (B, D), (B, D')
        outputs = {"logits": self.head(torch.cat(cls, dim=1))}  # (B, K)
        if attention:
            outputs["attention"] = average_maps(maps, size)
        return outputs


def init_weights(module: nn.Module) -> None:
    """Draw a module's initial weights; linear layers as Glorot and Bengio (AISTATS 2010).

    With a deviation of 0.02, usual at a width of 768, patches would hardly change the CLS tokens of narrow presets.
    """
    if isinstance(module, Tubelets):
        nn.init.trunc_normal_(module.cls, std=0.02)
    elif isinstance(module, nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)

"""HSTA: Hierarchical Space-Time Attention on video and special frames (Hao et al., arXiv 2405.03202, 2024).

A branch holds its tokens as (B, 1 + N, D): the CLS token, then N patches in the order time, row, column.
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
from mer.models.attention_map import overlay, unit

PRESETS = {"tiny": ((96, 192), 3), "small": ((192, 384), 6), "base": ((384, 768), 12)}
"""Widths of the special and the video branch, and the heads of either."""

SPECIAL = {"frames": ("onset", "apex"), "flow": ("flow",)}
"""The inputs that the special branch takes for its frames."""

PATCHES = (12, 16)
"""Sides of the patches of the special and the video branch, in pixels."""

LayerNorm = partial(nn.LayerNorm, eps=1e-6)


class Tubelets(nn.Module):
    """A branch's tokens: space-time patches by one convolution, a CLS token before them, positions, dropout.

    Args:
        width: Features D of a token.
        frames: Frames that a tubelet spans.
        patch: Its height and width in pixels; what is left at the right and the lower edge is not seen.
        dropout: Probability of dropping a feature.
    """

    def __init__(self, width: int, frames: int, patch: int, dropout: float):
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, 1, width))
        self.project = nn.Conv3d(3, width, (frames, patch, patch), stride=(frames, patch, patch))
        self.dropout = nn.Dropout(dropout)

    def forward(self, pictures: Tensor) -> Tensor:
        """Cut pictures, (B, T, 3, S, S), into tokens."""
        patches = self.project(pictures.transpose(1, 2)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(patches), -1, -1), patches], dim=1)
        return self.dropout(tokens + positions(tokens))


def positions(tokens: Tensor) -> Tensor:
    """Sines and cosines that tell the tokens' places apart (Vaswani et al., NeurIPS 2017), shape (1, 1 + N, D).

    They are made at every pass: that costs nothing beside the attention, and what is made within ``torch.func`` or
    inference mode must not outlive it.
    """
    width, exact = tokens.shape[-1], torch.promote_types(tokens.dtype, torch.float32)
    place = torch.arange(tokens.shape[1], device=tokens.device, dtype=exact)
    octave = torch.arange(0, width, 2, device=tokens.device, dtype=exact) / width
    angles = place[:, None] * torch.exp(-math.log(10_000) * octave)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None].to(tokens.dtype)


class Attention(nn.Module):
    """Multi-head attention; queries and values have a bias, keys have none.

    Args:
        width: Features D of a token.
        heads: Heads.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.project = nn.Linear(width, width)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """What each of the queries, (B, M, D), finds among the tokens, (B, N, D)."""
        q, k, v = self.split(self.query(queries)), self.split(self.key(tokens)), self.split(self.value(tokens))
        q, v = q.to(k.dtype), v.to(k.dtype)  # in a stack, autocast leaves what has had a bias added in float32
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def split(self, x: Tensor) -> Tensor:
        """Features by head, (B, heads, N, D / heads)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)

    @torch.no_grad()
    def weights(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """How much each query looks at each token, averaged over the heads, (B, M, N)."""
        q, k = self.split(self.query(queries)).float(), self.split(self.key(tokens)).float()
        return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1).mean(1)


class USTA(nn.Module):
    """Unimodal space-time attention: all tokens of a branch attend to one another, then a feed-forward.

    Args:
        width: Features D of a token.
        heads: Heads.
        drop_path: Probability of skipping a part.
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
    """Crossmodal space-time attention in one direction: a branch's CLS token looks at the patches of its partner.

    Args:
        width: Features D of the branch.
        partner: Features D' of its partner.
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
        """Renew the CLS token.

        Args:
            tokens: The branch's tokens, shape (B, 1 + N, D).
            others: Those of its partner, shape (B, 1 + N', D').
            look: Also return how the CLS token spread its attention over the partner's patches.

        Returns:
            The branch's tokens with the new CLS token; the weights of the partner's patches, shape (B, N'), or None.
        """
        guest = self.enter(tokens[:, :1])
        seen = self.norm(torch.cat([guest, others[:, 1:]], dim=1))
        weights = self.attention.weights(seen[:, :1], seen)[:, 0, 1:] if look else None
        guest = guest + self.drop_path(self.attention(seen[:, :1], seen))
        return torch.cat([self.leave(guest), tokens[:, 1:]], dim=1), weights


class Stage(nn.Module):
    """Blocks of USTA in either branch, then CSTA in both directions at once.

    Args:
        widths: Features of the special and the video branch.
        heads: Heads.
        depths: Blocks of USTA in the special and the video branch.
        drop_paths: Probability of skipping, for each block of the deeper branch; CSTA has the last.
        checkpoint: Recompute each block in the backward pass in place of keeping what it computed.
    """

    def __init__(
        self,
        widths: tuple[int, int],
        heads: int,
        depths: tuple[int, int],
        drop_paths: list[float],
        checkpoint: bool,
    ):
        super().__init__()
        self.special, self.video = (
            nn.ModuleList(USTA(width, heads, rate) for rate in drop_paths[:depth])
            for width, depth in zip(widths, depths, strict=True)
        )
        self.special_looks = CSTA(widths[0], widths[1], heads, drop_paths[-1])
        self.video_looks = CSTA(widths[1], widths[0], heads, drop_paths[-1])
        self.checkpoint = checkpoint

    def forward(
        self, special: Tensor, video: Tensor, look: bool
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, Tensor | None]]:
        """Both branches one stage on; if asked to look, the weights of the special and of the video patches."""
        run = partial(recompute, use_reentrant=False) if self.checkpoint and torch.is_grad_enabled() else operator.call
        for block in self.special:
            special = run(block, special)
        for block in self.video:
            video = run(block, video)
        special_then, on_video = run(self.special_looks, special, video, look)
        video_then, on_special = run(self.video_looks, video, special, look)
        return special_then, video_then, (on_special, on_video)


class HSTA(Network):
    """Two branches, special frames and video, of space-time attention, whose CLS tokens meet after every stage.

    Published: special frames (or data) and video frames in parallel, cascaded USTA; CSTA fuses them while each branch
    keeps its content; the two are stacked hierarchically.
    In the authors' code: tubelets of 2x12x12 and 2x16x16; a CLS token per branch; fixed sinusoidal positions over all
    tokens, dropout after them; USTA as a pre-norm transformer block over all space-time tokens, feed-forward x4, no
    bias of keys, norms with an epsilon of 1e-6; CSTA; a linear head on both CLS tokens; widths, heads, stages and
    depths; 6 video frames; dropout and drop-path of 0.2.
    Our choice: a flow map is cut into 1x12x12; dropout nowhere else; in CSTA a layer norm before the attention and
    drop-path after it; drop-path that rises linearly from 0 with the depth; a layer norm of each branch before the
    head; linear layers that start as Glorot's, tubelets and CLS tokens from a normal distribution of deviation 0.02;
    layers for layer-wise learning rates: the tubelets, every stage, the head.

    Args:
        num_classes: Classes K of the protocol.
        size: Height and width S of the pictures and flow maps in pixels; the weights do not depend on it.
        preset: Widths and heads.
        special: What the special branch sees: onset and apex ``frames``, or the ``flow`` map.
        stages: Stages.
        depths: Blocks of USTA per stage in the special and the video branch.
        dropout: Probability of dropping a feature of a token before the first stage.
        drop_path: Probability of skipping a part of the last block.
        checkpoint: Recompute blocks in the backward pass: less memory, more time, the same gradients. Not for networks
            that are trained as a stack, since ``torch.func`` cannot recompute.

    Raises:
        ValueError: If the arguments name or hold nothing that there is, or the size is below that of a patch.
    """

    shows_attention = True

    def __init__(
        self,
        num_classes: int,
        size: int = 224,
        preset: Literal["tiny", "small", "base"] = "tiny",
        special: Literal["frames", "flow"] = "frames",
        stages: int = 4,
        depths: tuple[int, int] = (1, 2),
        dropout: float = 0.2,
        drop_path: float = 0.2,
        checkpoint: bool = False,
    ):
        super().__init__()
        if preset not in PRESETS:
            raise ValueError(f"HSTA's preset is {', '.join(map(repr, PRESETS))}, not {preset!r}")
        if size < max(PATCHES):
            raise ValueError(f"HSTA needs a size of at least {max(PATCHES)}, that of a patch, not {size}")
        if stages < 1 or len(depths) != 2 or min(depths) < 1:
            raise ValueError(
                f"HSTA needs at least one stage and in each at least one block for either branch, not stages={stages}, "
                f"depths={tuple(depths)}"
            )
        self.inputs = self.reads(special=special)
        widths, heads = PRESETS[preset]
        self.special = Tubelets(widths[0], len(SPECIAL[special]), PATCHES[0], dropout)
        self.video = Tubelets(widths[1], 2, PATCHES[1], dropout)
        drop_paths = calculate_drop_path_rates(drop_path, [max(depths)] * stages, stagewise=True)
        self.stages = nn.ModuleList(Stage(widths, heads, depths, rates, checkpoint) for rates in drop_paths)
        self.special_norm, self.video_norm = map(LayerNorm, widths)
        self.head = nn.Linear(sum(widths), num_classes)
        self.apply(start)

    @classmethod
    def reads(cls, **arguments: object) -> tuple[str, ...]:
        """The special branch's inputs, then ``frames``.

        Raises:
            ValueError: If there is no such special data.
        """
        special = arguments.get("special", "frames")
        if special not in SPECIAL:
            raise ValueError(f"HSTA's special data is {' or '.join(map(repr, SPECIAL))}, not {special!r}")
        return *SPECIAL[special], "frames"

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Layers for ``layer_decay``, lowest first, as timm asks for them; what they leave out is the highest."""
        return {"stem": r"^(?:special|video)\.", "stages": r"^stages\.(\d+)"}

    def forward(self, frames: Tensor, attention: bool = False, **special: Tensor) -> dict[str, Tensor]:
        """Classify clips.

        Args:
            frames: Video frames, normalised, shape (B, T, 3, S, S); T is even.
            attention: Also return where the network looked.
            **special: The other ``inputs``: ``onset`` and ``apex``, normalised, or ``flow``, scaled; (B, 3, S, S) each.

        Returns:
            ``logits`` of shape (B, K); with ``attention`` also ``attention``, shape (B, S, S) in [0, 1]: the overlay of
            the attention of the CLS tokens to the patches of the other branch in all stages, drawn where the patches
            lie.

        Raises:
            ValueError: If the number of frames is odd.
        """
        if frames.shape[1] < 2 or frames.shape[1] % 2:
            raise ValueError(f"HSTA reads video frames in pairs, not {frames.shape[1]} of them")
        moments = self.special(torch.stack([special[name] for name in self.inputs[:-1]], dim=1))
        video = self.video(frames)
        maps = []
        for stage in self.stages:
            moments, video, weights = stage(moments, video, attention)
            if attention:
                maps += [drawn(one, patch, frames.shape[-1]) for one, patch in zip(weights, PATCHES, strict=True)]
        read_out = torch.cat([self.special_norm(moments[:, 0]), self.video_norm(video[:, 0])], dim=1)
        outputs = {"logits": self.head(read_out)}
        if attention:
            outputs["attention"] = overlay(maps, frames.shape[-1])
        return outputs


def start(module: nn.Module) -> None:
    """Draw a module's first weights.

    Linear layers follow Glorot and Bengio (AISTATS 2010): with a deviation of 0.02, usual at a width of 768, the CLS
    tokens of the narrow presets hear next to nothing of the patches at first.
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


def drawn(weights: Tensor, patch: int, size: int) -> Tensor:
    """Weights of patches, (B, N), averaged over time and drawn as squares where they lie, (B, S, S); elsewhere 0."""
    side = size // patch
    squares = unit(weights.unflatten(1, (-1, side, side)).mean(1))
    squares = squares.repeat_interleave(patch, 1).repeat_interleave(patch, 2)
    return F.pad(squares, (0, size - side * patch, 0, size - side * patch))

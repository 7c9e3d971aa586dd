"""MFVAN: Multi-scale Fusion Visual Attention Network on apex frames (Pan et al., Frontiers in Neuroscience, 2023)."""

from collections.abc import Sequence
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer import near
from mer.models import Network
from mer.models.attention_map import average_maps

STRIDES = (4, 8, 16)
"""Strides of the encoder's maps, in pixels of the picture."""


class Decoder(nn.Module):
    """Draws a picture from the encoder's maps, top down: the result is doubled in size and the next finer map added.

    Args:
        widths: Channels of the maps, finest first.
        width: Channels D inside the decoder.
    """

    def __init__(self, widths: Sequence[int], width: int):
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in widths)
        self.mix = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in widths)
        self.draw = nn.Conv2d(width, 3 * STRIDES[0] ** 2, 3, padding=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Draw RGB pictures (B, 3, S, S) in [0, 1] from maps (B, C_s, S/s, S/s), finest first."""
        maps = [project(x) for project, x in zip(self.project, maps, strict=True)]  # (B, D, S/s, S/s) each
        picture = torch.zeros_like(maps[-1])  # (B, D, S/16, S/16)
        for x, mix in zip(reversed(maps), reversed(self.mix), strict=True):
            if picture.shape != x.shape:
                picture = F.interpolate(picture, scale_factor=2)  # (B, D, h, w) -> (B, D, 2 h, 2 w)
            picture = F.relu(mix(x + picture))
        return torch.sigmoid(F.pixel_shuffle(self.draw(picture), STRIDES[0]))  # (B, 3, S, S)


class IdentityHead(nn.Sequential):
    """Predicts the map of the neutral face from the map of the apex frame, as a correction to it.

    Args:
        width: Channels C.
    """

    def __init__(self, width: int):
        super().__init__(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The identity map of a map (B, C, h, w)."""
        return x + super().forward(x)


class LocalAttention(nn.Module):
    """Weighs the positions of a map, masks redundant ones, and sums the rest into one feature vector per grid cell.

    Args:
        width: Channels C.
        mask: Mask positions; otherwise they have softmax weights alone.
        temperature: Width T of the mask's edge, in logits.
        grid: Cells along the height and along the width.
    """

    def __init__(self, width: int, mask: bool, temperature: float, grid: int):
        super().__init__()
        self.temperature, self.grid = temperature, grid
        # No bias in the last layer: the softmax ignores it, and the mask has its threshold.
        self.score = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 1, bias=False))
        # The logits of a difference of maps start within some hundredths of 0: the masks start half open.
        self.threshold = nn.Parameter(torch.zeros(())) if mask else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fuse a map.

        Args:
            x: Map, shape (B, C, h, w).

        Returns:
            The feature, shape (B, C grid^2): per cell, the sum of M a x over its positions, divided by the sum of M a
            over all positions, with a the softmax of the logits; the weights M a / sum(M a); the mask M in [0, 1], 1
            without masking. Weights and mask are (B, h, w).
        """
        logits = self.score(x)[:, 0].float()  # (B, h, w)
        if self.threshold is None:
            mask, scores = torch.ones_like(logits), logits
        else:
            above = (logits - self.threshold) / self.temperature
            # Adding log M before the softmax gives M a / sum(M a), and never 0 / 0.
            mask, scores = torch.sigmoid(above), logits + F.logsigmoid(above)
        weights = scores.flatten(1).softmax(dim=1).view_as(scores)  # (B, h, w)
        side = x.shape[-1] // self.grid
        sums = F.avg_pool2d(x.float() * weights[:, None], side, divisor_override=1)  # (B, C, grid, grid)
        return sums.flatten(1), weights, mask


class MFVAN(Network):
    """Maps of three scales, less the face's identity; local attention with a mask fuses each into a feature.

    Published: multi-scale features of the apex frame; attention over the local regions of each scale, redundant ones
    masked, the others fused; self-supervised image generation against identity; a joint loss. The precursor (TSDN, IET
    Computer Vision, 2021) takes the features of the onset frame from those of the apex frame.
    Our choice, the paper being silent: the encoder and its strides 4, 8, 16; the decoder; all formulas, widths and
    rates; where identity comes from; one feature per grid cell, since in an aligned face the place of a motion tells
    the emotion; the layer norm of the fused features, since a difference of maps is small.

    Args:
        num_classes: Classes K of the protocol.
        size: Height and width S of the pictures in pixels; a multiple of 16.
        encoder: Name of a network in timm that gives maps at strides 4, 8 and 16; it starts from new weights.
        scales: Strides of the maps that are classified, from 4, 8 and 16.
        mask: Mask positions whose attention logit is below a learned threshold.
        identity: What is subtracted from the apex frame's maps: ``apex``, identity maps predicted from these maps, so
            that no other frame is needed; ``onset``, the maps of the onset frame; ``none``, nothing.
        temperature: Width T of the mask's edge, in logits.
        grid: Side of the grid of cells in which features are summed; with 1 their place in the face is lost.
        width: Channels of the decoder.
        dropout: Probability of dropping a fused feature before the classifiers.

    Raises:
        ValueError: If the arguments do not fit one another, or timm has no such encoder.
    """

    inputs = ("apex",)
    shows_attention = True

    def __init__(
        self,
        num_classes: int,
        size: int = 128,
        encoder: str = "resnet18",
        scales: tuple[int, ...] = STRIDES,
        mask: bool = True,
        identity: Literal["apex", "onset", "none"] = "apex",
        temperature: float = 0.1,
        grid: int = 4,
        width: int = 32,
        dropout: float = 0.0,
    ):
        super().__init__()
        if size < 2 * STRIDES[-1] or size % STRIDES[-1]:
            raise ValueError(f"MFVAN needs a size that is a multiple of {STRIDES[-1]}, 32 or more, not {size}")
        if not scales or len(set(scales)) < len(scales) or not set(scales) <= set(STRIDES):
            raise ValueError(f"MFVAN's scales are some of {STRIDES}, each once, not {tuple(scales)}")
        if identity not in ("apex", "onset", "none"):
            raise ValueError(f"MFVAN's identity is 'apex', 'onset' or 'none', not {identity!r}")
        if grid < 1 or size // STRIDES[-1] % grid:
            raise ValueError(f"MFVAN's coarsest map has {size // STRIDES[-1]} pixels, not a multiple of grid={grid}")
        if temperature <= 0:
            raise ValueError(f"MFVAN's mask needs a temperature above 0, not {temperature}")
        # Built first and alike for all other arguments: recipes with one seed then share the weights of stage 1.
        self.encoder = build_encoder(encoder, size)
        widths = dict(zip(STRIDES, self.encoder.feature_info.channels(), strict=True))
        self.decoder = Decoder(list(widths.values()), width)
        self.inputs = self.reads(identity=identity)
        self.scales, self.mask, self.identity = scales, mask, identity
        # The decoder draws from all scales, so identity maps are predicted at all of them.
        self.identities = nn.ModuleList(IdentityHead(c) for c in widths.values() if identity == "apex")
        self.attentions = nn.ModuleList(LocalAttention(widths[scale], mask, temperature, grid) for scale in scales)
        features = [widths[scale] * grid**2 for scale in scales]
        self.norms = nn.ModuleList(nn.LayerNorm(count) for count in features)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(nn.Linear(count, num_classes) for count in features)
        self.head = nn.Linear(sum(features), num_classes)

    @classmethod
    def reads(cls, **arguments: object) -> tuple[str, ...]:
        """The apex frame, and the onset frame where identity is taken from it."""
        return ("onset", "apex") if arguments.get("identity") == "onset" else cls.inputs

    def forward(self, apex: Tensor, onset: Tensor | None = None, attention: bool = False) -> dict[str, Any]:
        """Classify clips by their apex frames.

        Args:
            apex: Apex frames, normalised, shape (B, 3, S, S).
            onset: Onset frames, likewise; only where identity is taken from them.
            attention: Also return the attention map.

        Returns:
            ``feature`` (B, grid^2 sum C_s), fused over the scales, and its ``logits`` (B, K); lists over ``scales``:
            ``scale_logits`` (B, K) and ``masks`` (B, S/s, S/s); lists over all strides of maps (B, C_s, S/s, S/s):
            ``maps`` of the apex and, if there is identity, ``identity`` and ``motion``, the difference of the two. With
            ``attention`` also ``attention``, shape (B, S, S) in [0, 1].
        """
        outputs: dict[str, Any] = {}
        if self.identity == "onset":
            assert onset is not None
            # One pass for both frames: batch norm treats them alike, so that their maps differ by motion alone.
            both = self.encoder(torch.cat([apex, onset]))  # (2 B, C_s, S/s, S/s) each
            # Not chunk(2), which takes B for a constant in an export.
            pairs = [x.unflatten(0, (2, -1)).unbind() for x in both]  # 2 of (B, C_s, S/s, S/s) each
            maps, outputs["identity"] = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        else:
            maps = self.encoder(apex)  # (B, C_s, S/s, S/s) each
        if self.identity == "apex":
            outputs["identity"] = [head(x) for head, x in zip(self.identities, maps, strict=True)]
        motion = maps
        if "identity" in outputs:
            motion = outputs["motion"] = [m - i for m, i in zip(maps, outputs["identity"], strict=True)]
        classified = [motion[STRIDES.index(scale)] for scale in self.scales]
        attended = [attend(x) for attend, x in zip(self.attentions, classified, strict=True)]
        sums, weights, outputs["masks"] = map(list, zip(*attended, strict=True))  # (B, C_s grid^2), 2 of (B, S/s, S/s)
        features = [self.dropout(norm(x)) for norm, x in zip(self.norms, sums, strict=True)]  # (B, C_s grid^2) each
        outputs["maps"], outputs["feature"] = maps, torch.cat(features, dim=1)  # (B, grid^2 sum C_s)
        outputs["scale_logits"] = [head(x) for head, x in zip(self.heads, features, strict=True)]  # (B, K) each
        outputs["logits"] = self.head(outputs["feature"])  # (B, K)
        if attention:
            outputs["attention"] = average_maps(weights, apex.shape[-1])
        return outputs


def build_encoder(name: str, size: int) -> Any:
    """A timm network with new weights that returns its maps (B, C_s, S/s, S/s) at the strides s of ``STRIDES``.

    Args:
        name: Its name in timm.
        size: Side S of the pictures in pixels.

    Raises:
        ValueError: If timm has no such network, or it has no such maps.
    """
    if not timm.is_model(name):
        hint = near(name, timm.list_models()) or "; timm.list_models() lists them"
        raise ValueError(f"timm has no network named {name!r}{hint}")
    try:
        with torch.device("meta"):  # shapes alone, which cost nothing and draw no random number
            whole = timm.create_model(name, pretrained=False, features_only=True).eval()
            sides = [x.shape[2:] for x in whole(torch.zeros(1, 3, size, size))]
        indices = [sides.index((size // stride, size // stride)) for stride in STRIDES]
    except (AssertionError, AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"timm's {name!r} has no maps at strides 4, 8 and 16 of {size} pixels: {error}") from error
    return timm.create_model(name, pretrained=False, features_only=True, out_indices=indices)

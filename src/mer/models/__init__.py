"""The networks, one file each; a network is chosen by its file name."""

from typing import ClassVar

from torch import Tensor, nn

Batch = dict[str, Tensor]
"""Tensors by name with a first dimension B, one row per clip: a network's inputs, ``target`` and ``clip``."""


class Network(nn.Module):
    """Base of all networks: ``forward`` takes tensors of clips and returns a dict with ``logits`` (B, K).

    ``__init__`` takes ``num_classes`` K, ``size``, the height and width S of the inputs, and ``flow_channels`` C, 3 for
    each flow map, if it can read several; its signature is the network's part of a recipe. ``forward`` takes, by name,
    the tensors in ``inputs``, normalised as by ``mer.transforms``: ``flow`` (B, C, S, S), ``depth`` (B, 3, S, S),
    or pictures: ``onset`` and ``apex`` (B, 3, S, S), ``frames`` (B, T, 3, S, S). If ``shows_attention``, it also takes
    ``attention=True`` and then returns ``attention`` (B, S, S) in [0, 1].
    """

    inputs: tuple[str, ...] = ("flow",)
    revision: ClassVar[int] = 1  # raised by hand when a change gives other predictions from the same arguments
    shows_attention: ClassVar[bool] = False

    @classmethod
    def reads(cls, **arguments: object) -> tuple[str, ...]:
        """The ``inputs`` of a network built with these arguments."""
        return cls.inputs

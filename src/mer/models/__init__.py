"""The architectures, one file each; a network is chosen by its file name."""

from typing import ClassVar

from torch import Tensor, nn

Batch = dict[str, Tensor]
"""Tensors of clips by name, first dimension B: the inputs of a network, ``target`` and ``clip``."""


class Network(nn.Module):
    """What every network is: tensors of clips in, a dict with ``logits`` (B, K) out.

    ``__init__`` takes ``num_classes`` and ``size``, the height and width S of what it reads; its signature is the
    recipe's part for the network. ``forward`` takes, by name, the tensors in ``inputs``, normalised as by
    ``mer.transforms``: ``flow``, or pictures (``onset``, ``apex``, ``frames``). A network whose ``shows_attention`` is
    true also takes ``attention=True`` and then returns ``attention`` (B, S, S) in [0, 1].
    """

    inputs: tuple[str, ...] = ("flow",)
    revision: ClassVar[int] = 1  # raised by hand when a change gives other predictions from the same arguments
    shows_attention: ClassVar[bool] = False

    @classmethod
    def reads(cls, **arguments: object) -> tuple[str, ...]:
        """The ``inputs`` of a network built with these arguments."""
        return cls.inputs

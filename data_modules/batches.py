"""Batches of a tensor store that lives on the device: a batch is an index, and what augmentation draws for it."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mer.models import Batch
from mer.transforms import MIRRORS, shift

AHEAD = 16
"""Steps whose draws are sent to the device together."""


def generator(*key: object) -> torch.Generator:
    """A random stream on the CPU that depends on the key alone, not on the order of the work."""
    seed = int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little")
    return torch.Generator().manual_seed(seed % 2**63)


@dataclass(frozen=True)
class Augmentation:
    """Flips some clips of a training batch from left to right, and shifts all of them a little.

    Args:
        inputs: The tensors of a batch that show the clip.
        flip: Probability of a flip, which also negates u.
        shift: Largest shift in pixels, up or down and left or right; the border is repeated.
    """

    inputs: tuple[str, ...]
    flip: float
    shift: int

    def draw(self, clips: int, draws: torch.Generator) -> dict[str, Tensor]:
        """Draw the changes of this many clips: tensors (clips,) by name, on the CPU."""
        changes = {"flipped": torch.rand(clips, generator=draws) < self.flip}
        if self.shift:
            offsets = torch.randint(-self.shift, self.shift + 1, (2, clips), generator=draws)
            changes |= {"down": offsets[0], "right": offsets[1]}
        return changes

    def apply(self, batch: Batch, changes: dict[str, Tensor]) -> Batch:
        """The batch with every clip changed as it was drawn."""
        changes = {name: tensor.to(batch["target"].device) for name, tensor in changes.items()}
        inputs = {}
        for name in self.inputs:
            clips = batch[name]
            flipped = changes["flipped"].view(-1, *[1] * (clips.ndim - 1))
            clips = torch.where(flipped, MIRRORS[name](clips), clips)
            inputs[name] = shift(clips, changes["down"], changes["right"]) if self.shift else clips
        return {**batch, **inputs}


class Batches:
    """Batches of a tensor store that lives on the device: a batch is an index.

    In training the rows form one endless stream of shuffled or weighted passes, cut into full batches, which goes on
    from pass to pass; at test time they come once, in order, in one batch.

    Args:
        store: Tensors of all clips, equal first dimension.
        rows: The rows to serve.
        size: Batch size in training; None serves the rows once, in order, whole.
        draws: Random stream of the order and the augmentation.
        weights: Probability, up to a factor, of each row to be drawn; None takes every row once in a pass.
        augmentation: Changes a training batch.
        part: Which of how many equal parts of every batch is served, where processes share a fold.

    Attributes:
        rows_of_clip: Rows of a clip in the store, of which a training batch has any one, see ``spread_maps``.
    """

    def __init__(
        self,
        store: Batch,
        rows: list[int],
        size: int | None = None,
        draws: torch.Generator | None = None,
        weights: Tensor | None = None,
        augmentation: Augmentation | None = None,
        part: tuple[int, int] = (0, 1),
    ):
        self.store, self.rows, self.size = store, torch.tensor(rows), size
        self.draws, self.weights, self.augmentation = draws or torch.Generator(), weights, augmentation
        self.part, self.rows_of_clip = slice(part[0], None, part[1]), 1
        self.waiting = torch.empty(0, dtype=torch.long)

    def __len__(self) -> int:
        """Batches of one pass."""
        return 1 if self.size is None else -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        if self.size is None:
            yield take(self.store, self.rows)
            return
        for _ in range(len(self)):
            rows, changes = self.draw()
            batch = take(self.store, rows)
            yield self.augmentation.apply(batch, changes) if self.augmentation else batch

    def draw(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The rows of the next training batch and what augmentation does to them."""
        assert self.size is not None
        while len(self.waiting) < self.size:
            self.waiting = torch.cat([self.waiting, self.rows[self._order()]])
        rows, self.waiting = self.waiting[: self.size], self.waiting[self.size :]
        if self.rows_of_clip > 1:
            clips = len(self.store["clip"]) // self.rows_of_clip
            rows = rows + clips * torch.randint(self.rows_of_clip, (self.size,), generator=self.draws)
        changes = self.augmentation.draw(self.size, self.draws) if self.augmentation else {}
        return rows[self.part], {name: tensor[self.part] for name, tensor in changes.items()}

    def _order(self) -> Tensor:
        """Positions of one pass."""
        if self.weights is None:
            return torch.randperm(len(self.rows), generator=self.draws)
        return torch.multinomial(self.weights, len(self.rows), replacement=True, generator=self.draws)


class StackedBatches:
    """Endless batches of F folds side by side: every tensor is (F, B, ...), from each fold's own stream.

    Args:
        streams: The training batches of each fold; they share store, batch size and augmentation.
    """

    def __init__(self, streams: Sequence[Batches]):
        self.streams = streams

    def __iter__(self) -> Iterator[Batch]:
        store, augmentation = self.streams[0].store, self.streams[0].augmentation
        while True:  # the draws are each fold's own; index and augmentation are one operation for all
            for step in self._draw(store["target"].device):
                batch = take(store, step.pop("rows"))
                batch = augmentation.apply(batch, step) if augmentation else batch
                yield {name: tensor.unflatten(0, (len(self.streams), -1)) for name, tensor in batch.items()}

    def _draw(self, device: torch.device) -> Iterator[dict[str, Tensor]]:
        """The draws of ``AHEAD`` steps, a dict of tensors (F B,) for each step, sent to the device together."""
        steps = [[stream.draw() for stream in self.streams] for _ in range(AHEAD)]
        drawn = {"rows": torch.stack([torch.cat([rows for rows, _ in step]) for step in steps])}
        for name in steps[0][0][1]:
            drawn[name] = torch.stack([torch.cat([changes[name] for _, changes in step]) for step in steps])
        if device.type == "cuda":
            drawn = {name: x.pin_memory().to(device, non_blocking=True) for name, x in drawn.items()}
        return (dict(zip(drawn, parts, strict=True)) for parts in zip(*drawn.values(), strict=True))


def spread_maps(store: Batch) -> Batch:
    """A store in which each flow map of a clip has a row of its own: first all that lead from onset to apex."""
    maps = store["flow"].unflatten(1, (-1, 3)).transpose(0, 1)  # (maps, N, 3, S, S)
    return {**{name: torch.cat([tensor] * len(maps)) for name, tensor in store.items()}, "flow": maps.flatten(0, 1)}


def take(store: Batch, rows: Tensor) -> Batch:
    """The rows of every tensor of a store."""
    rows = rows.to(store["target"].device)
    return {name: tensor[rows] for name, tensor in store.items()}

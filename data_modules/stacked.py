"""Many folds of one dataset side by side, for networks that are trained as a stack."""

from collections.abc import Sequence

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.nn.functional import pad

from data_modules.base import FlowDataModule
from data_modules.batches import StackedBatches, take
from mer.models import Batch
from mer.training.stacked_task import CPU_CHUNK


class StackedDataModule(LightningDataModule):
    """Folds of one data module as the slots of a stack; a batch has a tensor (F, B, ...) for each (B, ...) of a fold.

    Every slot has the stream of batches that its fold and seed have when they are trained alone. Test clips are
    repeated up to a number that is the same for all folds, so that no slot's arithmetic depends on its neighbours.

    Args:
        data: The data; which fold it holds out does not matter.
        slots: Fold and seed of each slot.
    """

    def __init__(self, data: FlowDataModule, slots: Sequence[tuple[str, int]]):
        super().__init__()
        self.data, self.slots, self.classes = data, slots, data.classes

    def setup(self, stage: str | None = None) -> None:
        """Put the tensors of all clips on the device, once, and open every slot's stream."""
        self.data.trainer = self.trainer
        self.data.setup(stage)
        self.streams, self.train_targets = [], []
        for fold, seed in self.slots:
            self.data.hold_out(fold, seed)
            self.streams.append(self.data.train_dataloader())
            self.train_targets.append(self.data.train_targets)

    @property
    def steps_per_epoch(self) -> list[int]:
        """Steps of a pass over the training clips of each slot."""
        return [len(stream) for stream in self.streams]

    @property
    def test_targets(self) -> Tensor:
        """Classes of the test clips of each slot, (F, n), on the CPU; -1 where a clip is there again."""
        own = [self.data.targets[self.data.folds[fold]] for fold, _ in self.slots]
        return torch.stack([pad(targets, (0, self._longest - len(targets)), value=-1) for targets in own])

    def by_slot(self, clips: Tensor) -> list[Tensor]:
        """What belongs to the test clips of each slot, out of a tensor (F, n, ...) for all of them."""
        return [one[: len(self.data.folds[fold])] for one, (fold, _) in zip(clips, self.slots, strict=True)]

    def train_dataloader(self) -> StackedBatches:
        return StackedBatches(self.streams)

    @property
    def _longest(self) -> int:
        """Test clips of each slot, with those that are there again."""
        return -(-max(map(len, self.data.folds.values())) * 2 // CPU_CHUNK) * CPU_CHUNK // 2  # times an even F

    def test_dataloader(self) -> list[Batch]:
        rows = [(rows * self._longest)[: self._longest] for rows in (self.data.folds[fold] for fold, _ in self.slots)]
        batch = take(self.data.store, torch.tensor(rows).flatten())
        return [{name: tensor.unflatten(0, (len(rows), -1)) for name, tensor in batch.items()}]

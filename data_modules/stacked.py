"""Several folds of one dataset side by side, for networks that are trained as a stack."""

from collections.abc import Sequence

import torch
from lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.nn.functional import pad

from data_modules.action_units import training_targets
from data_modules.base import FlowDataModule
from data_modules.batches import StackedBatches, take
from mer.models import Batch
from mer.training.stacked_task import CPU_CHUNK


class StackedDataModule(LightningDataModule):
    """Folds of one data module as the slots of a stack; what is (B, ...) in a batch of one fold is (F, B, ...) here.

    Every slot has the batches that its fold and seed have when they are trained alone. Test clips are repeated up to a
    number that is the same for all folds, so that no slot's arithmetic depends on the other slots.

    Args:
        data: The data; which fold they hold out does not matter.
        slots: Fold and seed of each slot.
    """

    trainer: Trainer  # set by Lightning

    def __init__(self, data: FlowDataModule, slots: Sequence[tuple[str, int]]):
        super().__init__()
        self.data, self.slots, self.classes = data, slots, data.classes

    def setup(self, stage: str | None = None) -> None:
        """Put the tensors of all clips on the device, once, and open every slot's stream."""
        assert self.trainer is not None
        self.data.setup(self.trainer.strategy.root_device)
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
    def unit_targets(self) -> Tensor:
        """Action units of the training clips of each slot, (F, N, U), on the CPU, see ``training_targets``."""
        return torch.stack([training_targets(self.data.clips, stream.rows.tolist()) for stream in self.streams])

    @property
    def test_targets(self) -> Tensor:
        """Classes of the test clips of each slot, (F, n), on the CPU; -1 where a clip is repeated."""
        targets = [self.data.targets[rows] for rows in self._test_rows]
        return torch.stack([pad(part, (0, self._padded - len(part)), value=-1) for part in targets])

    def by_slot(self, tests: Tensor) -> list[Tensor]:
        """Split a tensor (F, n, ...) of test clips by slot, (m, ...) each, without the repeated clips."""
        return [slot[: len(rows)] for slot, rows in zip(tests, self._test_rows, strict=True)]

    def train_dataloader(self) -> StackedBatches:
        return StackedBatches(self.streams)

    def test_dataloader(self) -> list[Batch]:
        repeated = [(rows * self._padded)[: self._padded] for rows in self._test_rows]
        batch = take(self.data.store, torch.tensor(repeated).flatten())
        return [{name: tensor.unflatten(0, (len(repeated), -1)) for name, tensor in batch.items()}]

    @property
    def _test_rows(self) -> list[list[int]]:
        """Rows of the clip table that each slot tests."""
        return [self.data.folds[fold] for fold, _ in self.slots]

    @property
    def _padded(self) -> int:
        """Test clips of a slot with the repeated ones: F, which is even, times this is a multiple of ``CPU_CHUNK``."""
        return -(-max(map(len, self.data.folds.values())) * 2 // CPU_CHUNK) * CPU_CHUNK // 2

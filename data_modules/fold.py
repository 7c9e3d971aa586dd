"""A dataset with one subject held out, as Lightning takes it."""

from lightning import LightningDataModule, Trainer
from torch import Tensor

from data_modules.action_units import training_targets
from data_modules.base import FlowDataModule
from data_modules.batches import Batches
from mer import InputError


class FoldDataModule(LightningDataModule):
    """The fold that the data hold out. ``StackedDataModule`` has several folds side by side.

    The datasets themselves import neither Lightning nor torch before tensors are asked for, so that looking into a
    folder does not wait for them.

    Args:
        data: The data, after ``hold_out``.
    """

    trainer: Trainer  # set by Lightning

    def __init__(self, data: FlowDataModule):
        super().__init__()
        self.data, self.classes = data, data.classes

    def prepare_data(self) -> None:
        """Compute and cache what is missing."""
        self.data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Put the tensors of all clips on the device, once."""
        assert self.trainer is not None
        self.data.setup(self.trainer.strategy.root_device)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a pass over the training clips."""
        return self.data.steps_per_epoch

    @property
    def train_targets(self) -> Tensor:
        """Classes of the training clips, on the CPU."""
        return self.data.train_targets

    @property
    def unit_targets(self) -> Tensor:
        """Action units of the training clips, (N, U), on the CPU, see ``training_targets``."""
        return training_targets(self.data.clips, self.data.train_rows)

    @property
    def test_targets(self) -> Tensor:
        """Classes of the test clips, (n,), on the CPU."""
        return self.data.test_targets

    def train_dataloader(self) -> Batches:
        """The fold's stream of training batches; processes that train one fold together share each of them.

        Raises:
            InputError: If a batch cannot be shared equally.
        """
        assert self.trainer is not None
        processes, batch_size = self.trainer.world_size, self.data.batch_size
        if batch_size % processes:
            raise InputError(f"batch_size {batch_size} cannot be shared by {processes} processes: take a multiple")
        return self.data.train_dataloader((self.trainer.global_rank, processes))

    def test_dataloader(self) -> Batches:
        return self.data.test_dataloader()

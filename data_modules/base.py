"""The base of all data modules: clips of a protocol as tensors on the device, folds, training batches.

torch is imported where tensors are made: what lies in a folder is known without it.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from data_modules import protocols
from data_modules.release.clip_table import ONE_NAME, Problem, complain, split_people
from mer import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from data_modules.batches import Batches
    from mer.models import Batch

NOBODY = "nobody"  # the fold that holds nobody out, in which a model is trained that leaves the suite


class Selection:
    """The clips of a data module that are used, and how they are split; looked up once, when it is first needed."""

    def __init__(self, data: "FlowDataModule"):
        self.data = data

    @cached_property
    def clips(self) -> pd.DataFrame:
        """The clip table; the column ``target`` is the class name."""
        clips, split, fold = self.data.usable_clips(), self.data.outer_split, self.data.outer_fold
        return protocols.without_fold(clips, split, fold) if fold else clips

    @cached_property
    def folds(self) -> dict[str, list[int]]:
        """Rows of ``clips`` that each fold holds out, by fold name."""
        return protocols.folds(self.clips, self.data.split)


class FlowDataModule:
    """Clips of a protocol as flow maps, one subject held out. For Lightning, wrap it in a ``FoldDataModule``.

    A batch is a dict of tensors on the device: the inputs that the model reads, as ``flow`` (B, 3, S, S) with S the
    ``input_size``: u (right), v (down) and the strain magnitude after ``mer.transforms.normalise_flow``; ``target``
    (B,), the class; ``clip`` (B,), the row of ``clips``.

    Args:
        root: The dataset's folder; ``data/<name>`` by default.
        protocol: Name of the protocol, see ``protocols.py``.
        split: How clips are split into folds: ``loso``, ``lodo`` or ``groups<k>``, see ``protocols.folds``.
        outer_split: The split that has the outer fold.
        outer_fold: Its subjects are no part of the data, so that scores on the others may choose what it tests.
        inputs: Tensors that the model reads; only those are prepared and loaded.
        input_size: Side in pixels of the maps and pictures that the model sees.
        batch_size: Clips of a training batch; every batch is full.
        balanced: Draw training clips so that every class is as frequent as any other, instead of in shuffled passes.
        flip: Probability of a horizontal flip of a training clip, which also negates u.
        shift: Largest shift in pixels of a training clip, up or down and left or right; its border is repeated.
    """

    name: ClassVar[str]
    default_protocol: ClassVar[str]
    database: ClassVar[str | None] = None
    available_inputs: ClassVar[tuple[str, ...]] = ("flow",)
    flow_channels: int = 3  # u, v and strain of each map that a network reads at once
    path_arguments: ClassVar[tuple[str, ...]] = ("root",)
    """Arguments that say where, or that change the fingerprint when they change the data: no part of the digest."""

    own_protocols: ClassVar[Mapping[str, protocols.Protocol]] = {}
    """Protocols by name, for labels that no protocol of ``protocols.py`` knows; they are known once it is imported."""

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        protocols.PROTOCOLS.update(cls.own_protocols)

    def __init__(
        self,
        root: str = "",
        protocol: str = "",
        split: str = "loso",
        outer_split: str = "loso",
        outer_fold: str = "",
        inputs: tuple[str, ...] = ("flow",),
        input_size: int = 28,
        batch_size: int = 32,
        balanced: bool = False,
        flip: float = 0.5,
        shift: int = 0,
    ):
        if input_size < 8 or batch_size < 1 or not 0 <= flip <= 1:
            raise InputError(
                f"input_size {input_size} must be 8 or more, batch_size {batch_size} 1 or more, flip {flip} in 0..1"
            )
        if not 0 <= shift < input_size:
            raise InputError(f"shift {shift} must be 0 or more and smaller than the map, {input_size}")
        self.root, self.root_is_given = Path(root or f"data/{self.name}"), bool(root)
        self.protocol = self.protocol_name(protocol, root)
        self.split, self.inputs, self.input_size, self.batch_size = split, inputs, input_size, batch_size
        self.balanced, self.flip, self.shift = balanced, flip, shift
        self.classes = protocols.protocol(self.protocol).classes
        self.outer_split, self.outer_fold = outer_split, outer_fold
        for name in (split, outer_split):
            protocols.check_split(name)
        if outer_split != "loso" and not outer_fold:
            raise InputError(f"outer split '{outer_split}' leaves nobody out: name a fold of it with --data.outer_fold")
        self.store: dict[str, Tensor] = {}
        self.selection = Selection(self)  # a new one after ``prepare_data``, which may leave clips out
        self.fold, self.seed = "", 0
        unknown = set(inputs) - set(self.available_inputs)
        if unknown:
            raise InputError(
                f"dataset '{self.name}' has no {', '.join(sorted(unknown))}; it has {', '.join(self.available_inputs)}"
            )

    @classmethod
    def protocol_name(cls, name: str, root: str) -> str:
        """The full name of the protocol that is asked for, of the data in a folder; that of the default if none is."""
        return name or cls.default_protocol

    # What a dataset declares

    def read_clips(self) -> pd.DataFrame:
        """The dataset's clip table, all labelled clips, validated.

        Raises:
            InputError: If the folder is missing or holds something else; every problem is listed.
        """
        raise NotImplementedError

    def source_files(self, clips: pd.DataFrame) -> dict[str, int]:
        """Size in bytes of every file that the clips are read from, by path below the root."""
        raise NotImplementedError

    def load(self, clips: pd.DataFrame) -> "Batch":
        """The tensors named by ``inputs`` for the clips, in the order of the table, first dimension N."""
        raise NotImplementedError

    def label(self, clips: pd.DataFrame, protocol: str = "") -> pd.DataFrame:
        """The clips that take part in a protocol (default: the chosen one), their class in a new column ``target``.

        Raises:
            InputError: If there are none.
        """
        return protocols.select(clips, protocol or self.protocol, self.database)

    def known_protocols(self) -> list[str]:
        """Names of the protocols that have classes for these data."""
        return [name for name, rules in protocols.PROTOCOLS.items() if (self.database or self.name) in rules.emotions]

    @property
    def parts(self) -> Mapping[str, "FlowDataModule"]:
        """The databases that these data consist of, by name."""
        return {self.name: self}

    @property
    def layout(self) -> str:
        """Which release of the dataset lies in the folder, where there are several."""
        return ""

    @property
    def sources(self) -> list[str]:
        """What the clip table is read from, a line each, where it was looked for."""
        return []

    @property
    def problems(self) -> Sequence[Problem]:
        """What is wrong with single clips, and what was done about it."""
        return []

    @property
    def revision(self) -> tuple[int, ...]:
        """Revisions of all code that makes tensors of the same files."""
        from mer import transforms

        return (transforms.REVISION,)

    # What follows from it

    @cached_property
    def all_clips(self) -> pd.DataFrame:
        """The dataset's clip table, in which every person has one name."""
        clips = self.read_clips()
        complain(self.root, split_people(clips), ONE_NAME)
        return clips

    def usable_clips(self) -> pd.DataFrame:
        """The labelled clips of the protocol that can be used."""
        return self.label(self.all_clips)

    @property
    def clips(self) -> pd.DataFrame:
        """The clips of the protocol that can be used; the column ``target`` is the class name."""
        return self.selection.clips

    @property
    def folds(self) -> dict[str, list[int]]:
        """Rows of ``clips`` that each fold holds out, by fold name."""
        return self.selection.folds

    @property
    def targets(self) -> "Tensor":
        """Class of every clip, (N,), on the CPU."""
        import torch

        return torch.tensor([self.classes.index(name) for name in self.clips["target"]])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the dataset's clip table, its layout, and the size of every source file."""
        table = self.all_clips.drop(columns="folder", errors="ignore").to_csv(index=False)
        files = sorted(self.source_files(self.all_clips).items())
        return hashlib.sha256(repr((self.layout, table, files)).encode()).hexdigest()

    def hold_out(self, fold: str, seed: int) -> None:
        """Choose the fold, and the seed of the order of the training batches.

        Raises:
            InputError: If there is no such fold.
        """
        if fold != NOBODY and fold not in self.folds:
            raise InputError(f"there is no fold '{fold}'; there are {', '.join(self.folds)}")
        self.fold, self.seed = fold, seed

    def prepare_data(self) -> None:
        """Compute and cache what is missing, or look whether all opens; nothing is kept in memory."""

    def setup(self, device: "torch.device | str" = "cpu") -> None:
        """Put the tensors of all clips on the device, once."""
        import torch

        from mer.transforms import normalise_flow

        if not self.store:
            tensors = self.load(self.clips)
            if "flow" in tensors:  # here, once: it depends on nothing but the clip, and takes a fifth of a small step
                tensors["flow"] = normalise_flow(tensors["flow"])
            tensors["target"] = self.targets
            tensors["clip"] = torch.arange(len(self.clips))
            self.store = tensors
        self.store = {name: tensor.to(device) for name, tensor in self.store.items()}

    def dummy_batch(self) -> "Batch":
        """A batch of the right shapes, to time a step before there are any data."""
        import torch

        clips, picture = self.batch_size, (3, self.input_size, self.input_size)
        flow, depth = (torch.randn(clips, channels, *picture[1:]) for channels in (self.flow_channels, 3))
        batch = {"flow": flow, "depth": depth, "target": torch.zeros(clips).long()}
        batch |= {name: torch.randint(256, (clips, *picture), dtype=torch.uint8) for name in ("onset", "apex")}
        return {**batch, "frames": torch.stack([batch["onset"]] * getattr(self, "num_frames", 2), dim=1)}

    @property
    def test_rows(self) -> list[int]:
        """Rows of the clips that the fold tests."""
        return [] if self.fold == NOBODY else self.folds[self.fold]

    @property
    def train_rows(self) -> list[int]:
        """Rows of the clips that the fold trains on."""
        held_out = set(self.test_rows)
        return [row for row in range(len(self.clips)) if row not in held_out]

    @property
    def train_targets(self) -> "Tensor":
        """Classes of the clips that the fold trains on, on the CPU."""
        return self.targets[self.train_rows]

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a pass over the training clips."""
        return -(-len(self.train_rows) // self.batch_size)

    @property
    def test_targets(self) -> "Tensor":
        """Classes of the test clips, (n,), on the CPU."""
        return self.targets[self.test_rows]

    def train_dataloader(self, part: tuple[int, int] = (0, 1)) -> "Batches":
        """The fold's stream of training batches, or which of how many equal parts of each, see ``Batches``."""
        import torch

        from data_modules.batches import Augmentation, Batches, generator

        augmentation = Augmentation(tuple(self.inputs), self.flip, self.shift)
        draws = generator("order", self.seed, self.fold)
        targets = self.train_targets
        weights = 1 / torch.bincount(targets)[targets] if self.balanced else None
        return Batches(self.store, self.train_rows, self.batch_size, draws, weights, augmentation, part)

    def test_dataloader(self) -> "Batches":
        """The test clips, in order, in one batch."""
        from data_modules.batches import Batches

        return Batches(self.store, self.test_rows)

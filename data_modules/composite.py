"""Several databases as one dataset: MEGC 2019's composite, and any other union."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
import torch

from data_modules.base import Batch, FlowDataModule
from data_modules.casme2 import CASME2
from data_modules.casme3 import CASME3
from data_modules.protocols import PROTOCOLS, protocol, without_outer
from data_modules.release.clip_table import Problem
from data_modules.samm import SAMM
from data_modules.smic import SMIC
from data_modules.videos import VideoDataModule
from mer import InputError, near

DATABASES: dict[str, type[VideoDataModule]] = {part.name: part for part in (CASME2, SAMM, SMIC, CASME3)}


class Composite(FlowDataModule):
    """Databases side by side, each in the folder of its name, in any case.

        casme2/  samm/  smic/       each as that database is distributed

    Every part is read, corrected and cached by its own data module, under its own name; a fold's subjects are trained
    with the clips of all parts.

    Args:
        databases: Names of the parts, comma-separated.
        cache: As in ``VideoDataModule``, like all that follow.
        workers: Processes that fill it.
        crop_size: Side in pixels of the aligned face that flow is computed on; flow and pictures are stored at it.
        num_frames: Pictures of a clip that make the input ``frames``.
        method: Optical flow, see ``mer.flow``.
        backend: What computes it, ``opencv`` or ``torch``.
        apex: ``sheet`` takes the annotated apex, ``spotted`` spots it in every clip.
        head_motion: ``removed`` takes the rigid motion of the head out of the flow.
        kwargs: As in ``FlowDataModule``.
    """

    name: ClassVar[str] = "composite"
    default_protocol: ClassVar[str] = "union-3"
    available_inputs: ClassVar[tuple[str, ...]] = VideoDataModule.available_inputs
    path_arguments: ClassVar[tuple[str, ...]] = ("root", "cache", "workers")
    revision: ClassVar[tuple[int, ...]] = VideoDataModule.revision

    def __init__(
        self,
        databases: str = "casme2,samm,smic",
        cache: str = "cache",
        workers: int = 1,
        crop_size: int = 128,
        num_frames: int = 6,
        method: Literal["tvl1", "farneback", "dis"] = "tvl1",
        backend: Literal["auto", "opencv", "torch"] = "auto",
        apex: Literal["sheet", "spotted"] = "sheet",
        head_motion: Literal["kept", "removed"] = "kept",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.databases = tuple(dict.fromkeys(name.strip() for name in databases.split(",")))
        for name in self.databases:
            if name not in DATABASES:
                known = ", ".join(DATABASES)
                raise InputError(f"unknown database '{name}'; there are {known}{near(name, DATABASES)}")
            if name not in protocol(self.protocol).emotions:
                knows = ", ".join(protocol(self.protocol).emotions)
                raise InputError(
                    f"protocol '{self.protocol}' has no classes for '{name}', only for {knows}; choose another with "
                    "--protocol (union-3 has all), or other databases"
                )
        self._options = {
            "cache": cache,
            "workers": workers,
            "crop_size": crop_size,
            "num_frames": num_frames,
            "method": method,
            "backend": backend,
            "apex": apex,
            "head_motion": head_motion,
        }

    @cached_property
    def parts(self) -> dict[str, VideoDataModule]:
        """A data module per database.

        Raises:
            InputError: If the folder lacks one of them.
        """
        folders = {path.name.lower(): path for path in sorted(self.root.iterdir())} if self.root.is_dir() else {}
        lacks = [name for name in self.databases if name not in folders]
        if lacks:
            raise InputError(
                f"{self.root}: holds no folder {' and no '.join(lacks)}. A composite has one folder per database, "
                f"{', '.join(self.databases)}, each as distributed (links will do). Name the folder with DATA=... or "
                "--root, or the databases with --data.databases."
            )
        shared = {"protocol": self.protocol, "inputs": self.inputs, "input_size": self.input_size, **self._options}
        return {name: DATABASES[name](root=str(folders[name]), **shared) for name in self.databases}

    def read_clips(self) -> pd.DataFrame:
        """The clips of all parts that take part in the protocol."""
        clips = [part.label(part.all_clips).drop(columns="target") for part in self.parts.values()]
        return pd.concat(clips, ignore_index=True)

    def known_protocols(self) -> list[str]:
        return [name for name, rules in PROTOCOLS.items() if set(self.databases) <= set(rules.emotions)]

    @cached_property
    def clips(self) -> pd.DataFrame:
        """The clips of all parts that can be used, part by part."""
        every = pd.concat([part.clips for part in self.parts.values()], ignore_index=True)
        return without_outer(every, self.split)

    @property
    def layout(self) -> str:
        """Which release of each part is used."""
        return ", ".join(f"{name} {part.layout}" for name, part in self.parts.items())

    @property
    def problems(self) -> list[Problem]:
        """Those of all parts."""
        return [problem for part in self.parts.values() for problem in part.problems]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of those of the parts."""
        text = repr([(name, part.fingerprint) for name, part in self.parts.items()])
        return hashlib.sha256(text.encode()).hexdigest()

    def source_files(self, clips: pd.DataFrame) -> dict[str, int]:
        return {
            str(Path(name) / file): size
            for name, part in self.parts.items()
            for file, size in part.source_files(clips.loc[clips["dataset"] == name]).items()
        }

    def prepare_data(self) -> None:
        """Fill the caches of all parts."""
        for part in self.parts.values():
            part.prepare_data()
        for name in ("clips", "folds"):
            self.__dict__.pop(name, None)

    def load(self, clips: pd.DataFrame) -> Batch:
        tables = {name: clips.loc[clips["dataset"] == name] for name in self.parts}
        loaded = [self.parts[name].load(table) for name, table in tables.items() if len(table)]
        return {name: torch.cat([tensors[name] for tensors in loaded]) for name in loaded[0]}


class MEGC2019(Composite):
    """CASME II, SAMM and SMIC-HS as in MEGC 2019 (See, Yap, Li, Hong and Wang, FG 2019): 442 clips, 68 subjects."""

    name: ClassVar[str] = "megc2019"
    default_protocol: ClassVar[str] = "megc2019"

"""Several databases as one dataset: MEGC 2019's composite, and any other union."""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from data_modules import DATASETS, data_module
from data_modules.base import Selection
from data_modules.preparation import PreparedDataModule
from data_modules.protocols import PROTOCOLS, protocol
from data_modules.release.clip_table import Problem
from data_modules.videos import VideoDataModule
from mer import InputError, near

if TYPE_CHECKING:
    from mer.models import Batch

TABLE = "clips"  # its labels may be words of any protocol


class Composite(PreparedDataModule):
    """Databases side by side, each in the folder of its name, in any case.

        casme2/  samm/  smic/       each as that database is distributed
        clips/                      a table of clips, see ``data_modules.clips``

    Every part is read, corrected and cached by its own data module, under its own name; a fold's subjects are trained
    with the clips of all parts.

    Args:
        databases: Names of the parts, comma-separated.
        kwargs: As in ``PreparedDataModule``.
    """

    name: ClassVar[str] = "composite"
    default_protocol: ClassVar[str] = "union-3"

    def __init__(self, databases: str = "casme2,samm,smic", **kwargs):
        super().__init__(**kwargs)
        self.databases = tuple(dict.fromkeys(name.strip() for name in databases.split(",")))
        known = [*(name for name in DATASETS if any(name in rules.emotions for rules in PROTOCOLS.values())), TABLE]
        for name in self.databases:
            if name not in known:
                raise InputError(f"unknown database '{name}'; there are {', '.join(known)}{near(name, known)}")
            if name not in (*protocol(self.protocol).emotions, TABLE):
                knows = ", ".join(protocol(self.protocol).emotions)
                raise InputError(
                    f"protocol '{self.protocol}' has no classes for '{name}', only for {knows}; choose another with "
                    "--protocol (union-3 has all), or other databases"
                )

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
        shared = {"protocol": self.protocol, "inputs": self.inputs, "input_size": self.input_size, **self.preparation}
        parts = {name: data_module(name)(root=str(folders[name]), **shared) for name in self.databases}
        if TABLE in parts and (twice := sorted(set(parts) & set(parts[TABLE].all_clips["dataset"]) - {TABLE})):
            raise InputError(
                f"{folders[TABLE]}: has clips of {', '.join(twice)}, which is a part of its own: take those rows out"
            )
        return parts

    def read_clips(self) -> pd.DataFrame:
        """The clips of all parts that take part in the protocol."""
        clips = [part.label(part.all_clips).drop(columns="target") for part in self.parts.values()]
        return pd.concat(clips, ignore_index=True)

    def known_protocols(self) -> list[str]:
        return [name for name, rules in PROTOCOLS.items() if set(self.databases) <= {*rules.emotions, TABLE}]

    def usable_clips(self) -> pd.DataFrame:
        """The clips of all parts that can be used, part by part."""
        return pd.concat([part.clips for part in self.parts.values()], ignore_index=True)

    @property
    def layout(self) -> str:
        """Which release of each part is used."""
        return ", ".join(f"{name} {part.layout}" for name, part in self.parts.items())

    @property
    def sources(self) -> list[str]:
        """Those of all parts."""
        return [f"{name}: {line}" for name, part in self.parts.items() for line in part.sources]

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
            for file, size in part.source_files(_of(part, clips)).items()
        }

    def prepare_data(self) -> None:
        """Fill the caches of all parts."""
        for part in self.parts.values():
            part.prepare_data()
        self.selection = Selection(self)

    def load(self, clips: pd.DataFrame) -> "Batch":
        import torch

        tables = {name: _of(part, clips) for name, part in self.parts.items()}
        loaded = [self.parts[name].load(table) for name, table in tables.items() if len(table)]
        return {name: torch.cat([tensors[name] for tensors in loaded]) for name in loaded[0]}


def _of(part: VideoDataModule, clips: pd.DataFrame) -> pd.DataFrame:
    """The clips of a part; those of a table may be of several databases."""
    return clips.loc[clips["dataset"].isin(part.all_clips["dataset"])]


class MEGC2019(Composite):
    """CASME II, SAMM and SMIC-HS as in MEGC 2019 (See, Yap, Li, Hong and Wang, FG 2019): 442 clips, 68 subjects."""

    name: ClassVar[str] = "megc2019"
    default_protocol: ClassVar[str] = "megc2019"

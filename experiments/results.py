"""A folder of results: cells, their folds with a file of predictions each, what they share, the pool. No torch."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from yaml import AliasEvent, CollectionEndEvent, CollectionStartEvent, YAMLError

from data_modules import protocols
from data_modules.cache import store
from data_modules.cache.store import whole_file, write_text
from data_modules.processes.whole_files import writing
from data_modules.release.clip_table import complain
from experiments import predictions
from experiments.predictions import CLIP, MOST_BYTES, Pool
from mer import InputError

DEEPEST = 40  # lists and mappings inside one another
MOST_CHARACTERS = 1 << 20  # of a configuration
NUMBERS = ("seconds", "peak_memory_mb", "parameters")  # that are noted of a fold's run


@dataclass(frozen=True)
class Cell:
    """One dataset, protocol, split and model recipe; the seeds and folds trained for it lie in its folder.

    The scores of one with an ``outer_fold``, whose subjects are no part of its data, choose a recipe and are none of
    the protocol: the name of its folder is no split, so ``cells`` leaves it out.
    """

    results: Path
    dataset: str
    protocol: str
    split: str
    model: str
    digest: str
    outer_fold: str = ""

    @property
    def folder(self) -> Path:
        *folders, model, digest = self.names.values()
        return Path(self.results, *folders, f"{model}-{digest}")

    @property
    def names(self) -> dict[str, str]:
        """What tells the cell from others of the folder; the split with the outer fold that is left out, if one is."""
        names = {name: getattr(self, name) for name in ("dataset", "protocol", "split", "model", "digest")}
        return {**names, "split": f"{self.split}-without-{self.outer_fold}"} if self.outer_fold else names

    @property
    def label(self) -> str:
        """The model and the start of the digest, as tables name it."""
        return f"{self.model} ({self.digest[:6]})"

    @property
    def classes(self) -> tuple[str, ...]:
        return protocols.protocol(self.protocol).classes

    def write_header(self, clips: pd.DataFrame, config: str) -> None:
        """Write what all folds share, ``clips.csv`` and ``config.yaml``, unless it is there; a broken one goes aside.

        Raises:
            InputError: If nothing can be trained on these clips, the folder holds the folds of others, or the
                configuration has the key for W&B.
        """
        complain("the clip table", self._problems(clips), "Nothing can be trained on that.")
        protocols.folds(clips, self.split)  # complains of a split that cannot be, before anything is written
        secret = os.environ.get("WANDB_API_KEY")
        if secret and secret in config:
            raise InputError("an option holds the key for Weights & Biases, which is written nowhere; leave it away")
        for name, text, opens in (("clips.csv", clips.to_csv(index=False), self._has_clips),
                                  ("config.yaml", config, self.config)):  # fmt: skip
            path = self.folder / name
            if path.exists() and not opens():
                _move_aside(path)
            if not path.exists():
                write_text(path, text)
        if self.clips[CLIP].to_numpy().tolist() != clips[CLIP].astype(str).to_numpy().tolist():
            raise InputError(
                f"{self.folder}: holds folds of other clips ({len(self.clips)}, and now there are {len(clips)}): some "
                "could not be prepared then or now. Name another folder with --results, or move this one away"
            )

    def _problems(self, clips: pd.DataFrame) -> list[str]:
        """Why these cannot be the clips of the cell."""
        subjects = {*(clips["dataset"] + "-" + clips["subject"]), self.outer_fold}
        return [
            *(f"subject '{name}' is no name for a file" for name in sorted(subjects) if re.search(r"[/\\\0]", name)),
            *(f"clip {' '.join(clip)} stands twice" for clip in clips[CLIP[:3]][clips.duplicated(CLIP[:3])].to_numpy()),
            *(f"'{name}' is no class" for name in sorted(set(clips["target"]).difference(self.classes))),
            *(["it is empty"] if clips.empty else []),
        ]

    def _has_clips(self) -> bool:
        try:
            return self.clips is not None
        except InputError:
            return False

    def config(self) -> dict:
        """The configuration that the folds were trained with; empty if the file is missing or damaged."""
        try:
            text = (self.folder / "config.yaml").read_text()
            check_yaml(text)
            config = yaml.safe_load(text)
        except (OSError, ValueError, YAMLError):
            return {}
        return config if isinstance(config, dict) else {}

    @cached_property
    def clips(self) -> pd.DataFrame:
        """The clip table that the folds are made of.

        Raises:
            InputError: If the file is missing or damaged.
        """
        path = self.folder / "clips.csv"
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ValueError(f"it has over {MOST_BYTES >> 20} MB")
            clips = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False).fillna("")
            if problems := self._problems(clips):
                raise ValueError(problems[0])
            return clips[[*CLIP, *clips.columns.difference(CLIP, sort=False)]]
        except (OSError, ValueError, KeyError) as error:
            why = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: is not the clip table of a sweep ({why})") from error

    @cached_property
    def folds(self) -> dict[str, list[int]]:
        """Rows of ``clips`` that each fold holds out, by fold name."""
        return protocols.folds(self.clips, self.split)

    def seeds(self) -> list[int]:
        """Those with a file of predictions."""
        names = (path.name.removeprefix("seed") for path in self.folder.glob("seed*") if any(path.glob("*.csv")))
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal() and len(name) < 16)

    def pool(self, seed: int) -> Pool:
        """All folds of a seed that have a file, read and checked.

        Raises:
            InputError: If the clip table is missing or damaged.
        """
        try:
            with os.scandir(self.folder / f"seed{seed}") as entries:
                names = {entry.name for entry in entries if entry.is_file()}
        except OSError:
            names = set()
        return self.read_files({name: Fold(self, name, seed).file for name in self.folds if f"{name}.csv" in names})

    def pooled(self, seed: int) -> pd.DataFrame:
        """Predictions of all folds done, one row per clip; empty if there are none."""
        return self.pool(seed).table

    def done(self, seed: int) -> list[str]:
        """Names of the folds that have a valid file."""
        return self.pool(seed).done

    def set_aside(self, seed: int) -> dict[Path, str]:
        """Move every file that is not valid to ``<fold>.csv.bad``, so that its fold is trained again.

        Returns:
            Where they lie now, and what is wrong with them.
        """
        moved = {}
        for name in self.pool(seed).faults:
            path = Fold(self, name, seed).file
            faults = self.read_files({name: path}).faults  # read again: meanwhile another sweep may have mended it
            if faults and (place := _move_aside(path)):
                moved[place] = faults[name]
        return moved

    def read_files(self, files: Mapping[str, Path]) -> Pool:
        """Files of predictions, by fold, read and checked."""
        return predictions.pool(files, self.clips, self.folds, self.classes)


@dataclass(frozen=True)
class Fold:
    """One thing to train: a fold of a cell, by name, with a seed."""

    cell: Cell
    name: str
    seed: int

    @property
    def file(self) -> Path:
        """The predictions; the fold is done when this file exists."""
        return self.cell.folder / f"seed{self.seed}" / f"{self.name}.csv"

    @property
    def is_done(self) -> bool:
        return self.file.exists()

    def write(self, table: pd.DataFrame, facts: dict, pictures: Mapping[str, np.ndarray]) -> None:
        """Write the pictures of its clips and the facts about its run first, the predictions last.

        Raises:
            ValueError: If these are no predictions of the fold; nothing is written.
        """
        with whole_file(self.file) as temporary:
            temporary.write_text(table.to_csv(index=False))
            if why := self.cell.read_files({self.name: temporary}).faults.get(self.name):
                raise ValueError(
                    f"{self.cell.model}, {self.name}, seed {self.seed}: {why}. Has the training diverged? Lower "
                    "--model.lr"
                )
            if pictures:
                store.write(self.file.with_suffix(".safetensors"), pictures)
            write_text(self.file.with_suffix(".json"), json.dumps(facts, default=float) + "\n")

    def read(self) -> pd.DataFrame:
        """The predictions.

        Raises:
            InputError: If the file is missing or not valid.
        """
        pool = self.cell.read_files({self.name: self.file})
        if pool.faults:
            raise InputError(f"{self.file}: is not the result of this fold ({pool.faults[self.name]}); sweep again")
        return pool.table

    def record(self) -> dict:
        """All that was noted about its run, the training curve too; empty if the file is missing or damaged."""
        path = self.file.with_suffix(".json")
        try:
            content = json.loads(path.read_text()) if path.is_file() and path.stat().st_size < MOST_BYTES else {}
        except (OSError, ValueError, RecursionError):
            content = {}
        return content if isinstance(content, dict) else {}

    def facts(self) -> dict:
        """Those that are what they should be: numbers from 0 to 1e12, texts and lists of texts that can be printed."""
        content = self.record()
        facts: dict = {name: n for name, n in content.items()
                       if name in NUMBERS and isinstance(n, int | float) and 0 <= n < 1e12}  # fmt: skip
        facts |= {name: content[name] for name in ("device", "recipe") if _is_text(content.get(name))}
        for name in ("tuned_on", "options"):
            if isinstance(texts := content.get(name), list) and all(map(_is_text, texts)):
                facts[name] = texts
        return facts


def cells(results: Path) -> Iterator[Cell]:
    """Every cell that a sweep has left in a results folder, sorted by path."""
    for folder in sorted(folder for folder in results.glob("*/*/*/*-*") if folder.is_dir()):
        dataset, protocol, split, name = folder.parts[-4:]
        if protocols.is_protocol(protocol) and protocols.is_split(split):
            model, _, digest = name.rpartition("-")
            yield Cell(results, dataset, protocol, split, model, digest)


def check_yaml(text: str) -> None:
    """Refuse YAML that a few lines could make grow without end: aliases, or many collections inside one another.

    Raises:
        YAMLError: If it is such, or no YAML.
    """
    if len(text) > MOST_CHARACTERS:
        raise YAMLError(f"it has over {MOST_CHARACTERS} characters, as no configuration has")
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent):
            raise YAMLError(f"the alias *{event.anchor}: write what it stands for")
        if depth > DEEPEST:
            raise YAMLError(f"over {DEEPEST} lists or mappings lie inside one another")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value.isprintable()


def _move_aside(path: Path) -> Path | None:
    """Rename a file to ``<name>.bad``, or ``.bad2`` and so on where there is one; None if somebody else has."""
    names = (f"{path.name}.bad{number if number > 1 else ''}" for number in count(1))
    place = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    try:
        with writing(path, place):
            os.rename(path, place)
    except FileNotFoundError:
        return None
    return place

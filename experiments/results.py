"""Where predictions lie: one file per fold, what is pending, the pooled table. No torch."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from data_modules import protocols
from data_modules.cache import store
from data_modules.cache.store import write_text
from data_modules.release.clip_table import complain
from experiments import predictions
from experiments.plain_yaml import check_yaml
from experiments.predictions import CLIP, LARGEST, Pool
from mer import InputError


@dataclass(frozen=True)
class Cell:
    """One dataset, protocol, split and model recipe; the seeds and folds trained for it lie in its folder."""

    results: Path
    dataset: str
    protocol: str
    split: str
    model: str
    digest: str

    @property
    def folder(self) -> Path:
        return self.results / self.dataset / self.protocol / self.split / f"{self.model}-{self.digest}"

    @property
    def classes(self) -> tuple[str, ...]:
        return protocols.protocol(self.protocol).classes

    def describe(self, clips: pd.DataFrame, config: str) -> None:
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
                                  ("config.yaml", config, self._has_config)):  # fmt: skip
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
        subjects = (clips["dataset"] + "-" + clips["subject"]).drop_duplicates()
        return [
            *(f"subject '{name}' is no name for a file" for name in subjects if re.search(r"[/\\\0]", name)),
            *(f"clip {' '.join(clip)} stands twice" for clip in clips[CLIP[:3]][clips.duplicated(CLIP[:3])].to_numpy()),
            *(f"'{name}' is no class" for name in sorted(set(clips["target"]).difference(self.classes))),
            *(["it is empty"] if clips.empty else []),
        ]

    def _has_clips(self) -> bool:
        try:
            return self.clips is not None
        except InputError:
            return False

    def _has_config(self) -> bool:
        try:
            text = (self.folder / "config.yaml").read_text()
            check_yaml(text)
            return isinstance(yaml.safe_load(text), dict)
        except (OSError, ValueError, yaml.YAMLError):
            return False

    @cached_property
    def clips(self) -> pd.DataFrame:
        """The clip table that the folds are made of.

        Raises:
            InputError: If the file is missing or damaged.
        """
        path = self.folder / "clips.csv"
        try:
            if path.stat().st_size > LARGEST:
                raise ValueError(f"it has over {LARGEST >> 20} MB")
            clips = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False).fillna("")
            if problems := self._problems(clips):
                raise ValueError(problems[0])
            return clips[[*CLIP, *clips.columns.difference(CLIP, sort=False)]]
        except (OSError, ValueError, KeyError) as error:
            why = " ".join(str(error).split())[:200]
            raise InputError(f"{path}: is not the clip table of a sweep ({why})") from error

    @cached_property
    def folds(self) -> list[str]:
        return list(self._rows)

    @cached_property
    def _rows(self) -> dict[str, list[int]]:
        """Rows of the clip table by fold."""
        return protocols.folds(self.clips, self.split)

    def file(self, seed: int, fold: str) -> Path:
        """The fold's predictions; the fold is done when this file exists."""
        return self.folder / f"seed{seed}" / f"{fold}.csv"

    def seeds(self) -> list[int]:
        found = (path.name.removeprefix("seed") for path in self.folder.glob("seed*") if any(path.glob("*.csv")))
        return sorted(int(seed) for seed in found if seed.isascii() and seed.isdecimal() and len(seed) < 16)

    def pool(self, seed: int) -> Pool:
        """All folds of a seed that have a file, read and checked.

        Raises:
            InputError: If the clip table is missing or damaged.
        """
        try:
            with os.scandir(self.folder / f"seed{seed}") as entries:
                there = {entry.name for entry in entries if entry.is_file()}
        except OSError:
            there = set()
        files = {fold: self.file(seed, fold) for fold in self.folds if f"{fold}.csv" in there}
        return predictions.pool(files, self.clips, self._rows, self.classes)

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
        for fold in self.pool(seed).faults:
            path = self.file(seed, fold)
            why = self._fault(fold, path)  # asked again: meanwhile another sweep may have mended it
            if why and (place := _move_aside(path)):
                moved[place] = why
        return moved

    def _fault(self, fold: str, path: Path) -> str:
        return predictions.pool({fold: path}, self.clips, self._rows, self.classes).faults.get(fold, "")

    def write(self, seed: int, fold: str, table: pd.DataFrame, facts: dict, pictures: Mapping[str, np.ndarray]) -> None:
        """Write a fold: the pictures of its clips and the facts about its run first, the predictions last.

        Raises:
            ValueError: If these are no predictions of the fold; nothing is written.
        """
        path = self.file(seed, fold)
        with store.whole_file(path) as temporary:
            temporary.write_text(table.to_csv(index=False))
            if why := self._fault(fold, temporary):
                raise ValueError(
                    f"{self.model}, {fold}, seed {seed}: {why}. Has the training diverged? Lower --model.lr"
                )
            if pictures:
                store.write(path.with_suffix(".safetensors"), pictures)
            write_text(path.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")

    def read(self, seed: int, fold: str) -> pd.DataFrame:
        """The predictions of one fold.

        Raises:
            InputError: If the file is missing or not valid.
        """
        path = self.file(seed, fold)
        found = predictions.pool({fold: path}, self.clips, self._rows, self.classes)
        if found.faults:
            raise InputError(f"{path}: is not the result of this fold ({found.faults[fold]}); sweep again")
        return found.table

    def facts(self, seed: int, folds: Iterable[str]) -> list[dict]:
        """Seconds, memory and device of some folds, as far as their files open: nothing depends on them."""
        return [_facts(self.file(seed, fold).with_suffix(".json")) for fold in folds]


def cells(results: Path) -> Iterator[Cell]:
    """Every cell that a sweep has left in a results folder, sorted by path."""
    for dataset in _folders(results):
        for protocol in _folders(dataset):
            if protocol.name in protocols.PROTOCOLS:
                for folder in (folder for split in _folders(protocol) for folder in _folders(split)):
                    model, dash, digest = folder.name.rpartition("-")
                    if dash and protocols.is_split(folder.parent.name):
                        yield Cell(results, dataset.name, protocol.name, folder.parent.name, model, digest)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []


def _facts(path: Path) -> dict:
    try:
        found = json.loads(path.read_text()) if path.is_file() and path.stat().st_size < LARGEST else {}
    except (OSError, ValueError, RecursionError):
        found = {}
    facts = found if isinstance(found, dict) else {}
    numbers = {name: facts[name] for name in ("seconds", "peak_memory_mb") if isinstance(facts.get(name), int | float)}
    valid: dict = {name: value for name, value in numbers.items() if 0 <= value < 1e12}
    device = facts.get("device")
    return valid | ({"device": device} if isinstance(device, str) and device.isprintable() else {})


def _move_aside(path: Path) -> Path | None:
    """Rename a file to ``<name>.bad``, or ``.bad2`` and so on where there is one; None if somebody else has."""
    names = (f"{path.name}.bad{number if number > 1 else ''}" for number in count(1))
    place = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    try:
        os.rename(path, place)
    except FileNotFoundError:
        return None
    return place

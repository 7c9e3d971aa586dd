"""Where predictions lie: one file per fold, what is pending, the pooled table. No torch."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from data_modules import cache, protocols
from data_modules.cache import write_text
from mer import InputError

CLIP = ["dataset", "subject", "clip", "target"]
TEXT = ("dataset", "subject", "clip", "target", "prediction", "optimistic_prediction")


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
        """Write what all folds share, ``clips.csv`` and ``config.yaml``, unless it is there."""
        texts = {"clips.csv": clips.to_csv(index=False), "config.yaml": config}
        for name, text in texts.items():
            if not (self.folder / name).exists():
                write_text(self.folder / name, text)

    @cached_property
    def clips(self) -> pd.DataFrame:
        """The clip table that the folds are made of.

        Raises:
            InputError: If the file is missing or damaged.
        """
        path = self.folder / "clips.csv"
        try:
            clips = pd.read_csv(path, dtype=str, keep_default_na=False)
            return clips[[*CLIP, *clips.columns.difference(CLIP, sort=False)]]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: is not the clip table of a sweep ({error}); run the sweep again") from error

    @cached_property
    def folds(self) -> list[str]:
        return list(protocols.folds(self.clips, self.split))

    def file(self, seed: int, fold: str) -> Path:
        """The fold's predictions; the fold is done when this file exists."""
        return self.folder / f"seed{seed}" / f"{fold}.csv"

    def seeds(self) -> list[int]:
        found = (path.name.removeprefix("seed") for path in self.folder.glob("seed*") if any(path.glob("*.csv")))
        return sorted(int(seed) for seed in found if seed.isdigit())

    def done(self, seed: int) -> list[str]:
        """Names of the folds that have a file."""
        there = {path.stem for path in (self.folder / f"seed{seed}").glob("*.csv")}
        return [fold for fold in self.folds if fold in there]

    def write(
        self, seed: int, fold: str, predictions: pd.DataFrame, facts: dict, pictures: Mapping[str, np.ndarray]
    ) -> None:
        """Write a fold: the pictures of its clips and the facts about its run first, the predictions last."""
        path = self.file(seed, fold)
        if pictures:
            cache.write(path.with_suffix(".safetensors"), pictures)
        write_text(path.with_suffix(".json"), json.dumps(facts, indent=1) + "\n")
        write_text(path, predictions.to_csv(index=False))

    def read(self, seed: int, fold: str) -> pd.DataFrame:
        """The predictions of one fold.

        Raises:
            InputError: If the file is damaged; deleting it has the fold trained again.
        """
        path = self.file(seed, fold)
        try:
            table = pd.read_csv(path, dtype=dict.fromkeys(TEXT, str), keep_default_na=False)
            for column in TEXT[3:]:
                if unknown := set(table[column]).difference(self.classes):
                    raise ValueError(f"{column} '{min(unknown)}' is no class of {self.protocol}")
            return table[[*TEXT[:5], *(f"p_{name}" for name in self.classes), TEXT[5]]]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{path}: is not a table of predictions ({error}); delete it and sweep again") from error

    def facts(self, seed: int) -> list[dict]:
        """Seconds, memory, device of every fold that is done.

        Raises:
            InputError: If a file is damaged.
        """
        paths = (self.file(seed, fold).with_suffix(".json") for fold in self.done(seed))
        return [_facts(path) for path in paths if path.exists()]

    def pooled(self, seed: int) -> pd.DataFrame:
        """Predictions of all folds done, one row per clip; empty if there are none."""
        tables = [self.read(seed, fold) for fold in self.done(seed)]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=TEXT)


def cells(results: Path) -> Iterator[Cell]:
    """Every cell that a sweep has left in a results folder, sorted by path."""
    for config in sorted(results.glob("*/*/*/*/config.yaml")):
        dataset, protocol, split, recipe, _ = config.relative_to(results).parts
        model, _, digest = recipe.rpartition("-")
        if protocol in protocols.PROTOCOLS and protocols.is_split(split):
            yield Cell(results, dataset, protocol, split, model, digest)


def _facts(path: Path) -> dict:
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: does not open ({error}); delete it: only the fold's seconds are lost") from error
    if not isinstance(facts, dict):
        raise InputError(f"{path}: holds no facts about a fold; delete it: only the fold's seconds are lost")
    return facts

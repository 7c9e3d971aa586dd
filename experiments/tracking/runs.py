"""What a run on W&B is: its id, names, configuration, curve, scores, tables and artifacts, made of the results folder.

A run is made of parts, one per fold, each known by the digest of its predictions. Where what was uploaded is the start
of what is there now, the run is continued; where it is not, because a fold was trained again, there is a new run.
"""

from collections import defaultdict
from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import yaml

from experiments.results import Cell, Fold
from experiments.tracking.artifacts import log_files
from experiments.tracking.clip_pictures import clip_pictures
from experiments.tracking.figures import seed_scores
from mer.evaluation import scoring

if TYPE_CHECKING:
    import wandb

    from experiments.experiment import Experiment


def group_name(cell: Cell) -> str:
    """The group that all runs of a cell share; W&B takes 128 characters, and only own protocols have longer names."""
    name = "-".join(cell.names.values())
    return name if len(name) <= 128 else f"{name[:115]}-{cell.digest}"


@dataclass(frozen=True)
class Run:
    """A run, of one of the kinds below.

    Attributes:
        label: What it is of its cell and seed.
        kind: Its job type on W&B.
        metrics: What ``define_metric`` is given, by name.
        is_complete: Whether nothing will be added to it.
        parts: Digests of what it is made of, see above.
        config: What identifies it, see ``configuration``.
        points: Its history, by step.
        last_step: Of its history.
        figures: Its summary.
    """

    cell: Cell
    seed: int
    label: str
    metrics: ClassVar = {}
    is_complete: ClassVar = True
    points: ClassVar = {}
    figures: ClassVar = {}

    def id(self, after: str = "") -> str:
        """Its id on W&B: the same for the same results, and another one ``after`` that which cannot be used."""
        text = f"{group_name(self.cell)} {self.seed} {self.label} {self.parts[0]} {after}"
        return sha256(text.encode()).hexdigest()[:16]

    @property
    def name(self) -> str:
        return f"{self.cell.model} seed{self.seed} {self.label}"

    @property
    def settings(self) -> dict[str, Any]:
        """What ``wandb.init`` is given about it."""
        cell, config = self.cell, self.config
        tags = [cell.dataset, cell.protocol[:64], cell.names["split"], cell.model, str(config["recipe"])]
        return {
            "group": group_name(cell),
            "job_type": self.kind,
            "name": self.name,
            "tags": [tag for tag in tags if tag],
            "config": {**config, "seed": self.seed},
        }

    @property
    def last_step(self) -> int:
        return max(self.points, default=-1)

    def log(self, run: "wandb.Run") -> None:
        """Log the points that are not there yet."""
        for name, options in self.metrics.items():
            run.define_metric(name, **options)
        start = run.step
        for step, point in sorted(self.points.items()):
            if step >= start:
                run.log(point, step=step)

    def finish(self, run: "wandb.Run") -> None:
        """Add what a run has at its end."""


@dataclass(frozen=True)
class FoldRun(Run):
    """The run of a fold, after which it is labelled: its curve."""

    kind: ClassVar = "fold"
    metrics: ClassVar = {
        "train/loss": {"summary": "min"},
        "val/*": {"summary": "last"},
        "train/*": {"summary": "last", "hidden": True},  # panels for the loss alone, not for each term of it
        "lr": {"hidden": True},
    }

    @property
    def fold(self) -> Fold:
        return Fold(self.cell, self.label, self.seed)

    @cached_property
    def record(self) -> dict[str, Any]:
        return self.fold.record()

    @cached_property
    def parts(self) -> list[str]:
        return [_digest(self.fold.file)]

    @property
    def config(self) -> dict[str, Any]:
        shared = configuration(self.cell, self.cell.config(), self.record)
        return {**shared, "device": self.record.get("device"), "fold": self.label}

    @cached_property
    def points(self) -> dict[int, dict[str, float]]:
        """The curve, with one learning rate for all groups of parameters."""
        points: defaultdict[int, dict[str, float]] = defaultdict(dict)
        for row in self.record.get("curve", []):
            values = {"lr" if name.startswith("lr-") else name: value for name, value in row.items()}
            points[row["step"]] |= {name: value for name, value in values.items() if name not in ("step", "epoch")}
        return points

    @cached_property
    def figures(self) -> dict[str, float]:
        table = self.fold.read()
        facts = {name: self.record[name] for name in ("seconds", "steps", "peak_memory_mb") if name in self.record}
        return {**facts, "test/clips": len(table), "test/right": int((table["prediction"] == table["target"]).sum())}


@dataclass(frozen=True)
class PooledRun(Run):
    """The run of a cell and seed: the scores of the pool, as the folds end and with tables at the end.

    Attributes:
        cache: The cache folder, if pictures of the clips are to be logged.
    """

    label: str = "pooled"
    cache: Path | None = None
    kind: ClassVar = "sweep"
    metrics: ClassVar = {"folds_done": {"hidden": True}, "running/*": {"step_metric": "folds_done"}}

    @cached_property
    def folds(self) -> list[Fold]:
        """The folds that are done, in the order in which they ended."""
        folds = [Fold(self.cell, name, self.seed) for name in self.cell.done(self.seed)]
        return sorted(folds, key=lambda fold: (float(fold.record().get("ended", 0)), fold.name))

    @cached_property
    def parts(self) -> list[str]:
        return [_digest(fold.file) for fold in self.folds] + ["pictures"] * (self.cache is not None)

    @property
    def is_complete(self) -> bool:
        return len(self.folds) == len(self.cell.folds)

    @property
    def config(self) -> dict[str, Any]:
        return configuration(self.cell, self.cell.config(), self.folds[-1].record())

    @cached_property
    def points(self) -> dict[int, dict[str, float | None]]:
        """The state after each fold; the k-th one is step 2k, and one step more has the tables."""
        points, confusion = {}, 0
        for count, fold in enumerate(self.folds, 1):
            points[2 * count] = {"folds_done": count, "running/seconds": fold.record().get("seconds")}
            if not self.cell.outer_fold:  # whose scores a search may pick by, but not before every fold is done
                confusion = confusion + scoring.confusion(fold.read(), self.cell.classes)
                points[2 * count]["running/uf1"] = float(scoring.uf1(confusion))
        return points

    @property
    def last_step(self) -> int:
        return 2 * len(self.folds) + 1

    @cached_property
    def figures(self) -> dict[str, float]:
        return seed_scores(self.cell, self.seed)

    def finish(self, run: "wandb.Run") -> None:
        """Add the tables and predictions of what is there."""
        import wandb

        table, classes = self.cell.pooled(self.seed), list(self.cell.classes)
        if self.cache or run.step <= self.last_step:  # else they are there already
            pictures = clip_pictures(self.cell, self.seed, self.cache) if self.cache else {}
            confusion = wandb.plot.confusion_matrix(
                y_true=table["target"].map(classes.index).tolist(),
                preds=table["prediction"].map(classes.index).tolist(),
                class_names=classes,
                title="Confusion, true class by predicted class",
            )
            clips = wandb.Table(dataframe=table.assign(**pictures))
            run.log({"clips": clips, "confusion": confusion}, step=max(run.step, self.last_step))
        files = {"predictions.csv": table.to_csv(index=False)}
        fingerprint = self.folds[-1].record().get("fingerprint", "")
        log_files(run, f"predictions-{run.id}", "predictions", files, self.cell.clips, fingerprint)


@dataclass(frozen=True, kw_only=True)
class ModelRun(Run):
    """The run of a model that was fitted on all subjects, which has the model as an artifact.

    Attributes:
        cell: The cell whose score the model's recipe has.
        folder: Of the model.
        config: What identifies it, see ``configuration``.
        clips: What it was fitted on.
        fingerprint: Of these data.
        weights: Log the weights, too, not only the card and the configuration.
        registry: Collection of W&B's model registry that the model is linked to, if one is named.
    """

    label: str = "model"
    folder: Path
    config: dict[str, Any]
    clips: pd.DataFrame
    fingerprint: str
    weights: bool = False
    registry: str = ""
    kind: ClassVar = "model"

    @classmethod
    def of(cls, cell: Cell, seed: int, folder: Path, experiment: "Experiment", **more: Any) -> "ModelRun":
        """The run of a model that was made of an experiment."""
        config = configuration(cell, yaml.safe_load(experiment.yaml), experiment.origin)
        data = {"clips": experiment.data.clips, "fingerprint": experiment.data.fingerprint}
        return cls(cell, seed, folder=folder, config=config, **data, **more)

    @cached_property
    def files(self) -> dict[str, Path]:
        """What is logged: the card and the configuration, then the weights."""
        texts = (".md", ".yaml")
        files = (path for path in self.folder.iterdir() if self.weights or path.suffix in texts)
        return {path.name: path for path in sorted(files, key=lambda path: (path.suffix not in texts, path.name))}

    @cached_property
    def parts(self) -> list[str]:
        return [_digest(path) for path in self.files.values()]

    def log(self, run: "wandb.Run") -> None:
        model = log_files(run, self.folder.name, "model", self.files, self.clips, self.fingerprint)
        if self.registry:
            run.link_artifact(model, f"wandb-registry-model/{self.registry}")


def configuration(cell: Cell, config: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """What identifies the runs of a cell: its names, all that was configured, commit and versions; no path.

    Args:
        cell: The cell.
        config: What was configured.
        record: What was noted when it was trained, see ``Experiment.origin``.
    """
    private = {"root", "cache", "logger", *record.get("path_arguments", ())}  # a logger's address may hold a password
    return {
        **cell.names,
        "recipe": record.get("recipe", ""),
        "classes": list(cell.classes),
        "configuration": _without_paths(config, private),
        "commit": record.get("commit"),
        "versions": {"mer": record.get("mer", ""), **record.get("versions", {})},
    }


def _without_paths(config: Any, private: Set[str]) -> Any:
    """A configuration without any absolute path, and without what is called by a private name."""
    if isinstance(config, dict):
        shown = {name: value for name, value in config.items() if name not in private and not _is_path(value)}
        return {name: _without_paths(value, private) for name, value in shown.items()}
    if isinstance(config, list):
        return [_without_paths(value, private) for value in config if not _is_path(value)]
    return config


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("/", "~"))


def _digest(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()[:16]

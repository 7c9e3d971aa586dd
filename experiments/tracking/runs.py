"""What a run on W&B is: its id, names, configuration, curve, scores, tables and artifacts, made of the results folder.

A run is made of parts, one per fold, each known by the digest of its predictions. Where what was uploaded is the start
of what is there now, the run is continued; where it is not, because a fold was trained again, there is a new run.
"""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import yaml

from experiments.results import Cell, Fold
from experiments.tracking.artifacts import log_files
from experiments.tracking.figures import curve, seed_scores
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
        parts: Digests of what it is made of, see above.
        config: What identifies it, see ``configuration``.
        figures: Its summary.
        last_step: Of its history.
    """

    cell: Cell
    seed: int
    label: str
    figures: ClassVar = {}
    last_step: ClassVar = -1

    def id(self, number: int = 0) -> str:
        """Its id on W&B: the same for the same results, another ``number`` where that one cannot be used."""
        text = f"{group_name(self.cell)} {self.seed} {self.label} {self.parts[0]} {number}"
        return sha256(text.encode()).hexdigest()[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """What ``wandb.init`` is given about it."""
        cell, config = self.cell, self.config
        tags = [cell.dataset, cell.protocol[:64], cell.names["split"], cell.model, str(config["recipe"])]
        return {
            "group": group_name(cell),
            "job_type": self.kind,
            "name": f"{cell.model} seed{self.seed} {self.label}",
            "tags": [tag for tag in tags if tag],
            "config": {**config, "seed": self.seed},
        }

    def log(self, run: "wandb.Run") -> None:
        """Log what is not there yet."""

    def finish(self, run: "wandb.Run") -> None:
        """Add what a run has at its end."""


@dataclass(frozen=True)
class FoldRun(Run):
    """The run of a fold, after which it is labelled: its curve."""

    kind: ClassVar = "fold"

    @cached_property
    def fold(self) -> Fold:
        return Fold(self.cell, self.label, self.seed)

    @cached_property
    def parts(self) -> list[str]:
        return [_digest(self.fold)]

    @property
    def config(self) -> dict[str, Any]:
        record = self.fold.record()
        shared = configuration(self.cell, self.cell.config(), record)
        return {**shared, "device": record.get("device"), "fold": self.label}

    @cached_property
    def points(self) -> dict[int, dict[str, float]]:
        return curve(self.fold.record().get("curve", []))

    @property
    def last_step(self) -> int:
        return max(self.points, default=-1)

    @cached_property
    def figures(self) -> dict[str, float]:
        record, table = self.fold.record(), self.fold.read()
        right = int((table["prediction"] == table["target"]).sum())
        facts = {name: record[name] for name in ("seconds", "steps", "peak_memory_mb") if name in record}
        return {**facts, "test/clips": len(table), "test/right": right}

    def log(self, run: "wandb.Run") -> None:
        run.define_metric("train/loss", summary="min")
        run.define_metric("val/*", summary="last")
        run.define_metric("train/*", summary="last", hidden=True)  # panels for the loss alone, not for each term of it
        run.define_metric("lr", hidden=True)
        start = run.step
        for step, point in sorted(self.points.items()):
            if step >= start:
                run.log(point, step=step)


@dataclass(frozen=True)
class PooledRun(Run):
    """The run of a cell and seed: the scores of the pool, as the folds end and with tables at the end.

    Attributes:
        cache: The cache folder, if pictures of the clips are to be logged.
    """

    label: str = "pooled"
    cache: Path | None = None
    kind: ClassVar = "sweep"

    @cached_property
    def folds(self) -> list[Fold]:
        """The folds that are done, in the order in which they ended."""
        folds = [Fold(self.cell, name, self.seed) for name in self.cell.done(self.seed)]
        return sorted(folds, key=lambda fold: (float(fold.record().get("ended", 0)), fold.name))

    @cached_property
    def parts(self) -> list[str]:
        return [_digest(fold) for fold in self.folds] + ["pictures"] * (self.cache is not None)

    @property
    def is_complete(self) -> bool:
        return len(self.folds) == len(self.cell.folds)

    @property
    def config(self) -> dict[str, Any]:
        return configuration(self.cell, self.cell.config(), self.folds[-1].record())

    @property
    def last_step(self) -> int:
        return 2 * len(self.folds) + 1

    @cached_property
    def figures(self) -> dict[str, float]:
        return seed_scores(self.cell, self.seed)

    def log(self, run: "wandb.Run") -> None:
        """Log the state after each fold that has no point yet; the point of the k-th one is step 2k."""
        run.define_metric("folds_done", hidden=True)
        run.define_metric("running/*", step_metric="folds_done")
        start, tables = run.step, []
        for count, fold in enumerate(self.folds, 1):
            tables.append(fold.read())
            if 2 * count < start:
                continue
            point = {"folds_done": count, "running/seconds": fold.record().get("seconds")}
            if not self.cell.outer_fold:  # whose scores a search may pick by, but not before every fold is done
                pool = pd.concat(tables)
                point["running/uf1"] = float(scoring.uf1(scoring.confusion(pool, self.cell.classes)))
            run.log(point, step=2 * count)

    def finish(self, run: "wandb.Run") -> None:
        """Add the tables and predictions of what is there."""
        import wandb

        table = self.cell.pooled(self.seed)
        if table.empty:
            return
        columns = dict(table.items())
        if self.cache:
            from experiments.tracking.clip_pictures import clip_pictures

            columns |= {
                name: [None if picture is None else wandb.Image(picture) for picture in pictures]
                for name, pictures in clip_pictures(self.cell, self.seed, self.cache).items()
            }
        if self.cache or run.step <= self.last_step:  # else they are there already
            confusion = wandb.plot.confusion_matrix(
                y_true=table["target"].map(self.cell.classes.index).tolist(),
                preds=table["prediction"].map(self.cell.classes.index).tolist(),
                class_names=list(self.cell.classes),
                title="Confusion, true class by predicted class",
            )
            clips = wandb.Table(columns=list(columns), data=list(map(list, zip(*columns.values()))))
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
        return [sha256(path.read_bytes()).hexdigest()[:16] for path in self.files.values()]

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
    versions, data, trainer = record.get("versions", {}), config.get("data", {}), config.get("trainer", {})
    places = {"root", "cache", *record.get("path_arguments", ())}
    if "init_args" in data:
        arguments = {name: value for name, value in data["init_args"].items() if name not in places}
        config = {**config, "data": {**data, "init_args": arguments}}
    if "logger" in trainer:  # its address may hold a password
        config = {**config, "trainer": {name: value for name, value in trainer.items() if name != "logger"}}
    return {
        **cell.names,
        "recipe": record.get("recipe", ""),
        "classes": list(cell.classes),
        "configuration": _without_paths(config),
        "commit": record.get("commit"),
        "versions": {"mer": record.get("mer", ""), **(versions if isinstance(versions, dict) else {})},
    }


def _without_paths(config: Any) -> Any:
    """A configuration without any absolute path."""
    if isinstance(config, dict):
        return {name: _without_paths(value) for name, value in config.items() if not _is_path(value)}
    if isinstance(config, list):
        return [_without_paths(value) for value in config if not _is_path(value)]
    return config


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("/", "~"))


def _digest(fold: Fold) -> str:
    return sha256(fold.file.read_bytes()).hexdigest()[:16]

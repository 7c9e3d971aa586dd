"""What a run on W&B is: its id, names, configuration, curve, scores, tables and artifacts, made of the results folder.

A run is made of parts, one per fold, each known by the digest of its predictions. Where what was uploaded is the start
of what is there now, the run is continued; where it is not, because a fold was trained again, there is a new run.
"""

import tempfile
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd
import yaml

from experiments.results import Cell, Fold
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
class FoldRun:
    """The run of a fold: its curve."""

    fold: Fold
    kind: ClassVar[str] = "fold"

    @property
    def cell(self) -> Cell:
        return self.fold.cell

    @property
    def seed(self) -> int:
        return self.fold.seed

    @property
    def label(self) -> str:
        return self.fold.name

    @cached_property
    def parts(self) -> list[str]:
        return [_digest(self.fold)]

    @property
    def config(self) -> dict[str, Any]:
        record = self.fold.record()
        return {**configuration(self.cell, self.cell.config(), record), "device": record.get("device"),
                "fold": self.fold.name}  # fmt: skip

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
        """Log all that is not there yet."""
        run.define_metric("train/loss", summary="min")
        run.define_metric("val/*", summary="last")
        run.define_metric("train/*", summary="last", hidden=True)  # panels for the loss alone, not for each term of it
        run.define_metric("lr", hidden=True)
        start = run.step
        for step, point in sorted(self.points.items()):
            if step >= start:
                run.log(point, step=step)

    def finish(self, run: "wandb.Run") -> None:
        """Nothing: all is logged at once."""


@dataclass(frozen=True)
class PooledRun:
    """The run of a cell and seed: the scores of the pool, as the folds end and with tables at the end.

    Attributes:
        cache: The cache folder, if pictures of the clips are to be logged.
    """

    cell: Cell
    seed: int
    cache: Path | None = None
    kind: ClassVar[str] = "sweep"
    label: ClassVar[str] = "pooled"

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
        return configuration(self.cell, self.cell.config(), self.folds[-1].record() if self.folds else {})

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
        """Add the scores, tables and predictions of what is there."""
        import wandb

        table = self.cell.pooled(self.seed)
        if not table.empty:
            columns = dict(table.items())
            if self.cache:
                from experiments.tracking.clip_pictures import clip_pictures

                columns |= {
                    name: [None if picture is None else wandb.Image(picture) for picture in pictures]
                    for name, pictures in clip_pictures(self.cell, self.seed, self.cache).items()
                }
            confusion = wandb.plot.confusion_matrix(
                y_true=table["target"].map(self.cell.classes.index).tolist(),
                preds=table["prediction"].map(self.cell.classes.index).tolist(),
                class_names=list(self.cell.classes),
                title="Confusion, true class by predicted class",
            )
            clips = wandb.Table(columns=list(columns), data=list(map(list, zip(*columns.values()))))
            if self.cache or run.step <= self.last_step:  # else they are there already
                run.log({"clips": clips, "confusion": confusion}, step=max(run.step, self.last_step))
            predictions = wandb.Artifact(
                f"predictions-{run.id}", "predictions", metadata={"group": group_name(self.cell)}
            )
            file = Path(tempfile.mkdtemp()) / "predictions.csv"
            table.to_csv(file, index=False)
            predictions.add_file(str(file))  # a copy, which stays until it is uploaded; `new_file` keeps none
            _log_artifact(run, predictions)


@dataclass(frozen=True)
class ModelRun:
    """The run of a model that was fitted on all subjects, which has the model as an artifact.

    Attributes:
        cell: The cell whose score the model's recipe has.
        folder: Of the model.
        config: What identifies it, see ``configuration``.
        registry: Collection of W&B's model registry that the model is linked to, if one is named.
    """

    cell: Cell
    seed: int
    folder: Path
    config: dict[str, Any]
    registry: str = ""
    kind: ClassVar[str] = "model"
    label: ClassVar[str] = "model"
    last_step: ClassVar[int] = -1
    figures: ClassVar[dict[str, float]] = {}

    @classmethod
    def of(cls, cell: Cell, seed: int, folder: Path, experiment: "Experiment", registry: str = "") -> "ModelRun":
        """The run of a model that was made of an experiment."""
        config = configuration(cell, yaml.safe_load(experiment.yaml), experiment.origin)
        return cls(cell, seed, folder, config, registry)

    @cached_property
    def parts(self) -> list[str]:
        content = b"".join(path.read_bytes() for path in sorted(self.folder.iterdir()))
        return [sha256(content).hexdigest()[:16]]

    def log(self, run: "wandb.Run") -> None:
        """Log the files."""
        import wandb

        model = wandb.Artifact(self.folder.name, "model", metadata={"group": group_name(self.cell), **self.config})
        for path in sorted(self.folder.iterdir()):
            model.add_file(str(path))
        _log_artifact(run, model)
        if self.registry:
            run.link_artifact(model, f"wandb-registry-model/{self.registry}")

    def finish(self, run: "wandb.Run") -> None:
        """Nothing: all is logged at once."""


Run = FoldRun | PooledRun | ModelRun


def run_id(run: Run, number: int = 0) -> str:
    """The id of a run: the same for the same results, another ``number`` where that one cannot be used."""
    return sha256(f"{group_name(run.cell)} {run.seed} {run.label} {run.parts[0]} {number}".encode()).hexdigest()[:16]


def settings(run: Run) -> dict[str, Any]:
    """What ``wandb.init`` is given about a run."""
    cell, config = run.cell, run.config
    return {
        "group": group_name(cell),
        "job_type": run.kind,
        "name": f"{cell.model} seed{run.seed} {run.label}",
        "tags": [cell.dataset, cell.protocol[:64], cell.names["split"], cell.model, str(config["recipe"])],
        "config": {**config, "seed": run.seed},
    }


def configuration(cell: Cell, config: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """What identifies the runs of a cell: its names, all that was configured, commit and versions; no path.

    Args:
        cell: The cell.
        config: What was configured.
        record: What was noted when it was trained, see ``Experiment.origin``.
    """
    versions, data = record.get("versions", {}), config.get("data", {})
    places = {"root", "cache", *record.get("path_arguments", ())}
    if "init_args" in data:
        arguments = {name: value for name, value in data["init_args"].items() if name not in places}
        config = {**config, "data": {**data, "init_args": arguments}}
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


def _log_artifact(run: "wandb.Run", artifact: "wandb.Artifact") -> None:
    """Log an artifact and wait until the server has it.

    Raises:
        ValueError: If the server did not take it.
    """
    logged = run.log_artifact(artifact)
    if not run.offline:
        logged.wait()


def _digest(fold: Fold) -> str:
    return sha256(fold.file.read_bytes()).hexdigest()[:16]

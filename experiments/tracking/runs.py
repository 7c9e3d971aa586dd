"""Runs of W&B: their names, groups, configuration, curves, scores, tables and artifacts, and who may be a trial."""

import json
import os
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.error import HTTPError
from urllib.request import urlopen

import yaml

from experiments import report
from experiments.report.scores import KINDS
from experiments.results import Cell, Fold
from mer import InputError, __version__
from mer.evaluation import scoring

if TYPE_CHECKING:
    import wandb

    from experiments.experiment import Experiment

ANSWER = 5.0  # seconds in which W&B has to answer at all


@dataclass(frozen=True)
class Entry:
    """Something to log.

    Attributes:
        kind: ``begin`` opens the run of a cell and seed, which then measures the machine; ``sweep`` adds the pooled
            scores and ends it; ``fold`` and ``model`` are whole runs.
        config: What identifies the run, see ``configuration``.
        fold: Name of the fold.
        curve: What was logged while it trained; each row has a ``step``.
        cache: The cache folder, if pictures of the clips are to be logged.
        model: Folder of a model that was fitted.
        registry: Collection of W&B's model registry that the model is linked to, if one is named.
    """

    kind: Literal["begin", "fold", "sweep", "model"]
    cell: Cell
    seed: int
    config: dict[str, Any] = field(default_factory=dict)
    fold: str = ""
    curve: Sequence[dict] = ()
    cache: Path | None = None
    model: Path | None = None
    registry: str = ""


def is_trial() -> bool:
    """Whether an agent of a W&B search has started this process, which is then a trial: one run, with a given id."""
    return bool(os.environ.get("WANDB_SWEEP_ID"))


def check_trial(experiments: Sequence["Experiment"], seeds: Sequence[int]) -> None:
    """Refuse a trial whose objective would not be a score on inner subjects.

    Raises:
        InputError: With what to change in the command of the search.
    """
    if len(experiments) != 1 or len(seeds) != 1:
        raise InputError("a trial of a W&B search is one model and one seed; name them with --model and --seeds")
    data = experiments[0].data
    if not data.outer_fold:
        raise InputError(
            "a W&B search may not choose by the subjects that test the result, and these data leave out no outer fold. "
            f"Name one, e.g. --data.outer_split={data.split} --data.outer_fold={next(iter(data.folds))}"
        )


def configuration(experiment: "Experiment") -> dict[str, Any]:
    """What identifies the runs of a cell: its names, all that was configured, commit and versions; no path."""
    resolved = yaml.safe_load(experiment.yaml)
    for name in experiment.data.path_arguments:
        resolved["data"]["init_args"].pop(name, None)
    return {
        **experiment.cell.names,
        "recipe": experiment.job.recipe,
        "classes": list(experiment.cell.classes),
        "configuration": resolved,
        "commit": commit(),
        "versions": {"mer": __version__},
    }


def commit(file: Path = Path(__file__)) -> str | None:
    """The git commit of mer, with ``-dirty`` where files differ from it; None if it is not a checkout."""
    git = ["git", "-C", str(file.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], capture_output=True, check=True, timeout=10)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, capture_output=True, check=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def group_name(cell: Cell) -> str:
    """The group that all runs of a cell share; W&B takes 128 characters, and only own protocols have longer names."""
    name = "-".join(cell.names.values())
    return name if len(name) <= 128 else f"{name[:115]}-{cell.digest}"


def run_id(cell: Cell, seed: int, fold: str = "pooled") -> str:
    """The id of a run; the same fold trained again has the same one and takes its place."""
    return sha256(f"{group_name(cell)} {seed} {fold}".encode()).hexdigest()[:16]


def seed_scores(cell: Cell, seed: int) -> dict[str, float]:
    """The report's scores of one seed, flat, with an interval for every score and the scores of every class.

    They are called ``honest/...`` and ``optimistic/...``; honest scores of inner folds are ``inner/...``, and there
    are none before every inner fold is done, because a search may pick by them.
    """
    table, status = cell.pooled(seed), report.seed_status(cell, seed)
    for kind, column in KINDS.items():
        if table.empty:
            continue
        for score, (low, high) in scoring.intervals([table], cell.classes, column).items():
            status[kind] |= {f"{score}_low": low, f"{score}_high": high}
        status[kind]["classes"] = scoring.per_class(table, cell.classes, column)
    if cell.outer_fold:
        scores = status.pop("honest")
        if status["folds_done"] == status["folds_total"]:
            status["inner"] = scores
    return {name: value for name, value in _flat(status) if name != "seed"}


def _flat(values: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", value


def curve(rows: Sequence[dict]) -> dict[int, dict[str, float]]:
    """What was logged at each step of a fold, one learning rate for all groups of parameters."""
    points: defaultdict[int, dict[str, float]] = defaultdict(dict)
    for row in rows:
        values = {"lr" if name.startswith("lr-") else name: value for name, value in row.items()}
        points[row["step"]] |= {name: value for name, value in values.items() if name not in ("step", "epoch")}
    return points


class Log:
    """Writes entries as runs.

    Args:
        results: Where wandb makes its folder.
        offline: Whether to write files only; else that depends on ``WANDB_MODE`` and on whether there is a key.
        sweep: Id of the process whose tree the system metrics are of.

    Raises:
        OSError: If W&B is to be reached and does not answer; wandb itself would try again for minutes.
    """

    def __init__(self, results: Path, offline: bool, sweep: int):
        import wandb

        self.wandb, self.results, self.sweep = wandb, results, sweep
        with_key = "online" if wandb.api.api_key else "offline"
        self.mode = "offline" if offline else os.environ.get("WANDB_MODE") or with_key
        if self.mode == "online":
            with suppress(HTTPError):  # an answer, too
                urlopen(wandb.setup().settings.base_url, timeout=ANSWER).close()
        self.open: dict[tuple[Cell, int], wandb.Run] = {}

    def __call__(self, entry: Entry) -> None:
        """Log one entry."""
        key = (entry.cell, entry.seed)
        if entry.kind == "begin":
            self.open[key] = self._init(entry)
        elif entry.kind == "fold":
            self._fold(entry)
        elif entry.kind == "model":
            self._model(entry)
        else:
            self._sweep(entry, self.open.pop(key, None) or self._init(entry))

    def close(self) -> None:
        """End wandb's own process."""
        self.wandb.teardown()

    def _init(self, entry: Entry) -> "wandb.Run":
        cell, kind, fold = entry.cell, "sweep" if entry.kind == "begin" else entry.kind, entry.fold or "pooled"
        fold = kind if kind == "model" else fold
        given = is_trial()  # then the agent gives the project and the id
        return self.wandb.init(
            project=None if given else os.environ.get("WANDB_PROJECT") or "mer",
            id=None if given else run_id(cell, entry.seed, fold),
            group=group_name(cell),
            job_type=kind,
            name=f"{cell.model} seed{entry.seed} {fold}",
            tags=[cell.dataset, cell.protocol[:64], cell.names["split"], cell.model, entry.config["recipe"]],
            config={**entry.config, "seed": entry.seed, **({"fold": entry.fold} if entry.fold else {})},
            dir=str(self.results),
            mode=self.mode,
            reinit="create_new",
            settings=self.wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,  # mer's commit is in the config; this would be that of the current folder
                x_disable_meta=True,  # the command line, with the paths in it
                x_save_requirements=False,
                x_disable_stats=kind != "sweep",
                x_stats_pid=self.sweep,
                x_stats_track_process_tree=True,
            ),
        )

    def _fold(self, entry: Entry) -> None:
        fold = Fold(entry.cell, entry.fold, entry.seed)
        facts = json.loads(fold.file.with_suffix(".json").read_text())
        run = self._init(entry)
        run.config.update(
            {"versions": {**entry.config["versions"], **facts["versions"]}, "device": facts["device"]},
            allow_val_change=True,
        )
        run.define_metric("train/loss", summary="min")
        run.define_metric("val/*", summary="last")
        run.define_metric("train/*", summary="last", hidden=True)  # panels for the loss alone, not for each term of it
        run.define_metric("lr", hidden=True)
        for step, point in sorted(curve(entry.curve).items()):
            run.log(point, step=step)
        table = fold.read()
        right = int((table["prediction"] == table["target"]).sum())
        run.summary.update({"test/clips": len(table), "test/right": right})
        run.summary.update({name: facts[name] for name in ("seconds", "steps", "peak_memory_mb")})
        run.finish()

    def _model(self, entry: Entry) -> None:
        run, folder = self._init(entry), Path(str(entry.model))
        model = self.wandb.Artifact(folder.name, "model", metadata={"group": group_name(entry.cell), **entry.config})
        for path in sorted(folder.iterdir()):
            model.add_file(str(path))
        run.log_artifact(model)
        if entry.registry:
            run.link_artifact(model, f"wandb-registry-model/{entry.registry}")
        run.finish()

    def _sweep(self, entry: Entry, run: "wandb.Run") -> None:
        cell, table = entry.cell, entry.cell.pooled(entry.seed)
        values: dict[str, Any] = seed_scores(cell, entry.seed)
        if not table.empty:
            columns = dict(table.items())
            if entry.cache:
                from experiments.tracking.clip_pictures import clip_pictures

                columns |= {
                    name: [None if picture is None else self.wandb.Image(picture) for picture in pictures]
                    for name, pictures in clip_pictures(cell, entry.seed, entry.cache).items()
                }
            values["clips"] = self.wandb.Table(columns=list(columns), data=list(map(list, zip(*columns.values()))))
            values["confusion"] = self.wandb.plot.confusion_matrix(
                y_true=table["target"].map(cell.classes.index).tolist(),
                preds=table["prediction"].map(cell.classes.index).tolist(),
                class_names=list(cell.classes),
                title="Confusion, true class by predicted class",
            )
            predictions = self.wandb.Artifact(
                f"predictions-{run.id}", "predictions", metadata={"group": group_name(cell)}
            )
            file = Path(tempfile.mkdtemp()) / "predictions.csv"
            table.to_csv(file, index=False)
            predictions.add_file(str(file))  # a copy, which stays until it is uploaded; `new_file` keeps none
            run.log_artifact(predictions)
        run.log(values)
        run.finish()

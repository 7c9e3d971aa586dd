"""A model's card: what it was trained on, how good the recipe is on people it has not seen, what it is not for."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from data_modules import DATASETS, data_module
from data_modules.base import FlowDataModule
from experiments.experiment import Experiment
from experiments.report import html
from experiments.report.comparison import ModelScores, read_model
from experiments.results import Cell
from mer import InputError

SCORES = {"uf1": "UF1", "uar": "UAR", "accuracy": "accuracy"}


def card(experiment: Experiment, cell: Cell, config: Mapping[str, Any]) -> str:
    """The text of ``README.md``, with a header that hubs of models read.

    Everything in it follows from the results folder and the model's ``config.yaml``.

    Args:
        experiment: What was fitted.
        cell: Whose folds have tested the recipe on held-out subjects.
        config: The model's ``config.yaml``.
    """
    scores, data = _scores(cell), experiment.data
    name = f"{data.name}-{cell.model}"  # of a recipe that was searched, <model>_searched
    return html.render(
        "card.md",
        "experiments.fitting",
        header=yaml.safe_dump(_header(name, experiment, scores), sort_keys=False, allow_unicode=True),
        name=name,
        cell=cell,
        scores=scores,
        names=SCORES,
        config=config,
        input={name: value for name, value in config["input"].items() if _is_read(name, config["input"]["inputs"])},
        example="clip" if "depth" in config["input"]["inputs"] else "clip.mp4",  # a folder: videos have no depth
        classes=data.classes,
        databases=[
            (name, own["subject"].nunique(), [int((own["target"] == label).sum()) for label in data.classes], len(own))
            for name, own in data.clips.groupby("dataset")
        ],
        licences=_licences(data),
        mirrored=experiment.config.model.init_args.get("mirror_test", False),
        weights=experiment.parameters,
        versions={"mer": config["mer"], **config.get("versions", {})},
        network=config["model"]["init_args"]["network"]["class_path"],
    )


def _is_read(name: str, inputs: Sequence[str]) -> bool:
    """Whether a setting of the input makes what the model reads: those of the flow do for a model that reads flow."""
    return "flow" in inputs or name not in ("method", "backend", "motion")


def _scores(cell: Cell) -> ModelScores | None:
    """The scores of a cell whose folds are all done, if they are."""
    try:
        model, _ = read_model(cell)
    except InputError:
        return None
    return model if model and model.complete else None


def _licences(data: FlowDataModule) -> dict[str, str]:
    """What each database's page says of its licence, by title."""
    names = [name for name in data.clips["dataset"].unique() if name in DATASETS]
    databases = [type(data), *(data_module(name) for name in names)]
    return {database.title: database.licence for database in databases if hasattr(database, "licence")}


def _header(name: str, experiment: Experiment, scores: ModelScores | None) -> dict[str, Any]:
    data = experiment.data
    header: dict[str, Any] = {
        "library_name": "mer",
        "license": "other",
        "license_name": "see-the-licences-of-the-databases",
        "pipeline_tag": "video-classification",
        "tags": ["micro-expression-recognition", "optical-flow", experiment.job.model_name],
    }
    if scores is None:
        return header
    task = {"type": "video-classification", "name": "micro-expression recognition"}
    dataset = {"type": data.name, "name": f"{data.name}, {data.protocol}", "split": data.split}
    metrics = [
        {"type": "f1" if score == "uf1" else score, "name": f"{text}, honest", "value": round(figures["mean"], 4)}
        for score, text in SCORES.items()
        for figures in [scores.summary["honest"][score]]
    ]
    return header | {
        "model-index": [{"name": name, "results": [{"task": task, "dataset": dataset, "metrics": metrics}]}]
    }

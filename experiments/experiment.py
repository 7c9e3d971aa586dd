"""An experiment: one dataset, model and recipe, resolved; where its predictions lie, and what builds its objects."""

import platform
import subprocess
from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import lightning
import torch
from jsonargparse import Namespace

from data_modules.action_units import check_coded
from data_modules.base import FlowDataModule
from data_modules.cache import store
from experiments import dataset
from experiments.configuration import ALONE, ELSEWHERE, parse, resolved
from experiments.jobs import Job, load_class
from experiments.results import Cell, Fold
from mer import InputError, __version__
from mer.training import stacked_task
from mer.training.stacked_task import StackedTask
from mer.training.task import Task


class Experiment:
    """A job's configuration, and its folds.

    Args:
        job: What the command line asks for.
        config: The job's configuration where another process has parsed it already.

    Raises:
        InputError: If the job names a dataset, model, recipe or option that there is not.
    """

    def __init__(self, job: Job, config: Namespace | None = None):
        self.job = job
        self.cli = parse(job) if config is None else resolved(job, config)
        self.config: Namespace = self.cli.config
        objects = self.instantiate()
        self.data: FlowDataModule = objects.data  # shared by all folds
        self.parameters = sum(weight.numel() for weight in objects.model.network.parameters())
        if self.config.stacked and config is None:
            self._check_stackable(objects.model)
        if self.config.model.init_args.get("action_units") and config is None:
            check_coded(self.data.clips)

    def _check_stackable(self, task: Task) -> None:
        """Complain before the first fold of a task that cannot be stacked."""
        batch = self.data.dummy_batch()
        few = {name: batch[name][:2] for name in (*self.data.inputs, "target")}
        try:
            stack = StackedTask([task, task], noise=(0, 1))
            stack.check_stackable({name: torch.stack([clips, clips]) for name, clips in few.items()})
        except ValueError as error:
            raise InputError(f"{self.job.model_name}: {error}; {ALONE}") from error

    @cached_property
    def cell(self) -> Cell:
        """Where the predictions lie."""
        job, data = self.job, self.data
        names = data.name, data.protocol, data.split, job.model_name, self.digest
        return Cell(Path(job.results), *names, outer_fold=data.outer_fold)

    def folds(self, seeds: Iterable[int] = (0,)) -> list[Fold]:
        """All folds of some seeds."""
        return [Fold(self.cell, name, seed) for seed in seeds for name in self.data.folds]

    @cached_property
    def digest(self) -> str:
        """Digest of all that can change a prediction."""
        config = self.config.as_dict()
        config["data"]["init_args"] = self.data_arguments
        task_arguments = config["model"]["init_args"]
        if not task_arguments.get("action_units"):
            task_arguments.pop("action_units", None)  # results older than it have none
        network_arguments = task_arguments["network"].get("init_args") or {}
        network_arguments.pop("flow_channels", None)  # the motion says as much
        network = load_class(self.config.model.init_args.network.class_path)
        return store.digest(
            {
                "model": config["model"],
                "data": config["data"],
                "trainer": {name: value for name, value in config["trainer"].items() if name not in ELSEWHERE},
                "stacked": config["stacked"] and stacked_task.REVISION,
                "revisions": {"data": self.data.revision, "network": network.revision},
                "fingerprint": self.data.fingerprint,
            }
        )

    @property
    def data_arguments(self) -> dict[str, Any]:
        """Arguments of the data that can change a prediction; results older than ``motion`` have its default."""
        arguments = self.config.as_dict()["data"]["init_args"]
        left_out = {*self.data.path_arguments, *(["motion"] if arguments.get("motion") == "apex" else [])}
        return {name: value for name, value in arguments.items() if name not in left_out}

    @property
    def origin(self) -> dict[str, Any]:
        """Where its results come from: data, recipe, what that was tuned on, options, commit, version, places."""
        return {
            "fingerprint": self.data.fingerprint,
            "recipe": self.job.recipe,
            "tuned_on": self.job.tuned_on,
            "options": [option.split("=")[0] for option in self.job.options if option.startswith("--")],
            "commit": commit(),
            "mer": __version__,
            "path_arguments": list(self.data.path_arguments),
        }

    @property
    def yaml(self) -> str:
        """The resolved configuration."""
        return self.cli.parser.dump(self.config, skip_link_targets=False)

    def instantiate(self) -> Namespace:
        """A new ``model``, ``data`` and ``trainer``."""
        return dataset.instantiate(self.cli.parser, self.config)


def versions() -> dict[str, str]:
    """Versions of what trains."""
    packages = {package.__name__: str(package.__version__) for package in (torch, lightning)}
    return {"python": platform.python_version(), **packages}


@cache
def commit(file: Path = Path(__file__)) -> str | None:
    """The git commit of mer, with ``-dirty`` where files differ from it; None if it is not a checkout."""
    git = ["git", "-C", str(file.parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], capture_output=True, check=True, timeout=10)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, capture_output=True, check=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None

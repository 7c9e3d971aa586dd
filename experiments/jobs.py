"""What the command line asks for, by name: dataset, model, recipe. No torch."""

import importlib
from argparse import Namespace
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from data_modules import DATASETS
from data_modules.processes.pool import cores
from data_modules.protocols import OWN, PROTOCOLS, is_protocol
from mer import InputError, near

CONFIGS = Path(__file__).parent / "configs"
FLOW_MODELS = ("ahmsa_net", "ststnet")
DEFAULT_MODELS = (*FLOW_MODELS, "hsta", "mfvan")


@dataclass(frozen=True)
class Job:
    """One dataset, model and recipe, and what the command line changes of it.

    Attributes:
        dataset: A name of ``data_modules.DATASETS``, or a dotted class, ``my_lab.MyLab``.
        model: A name in ``configs``, or a file of recipes, ``path/to/my_net.yaml``, whose name is the model's.
        workers: Processes that prepare the data.
        accelerator: ``cpu`` or ``gpu``: what the folds are trained on.
        stack_size: Folds of a stacked recipe that are trained as one program; 0 for as many as memory allows.
        options: Options of classes, ``--model.lr=1e-3``.
        allow: Packages whose classes the options may name besides those that they always may, see ``trust``.

    Raises:
        InputError: If one of the names is unknown; the message has those that are near.
    """

    dataset: str
    model: str
    recipe: str = "quick"
    root: str = ""
    protocol: str = ""
    cache: str = "cache"
    results: str = "results"
    workers: int = 1
    accelerator: str = "cpu"
    stack_size: int = 0
    options: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()

    def __post_init__(self):
        if "." not in self.dataset:
            check("dataset", self.dataset, list(DATASETS))
        if not self._is_file:
            check("model", self.model, models())
        recipes = self._recipes()
        check("recipe", self.recipe, list(recipes))
        if missing := [part for part in ("model", "trainer") if not isinstance(recipes[self.recipe].get(part), dict)]:
            raise InputError(f"{self.recipe_file}: the recipe {self.recipe} has no {', no '.join(missing)}")
        _ = self.tuned_on  # complains now; workers get it with the job
        if self.protocol and not is_protocol(self.protocol) and self.protocol != OWN:
            check("protocol", self.protocol, [*PROTOCOLS, OWN])

    @property
    def data_class(self) -> str:
        """Dotted path of the data module."""
        return DATASETS.get(self.dataset, self.dataset)

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages whose classes may be named besides those of ``trust``: what the command line names is trusted."""
        return (*self.allow, *([self.dataset.partition(".")[0]] if "." in self.dataset else []))

    @property
    def model_name(self) -> str:
        """The model as results, tables and logs call it."""
        return Path(self.model).stem if self._is_file else self.model

    @property
    def recipe_file(self) -> Path:
        """Where the model's recipes are written."""
        return Path(self.model) if self._is_file else CONFIGS / f"{self.model}.yaml"

    @property
    def _is_file(self) -> bool:
        return self.model.endswith((".yaml", ".yml"))

    def read_recipe(self) -> dict:
        """The recipe as written in ``recipe_file``, a configuration; ``tuned_on`` is no part of it."""
        return {name: value for name, value in self._recipes()[self.recipe].items() if name != "tuned_on"}

    @cached_property
    def tuned_on(self) -> list[str] | None:
        """Databases whose scores the recipe's values were chosen by, as it declares; None if it does not say."""
        names = self._recipes()[self.recipe].get("tuned_on")
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise InputError(f"{self.recipe_file}: tuned_on is a list of databases, [casme2, smic]; or [], if none")
        return names

    def _recipes(self) -> dict:
        try:
            recipes = yaml.safe_load(self.recipe_file.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{self.recipe_file}: no file of recipes that can be read: {error}") from error
        if not isinstance(recipes, dict) or not all(isinstance(recipe, dict) for recipe in recipes.values()):
            raise InputError(f"{self.recipe_file}: recipes are mappings by name, quick: {{model: ..., trainer: ...}}")
        return recipes


def jobs_of(options: Namespace) -> list[Job]:
    """What a command line asks for: one job per model; the names are checked before anything heavy is imported."""
    shared = {name: getattr(options, name, "") for name in ("dataset", "recipe", "root", "protocol", "cache")}
    names = options.model.split(",") if options.model else default_models(options.dataset)
    stacked = getattr(options, "stacked", None)
    shared["options"] = (*options.options, *([f"--stacked={stacked}"] if stacked else []))
    shared["allow"] = tuple(getattr(options, "allow", ()))
    shared["stack_size"] = getattr(options, "stack_size", 0)
    shared["results"] = str(getattr(options, "results", ""))
    shared["workers"] = options.workers or cores()
    return [Job(model=name, **shared) for name in names]


def default_models(dataset: str) -> tuple[str, ...]:
    """The three architectures and a control; where there are no videos, those of them that read flow alone."""
    return FLOW_MODELS if dataset == "flow_maps" else DEFAULT_MODELS


def models() -> list[str]:
    """Names of the models that have a file of recipes."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "search")  # a W&B search, no recipes


def check(kind: str, name: str, known: list[str]) -> None:
    """Refuse a name that is not known.

    Raises:
        InputError: With the name, those near it and all there are.
    """
    if name not in known:
        raise InputError(f"unknown {kind} '{name}'; there are {', '.join(known)}{near(name, known)}")


def load_class(path: str) -> type:
    """The class that a dotted path names."""
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)

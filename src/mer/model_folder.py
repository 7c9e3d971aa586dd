"""A model's folder: what its ``config.yaml`` says, and the networks that are built by it."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from mer import InputError, flow, transforms
from mer.models import Network
from mer.preprocessing import clip
from mer.training.task import Task


def build(config: Mapping[str, Any], packages: Sequence[str] = ("mer",)) -> Task:
    """A task with new weights.

    Args:
        config: ``class_path`` of the task and its ``init_args``, in which ``network`` is another such mapping.
        packages: Whose classes may be named.

    Raises:
        InputError: If it names another class.
    """
    arguments = dict(config["init_args"])
    network = arguments.pop("network")
    made = _class(network["class_path"], Network, packages)(**network.get("init_args") or {})
    return _class(config["class_path"], Task, packages)(network=made, **arguments)


def revisions(network: Network) -> dict[str, int]:
    """The revisions of all code that a prediction depends on."""
    return {
        "flow": flow.REVISION,
        "preprocessing": clip.REVISION,
        "transforms": transforms.REVISION,
        "network": network.revision,
    }


def _class(path: str, base: type, packages: Sequence[str]) -> Any:
    module, _, name = path.rpartition(".")
    if module.partition(".")[0] not in packages:
        raise InputError(
            f"the model consists of '{path}', which is not imported: it may name classes of {', '.join(packages)}; if "
            f"you trust it, allow {path.partition('.')[0]} (--allow)"
        )
    named = getattr(import_module(module), name)
    if not (isinstance(named, type) and issubclass(named, base)):
        raise InputError(f"the model consists of '{path}', which is no {base.__name__}")
    return named


def read_config(path: Path) -> dict[str, Any]:
    """What a model's ``config.yaml`` says, with all that has to be there.

    Raises:
        InputError: If it is none.
    """
    needed = {
        "mer": str,
        "classes": list,
        "seeds": list,
        "model": dict,
        "input": dict,
        "revisions": dict,
        "sha256": str,
    }
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read ({reason}); a model is a folder that mer fit has written") from error
    wrong = [n for n, kind in needed.items() if not isinstance(config, dict) or not isinstance(config.get(n), kind)]
    if wrong:
        raise InputError(f"{path}: is no configuration of a model; it has no {', no '.join(wrong)}")
    return config

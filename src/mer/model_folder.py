"""A model's folder: what its ``config.yaml`` says, and the networks that are built by it."""

import hashlib
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mer import InputError, flow, transforms
from mer.models import Network
from mer.preprocessing import clip
from mer.preprocessing.motion import CHANNELS
from mer.training.action_units import network_outputs
from mer.training.task import Task

SIZES = {"input_size": (8, 512), "crop_size": (flow.SMALLEST, 1024), "num_frames": (2, 64)}
"""Least and most of each number that says how a model's input is made."""

CHOICES = {
    "method": ("tvl1", "farneback", "dis"),
    "backend": ("opencv", "torch"),
    "head_motion": ("kept", "removed"),
    "motion": tuple(CHANNELS),
}
"""Words that say how a model's input is made."""


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


def tasks(config: Mapping[str, Any], weights: Mapping[str, Tensor], packages: Sequence[str]) -> Iterator[Task]:
    """The task of each seed with its weights.

    Args:
        config: What ``config.yaml`` says.
        weights: Of all seeds, ``seed<k>.<name>``.
        packages: Whose classes may be named.

    Raises:
        InputError: If another class is named.
        RuntimeError: If there are other weights than the network has; its class may raise anything.
    """
    for seed in config["seeds"]:
        start = f"seed{seed}."
        task = build(config["model"], packages)
        task.load_state_dict({name.removeprefix(start): x for name, x in weights.items() if name.startswith(start)})
        yield task


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
        raise InputError(
            f"{path}: is no configuration of a model; it has no {', no '.join(wrong)}. Copy the model again, or fit it "
            "anew"
        )
    for problem in _problems(config):
        raise InputError(f"{path}: {problem}; copy the model again, or fit it anew")
    return config


def read_weights(path: Path, sha256: str, device: str) -> dict[str, Tensor]:
    """The weights of all seeds, by name.

    Raises:
        InputError: If the file cannot be read, or has another checksum.
    """
    try:
        with path.open("rb") as content:
            checksum = hashlib.file_digest(content, "sha256").hexdigest()
        if checksum != sha256:
            raise InputError(f"{path}: is damaged, or belongs to another config.yaml; copy the model again")
        return load_file(path, device)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error


def _problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What no model can be made of; the keys and their types are known to be right."""
    classes, seeds, wanted = config["classes"], config["seeds"], config["input"]
    if (
        len(classes) < 2
        or not all(isinstance(name, str) and name for name in classes)
        or len({*classes}) < len(classes)
    ):
        yield f"classes {reprlib.repr(classes)} are not two or more different names"
    if not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds) or len({*seeds}) < len(seeds):
        yield f"seeds {reprlib.repr(seeds)} are not different whole numbers from 0"
    inputs = wanted.get("inputs")
    if not isinstance(inputs, list) or not inputs or not all(name in [*transforms.MIRRORS] for name in inputs):
        yield f"input.inputs {reprlib.repr(inputs)} are none of {', '.join(transforms.MIRRORS)}"
    for name, (least, most) in SIZES.items():  # a model of flow maps has the first alone
        value = wanted.get(name, None if name == "input_size" else least)
        if type(value) is not int or not least <= value <= most:
            yield f"input.{name} {reprlib.repr(value)} is no whole number from {least} to {most}"
    for name, choices in CHOICES.items():
        if wanted.get(name, choices[0]) not in choices:
            yield f"input.{name} {reprlib.repr(wanted[name])} is none of {', '.join(choices)}"
    task, arguments = config["model"], config["model"].get("init_args")
    network = arguments.get("network") if isinstance(arguments, dict) else None
    options = (network.get("init_args") or {}) if isinstance(network, dict) else None
    if not (isinstance(network, dict) and isinstance(options, dict)):
        yield "model is no class_path with init_args, of which network is another"
        return
    if not all(isinstance(part.get("class_path"), str) for part in (task, network)):
        yield "model or its network has no class_path"
    fitting = (
        ("num_classes", network_outputs(len(classes), arguments.get("action_units", 0)), "classes"),
        ("size", wanted["input_size"], "input_size"),
        ("flow_channels", CHANNELS[wanted.get("motion", "apex")], "motion"),
    )
    for name, value, meant in fitting:
        if options.get(name, value) != value:
            yield f"the network's {name} {reprlib.repr(options[name])} does not fit {meant}, {value}"

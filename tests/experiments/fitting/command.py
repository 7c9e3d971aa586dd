"""Runs ``mer fit`` on flow maps, and reads what it leaves."""

import json
import os
import re
from pathlib import Path

from experiments.cli import main
from experiments.experiment import Experiment
from experiments.jobs import Job

FEW = ("--trainer.max_steps=4", "--data.batch_size=8")
FILES = ["README.md", "config.yaml", "model.safetensors"]


def run(root: Path, place: Path, *more: str, model: str = "ststnet", command: str = "fit", seeds: str = "0,1") -> int:
    """A command on flow maps, with its results, cache and models in a folder."""
    own = ["--models", str(place / "models")] if command == "fit" else []
    shared = ["--dataset", "flow_maps", "--root", str(root), "--model", model, "--results", str(place / "results")]
    shared += ["--cache", str(place / "cache"), "--seeds", seeds, "--devices", "cpu", *own]
    return main([command, *shared, *FEW, *(("--workers", "2") if "--workers" not in more else ()), *more])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def folders(place: Path) -> list[str]:
    """What lies in the folder of models, hidden files too."""
    return sorted(os.listdir(place / "models")) if (place / "models").exists() else []


def body(folder: Path) -> str:
    """A card without its header."""
    return (folder / "README.md").read_text().split("---\n", 2)[2]


def names_nothing(folder: Path, root: Path, names: str) -> None:
    """No file of a model has a path, or the name of a clip or subject."""
    for name, content in contents(folder).items():
        for path in (root, root.parent, folder, Path.home(), Path.cwd(), Path("/tmp")):
            assert f"{path}/".encode() not in content, (name, path)
        found = re.search(names, content.decode("latin1")) if name != "model.safetensors" else None
        assert not found, (name, found)
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert "__metadata__" not in header and all(re.fullmatch(r"seed\d+\.[\w.]+", name) for name in header)


def experiment(root: Path, *options: str, steps: int = 4) -> Experiment:
    """A recipe of so many steps on flow maps."""
    size = (f"--trainer.max_steps={steps}", "--data.batch_size=9", "--model.network.dropout=0")
    return Experiment(Job("flow_maps", "ststnet", root=str(root), options=(*size, *options)))

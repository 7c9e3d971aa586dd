"""The commands from films to scores. A command that comes later, to fit a model or to use one, has its check here."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd

from experiments.benchmarks.gpu_check.check import Check, Skip, Wrong, need

FILMS, CACHE, RESULTS = "films", "cache", "results"  # in the folder of this process, which vanishes
SUBJECTS, CLIPS = 5, 3  # a search divides five groups of subjects into four
FEW = "--trainer.max_steps=4"


def checks(cpu: bool) -> list[Check]:
    """One for each command, in the order in which a user comes to them."""
    devices = ("--devices", "cpu") if cpu else ()
    models = ("--model", "ststnet") if cpu else ()
    search = ("--model", "ststnet", "--trials", "2", "--stacked")  # 80 inner folds
    return [
        Check("mer synthesize", films),
        Check("mer prepare", partial(prepare, *models)),
        Check("mer sweep", partial(trains, "sweep", "", *models, *devices, FEW)),
        Check("mer search", partial(trains, "search", "_searched", *search, *devices, FEW)),
    ]


def films() -> str:
    """Film faces."""
    need("mediapipe", "filming faces")
    mer("synthesize", "--root", FILMS, "--subjects", str(SUBJECTS), "--clips", str(CLIPS))
    return f"{SUBJECTS} subjects, {SUBJECTS * CLIPS} clips"


def prepare(*words: str) -> str:
    """Find the faces and compute what the models read."""
    mer("prepare", *data(), "--cache", CACHE, *words)
    return f"{sum(1 for _ in Path(CACHE).rglob('*.safetensors'))} files"


def trains(command: str, suffix: str, *words: str) -> str:
    """Train every fold; each clip has a row in each cell."""
    mer(command, *data(), "--cache", CACHE, "--results", RESULTS, *words)
    cells = list(Path(RESULTS).glob("*/*/*/*/clips.csv"))
    cells = [clips.parent for clips in cells if clips.parent.name.rpartition("-")[0].endswith(suffix)]
    told = []
    for cell in sorted(cells):
        clips = len(pd.read_csv(cell / "clips.csv"))
        rows = sum(len(pd.read_csv(fold)) for fold in cell.glob("seed0/*.csv"))
        told.append(f"{cell.name.rpartition('-')[0]} {rows} of {clips}")
        if rows != clips or not clips:
            raise Wrong(f"clips tested: {', '.join(told)}")
    if not told:
        raise Wrong("there are no results")
    return f"clips tested: {', '.join(told)}"


def data() -> tuple[str, ...]:
    """The words for the films.

    Raises:
        Skip: If there are none.
    """
    if not Path(FILMS).exists():
        raise Skip("there are no films to work on")
    return ("--dataset", "synthetic", "--root", FILMS)


def mer(*words: str) -> None:
    """Run a command; what it prints goes to the log.

    Raises:
        Wrong: If it does not end well.
    """
    print(f"$ mer {' '.join(words)}", flush=True)
    command = [sys.executable, "-m", "experiments.cli", *words]
    status = subprocess.run(command, env={**os.environ, "WANDB_MODE": "offline"}, check=False).returncode
    if status:
        raise Wrong(f"`mer {' '.join(words)}` ended with status {status}")

"""The commands from films to scores."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pandas as pd

from experiments.benchmarks.gpu_check.check import Check, Skip, Wrong, need

FILMS, CACHE, RESULTS = "films", "cache", "results"  # in the temporary folder of this process
SUBJECTS, CLIPS = 5, 3  # the fewest subjects of a search
FEW = "--trainer.max_steps=4"


def checks(cpu: bool) -> list[Check]:
    """A check for each command, in the order of their use."""
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
    """Find the faces and compute the inputs of the models."""
    mer("prepare", *data(), "--cache", CACHE, *words)
    return f"{sum(1 for _ in Path(CACHE).rglob('*.safetensors'))} files"


def trains(command: str, suffix: str, *words: str) -> str:
    """Train every fold, and see that each clip has a row in each cell.

    Args:
        command: ``sweep`` or ``search``.
        suffix: End of the names of the cells that belong to the command.
        *words: Further options.
    """
    mer(command, *data(), "--cache", CACHE, "--results", RESULTS, *words)
    cells = list(Path(RESULTS).glob("*/*/*/*/clips.csv"))
    cells = [clips.parent for clips in cells if clips.parent.name.rpartition("-")[0].endswith(suffix)]
    counts = []
    for cell in sorted(cells):
        clips = len(pd.read_csv(cell / "clips.csv"))
        rows = sum(len(pd.read_csv(fold)) for fold in cell.glob("seed0/*.csv"))
        counts.append(f"{cell.name.rpartition('-')[0]} {rows} of {clips}")
        if rows != clips or not clips:
            raise Wrong(f"clips tested: {', '.join(counts)}")
    if not counts:
        raise Wrong("there are no results")
    return f"clips tested: {', '.join(counts)}"


def data() -> tuple[str, ...]:
    """The options that name the films.

    Raises:
        Skip: If there are none.
    """
    if not Path(FILMS).exists():
        raise Skip("there are no films to work on")
    return ("--dataset", "synthetic", "--root", FILMS)


def mer(*words: str) -> None:
    """Run a command; its output goes to the log.

    Raises:
        Wrong: If its exit status is not 0.
    """
    print(f"$ mer {' '.join(words)}", flush=True)
    command = [sys.executable, "-m", "experiments.cli", *words]
    status = subprocess.run(command, env={**os.environ, "WANDB_MODE": "offline"}, check=False).returncode
    if status:
        raise Wrong(f"`mer {' '.join(words)}` ended with status {status}")

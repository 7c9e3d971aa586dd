"""``mer doctor``: whether this machine has what ``mer`` needs, in a table with what to do where it has not."""

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_modules.processes.pool import cores
from mer import InputError

ROOM = 5  # GB below which a disk is called short
REINSTALL = "install mer anew, in a checkout with `make clean setup`"
MARKS = {"ok": "green", "note": "yellow", "broken": "red"}


@dataclass(frozen=True)
class Finding:
    """What was looked at.

    Attributes:
        name: What it is.
        state: ``ok``, ``note`` if ``mer`` does without, or ``broken``.
        text: What is there.
        remedy: What to do if it is not ok.
    """

    name: str
    state: str
    text: str
    remedy: str = ""


def look(results: Path, cache: Path) -> list[Finding]:
    """Look at everything; a look that fails in an unexpected way is a finding, too."""
    looks: list[tuple[str, Callable[[], Finding]]] = [
        ("Python", _python),
        ("torch", _torch),
        ("GPU", _gpu),
        ("OpenCV", _opencv),
        ("face finder", _face_finder),
        ("results", lambda: _disk("results", results)),
        ("cache", lambda: _disk("cache", cache)),
        ("W&B", _wandb),
        ("SLURM", _slurm),
    ]
    findings = []
    for name, finding in looks:
        try:
            findings.append(finding())
        except Exception as error:  # a broken installation fails in ways that nobody foresees
            findings.append(Finding(name, "broken", f"{type(error).__name__}: {error}", REINSTALL))
    return findings


def show(findings: Sequence[Finding], console: Console) -> int:
    """Print the findings.

    Returns:
        Exit status: 0, or 1 if something is broken.
    """
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "", "what is there", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        mark = f"[{MARKS[finding.state]}]{finding.state}[/]"
        table.add_row(finding.name, mark, escape(finding.text), escape(finding.remedy))
    console.print(table)
    return int(any(finding.state == "broken" for finding in findings))


def _python() -> Finding:
    text = f"{platform.python_version()} in {sys.prefix}"
    if not (3, 11) <= sys.version_info < (3, 13):
        return Finding("Python", "broken", text, "take Python 3.11 or 3.12: make setup PYTHON=python3.11")
    return Finding("Python", "ok", text)


def _torch() -> Finding:
    import lightning
    import torch

    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for CPUs"
    return Finding("torch", "ok", f"{torch.__version__} {built}, Lightning {lightning.__version__}")


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        torch.ones(2, device="cuda").sum().item()  # what a driver that is too old, or another GPU, does not survive
        return Finding("GPU", "ok", ", ".join(f"{gpu.name} {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus))
    remedy = ""
    if shutil.which("nvidia-smi"):
        version = torch.version.cuda
        remedy = (
            f"see that `nvidia-smi` lists it and a driver for CUDA {version}" if version else "install torch for CUDA"
        )
    return Finding("GPU", "note", f"none for torch: folds are trained on {cores()} cores of the CPU", remedy)


def _opencv() -> Finding:
    try:
        from mer.preprocessing.opencv import cv2
    except InputError as error:
        text, _, remedy = str(error).partition(". ")
        return Finding("OpenCV", "broken", text, remedy)
    return Finding("OpenCV", "ok", f"{cv2.__version__}, with libGL")


def _face_finder() -> Finding:
    try:
        from mer.preprocessing.faces import FaceFinder
    except InputError:
        return Finding("face finder", "broken", "needs OpenCV", "see OpenCV")
    from skimage.data import astronaut

    with FaceFinder() as finder:
        landmarks = finder.landmarks(astronaut())
    if landmarks is None:
        return Finding("face finder", "broken", "MediaPipe sees no face in a portrait", REINSTALL)
    return Finding("face finder", "ok", f"MediaPipe finds {len(landmarks)} landmarks in a portrait")


def _disk(name: str, folder: Path) -> Finding:
    """Whether files can be made and renamed where a folder is or will be."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free / 1e9
    text = f"{folder}: {free:,.0f} GB free"
    try:
        with tempfile.TemporaryDirectory(prefix=".mer-doctor-", dir=there) as temporary:
            first, second = Path(temporary, "first"), Path(temporary, "second")
            first.write_text("")
            os.replace(first, second)
    except OSError as error:
        return Finding(name, "broken", f"{folder}: {error.strerror}", f"name another folder: --{name} DIR")
    if free < ROOM:
        return Finding(name, "note", text, f"make room, or name a folder on another disk: --{name} DIR")
    return Finding(name, "ok", text)


def _wandb() -> Finding:
    import wandb

    from experiments.tracking.server import NO_KEY, NoKey, connect

    settings = wandb.setup().settings
    try:
        return Finding("W&B", "ok", f"logged in to {settings.base_url} as {connect(settings).default_entity}")
    except NoKey:
        return Finding(
            "W&B", "note", "not logged in: results and reports stay on this machine", NO_KEY.partition(": ")[2]
        )
    except ConnectionError as error:
        return Finding("W&B", "note", str(error), "later, `mer sync` uploads what was trained meanwhile")


def _slurm() -> Finding:
    if shutil.which("sbatch"):
        return Finding("SLURM", "ok", "sbatch is there: mer sweep --launcher slurm submits jobs")
    return Finding("SLURM", "note", "no sbatch: folds are trained on this machine")

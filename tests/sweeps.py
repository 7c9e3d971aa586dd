"""Results of sweeps as ``mer sweep`` would leave them, written without training anything."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from skimage.data import astronaut

from data_modules import protocols
from data_modules.cache import store
from experiments.results import Cell, Fold

UNITS = {"negative": ("4", "4+7", "L9"), "positive": ("12", "6+12", "R12"), "surprise": ("1+2", "R1+2", "1+2+5")}


def clip_table(databases: Mapping[str, int], clips: int, classes: Sequence[str], coded: Sequence[str]) -> pd.DataFrame:
    """Clips of so many subjects per database; action units where the database is ``coded``."""
    rows = []
    for database, subjects in databases.items():
        for subject in range(subjects):
            for clip in range(clips):
                label = classes[(subject + clip) % len(classes)]
                units = (
                    UNITS.get(label, ("17",))[clip % 3 % len(UNITS.get(label, ("17",)))] if database in coded else ""
                )
                name = f"{database}/flow-0123/sub{subject:02d}-clip{clip}.safetensors"
                rows.append((database, f"sub{subject:02d}", f"clip{clip}", 1, 5, 9, label, "", units, label, name))
    columns = "dataset subject clip onset apex offset emotion objective_class action_units target cached"
    return pd.DataFrame(rows, columns=columns.split())


def write_cell(
    cell: Cell, clips: pd.DataFrame, seeds: int, skill: float, maps: bool = False, facts: Mapping | None = None
) -> None:
    """Predictions that are the likelier right the higher the skill."""
    cell.write_header(clips, f"model:\n  class_path: mer.{cell.model}\n  init_args:\n    lr: {skill}\n")
    for seed in range(seeds):
        draws = np.random.default_rng([seed, *cell.model.encode()])
        for number, (fold, rows) in enumerate(protocols.folds(clips, cell.split).items()):
            logits = draws.normal(size=(len(rows), len(cell.classes)))
            targets = [cell.classes.index(name) for name in clips["target"].iloc[rows]]
            logits[np.arange(len(rows)), targets] += skill
            chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
            table = clips.iloc[rows][["dataset", "subject", "clip", "target"]].assign(
                prediction=[cell.classes[index] for index in chances.argmax(1)],
                **{f"p_{name}": chances[:, index] for index, name in enumerate(cell.classes)},
            )
            lucky = draws.random(len(rows)) < 0.2
            table["optimistic_prediction"] = np.where(lucky, table["target"], table["prediction"])
            kept = {}
            if maps:
                kept = {"flow": np.stack([flow(index, 12) for index in targets]).astype(np.float16)}
                kept["attention"] = np.hypot(kept["flow"][:, 0], kept["flow"][:, 1]).clip(0, 1)
            own = {"fold": fold, "seconds": 2.0 + number, "steps": 10, "peak_memory_mb": 700, "device": "cpu"}
            Fold(cell, fold, seed).write(table, {**own, **(facts or {})}, kept)


def flow(label: int, size: int) -> np.ndarray:
    """A flow map (3, size, size) in which each class moves its own height of the face."""
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    bump = np.exp(-((y - (-0.7, 0.7, 0.0)[label % 3]) ** 2 + x**2) / 0.05)
    return np.stack([bump, -bump, bump / 4]).astype(np.float32)


def fill_cache(folder: Path, clips: pd.DataFrame, classes: Sequence[str], size: int = 32) -> None:
    """A face and a flow for every clip."""
    face = np.ascontiguousarray(astronaut()[20 : 20 + size * 7 : 7, 115 : 115 + size * 7 : 7].transpose(2, 0, 1))
    for row in clips.itertuples():
        tensors = {"flow": flow(classes.index(row.target), size), "onset": face, "apex": face[:, :, ::-1].copy()}
        store.write(folder / str(row.cached), {**tensors, "apex_frame": np.array([5])})


def write(root: Path) -> Path:
    """``results`` and ``cache``: three models of two seeds on a composite, and a single one on a database."""
    classes = protocols.protocol("megc2019").classes
    clips = clip_table({"casme2": 4, "samm": 3, "smic": 3}, 6, classes, coded=("casme2", "samm"))
    for number, (model, skill) in enumerate({"ahmsa_net": 2.5, "hsta": 1.0, "ststnet": 0.5}.items()):
        cell = Cell(root / "results", "megc2019", "megc2019", "loso", model, f"{number}123456789ab")
        facts = {"recipe": "quick", "tuned_on": ["casme2", "smic"], "parameters": 39072} if not number else {}
        write_cell(cell, clips, 2, skill, maps=model != "ststnet", facts=facts)
    fill_cache(root / "cache", clips, classes)
    other = clip_table({"samm": 4}, 8, protocols.protocol("samm-5").classes, coded=())
    write_cell(Cell(root / "results", "samm", "samm-5", "loso", "hsta", "9123456789ab"), other, 1, 1.0)
    return root / "results"

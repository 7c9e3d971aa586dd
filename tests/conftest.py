"""Small data that many tests share, made once per test process."""

import signal
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from data_modules.processes import pool
from data_modules.synthesis.synthesize import synthesize

# Whichever test starts the fork server, it has imported what the workers of a sweep need.
pool.CONTEXT.set_forkserver_preload([pool.SERVER, "experiments.fold"])

CLASSES = ("negative", "positive", "surprise")

# A shell's background job ignores Ctrl-C, and so would every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = ("test_stacks.py", "test_sweeps.py", "test_uploads.py", "test_onnx_export.py", "test_notebook.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, or a process would do one alone at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def write_flow_maps(root: Path, subjects: int = 3, clips: int = 6, seed: int = 0) -> Path:
    """A folder of flow maps in which each class moves its own part of the face."""
    draws = np.random.default_rng(seed)
    rows, y, x = [], *np.mgrid[-1:1:28j, -1:1:28j]
    (root / "maps").mkdir(parents=True)
    for subject in range(1, subjects + 1):
        for clip in range(clips):
            label = clip % 3
            bump = np.exp(-((y - (-0.5, 0.5, 0.0)[label]) ** 2 + x**2) / 0.1)
            u, v = np.zeros_like(bump), (-1, 1, -1)[label] * bump
            maps = np.stack([v, u], -1) + draws.normal(0, 0.15, (28, 28, 2))
            picture = np.concatenate([bump[..., None] * 2 - 1, maps], -1)  # blue, green, red
            file = f"maps/s{subject}_{clip}.png"
            cv2.imwrite(str(root / file), np.clip((picture + 1) * 127.5, 0, 255).astype(np.uint8))
            rows.append(("smic", f"s{subject}", f"c{clip}", CLASSES[label], file))
    columns = ["dataset", "subject", "clip", "emotion", "file"]
    pd.DataFrame(rows, columns=columns).to_csv(root / "clips.csv", index=False)
    return root


@pytest.fixture(scope="session")
def flow_maps(tmp_path_factory) -> Path:
    """Three subjects, six clips each. Read only."""
    return write_flow_maps(tmp_path_factory.mktemp("data") / "flow_maps")


@pytest.fixture
def own_flow_maps(tmp_path) -> Path:
    """The same, to spoil."""
    return write_flow_maps(tmp_path / "flow_maps")


@pytest.fixture(scope="session")
def films(tmp_path_factory) -> Path:
    """Synthetic faces of three subjects, three clips each, in CASME II's layout. Read only."""
    return synthesize(tmp_path_factory.mktemp("films") / "data", subjects=3, clips=3, size=(320, 240), workers=2)


@pytest.fixture(scope="session")
def films_cache(tmp_path_factory) -> Path:
    """A cache that all tests of ``films`` share."""
    return tmp_path_factory.mktemp("films") / "cache"

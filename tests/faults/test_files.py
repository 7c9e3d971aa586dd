"""Hostile configurations, results and caches, made up or mutated; see ``test_inputs.py``."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import strategies as st

from data_modules import protocols
from data_modules.cache import store
from experiments import report
from experiments.cli import main
from experiments.configuration import parse
from experiments.jobs import Job
from experiments.results import Cell, cells
from tests import sweeps
from tests.faults.hostile import EDITS, TEXT, contained, feeder, mutate, replaced

CLASSES = protocols.protocol("megc2019").classes


@pytest.fixture
def feed(request, tmp_path):
    return feeder(request, tmp_path)


KEYS = st.sampled_from(
    [
        "model",
        "data",
        "trainer",
        "stacked",
        "config",
        "optimizer",
        "model.lr",
        "model.network",
        "model.network.name",
        "model.network.kernels",
        "model.class_path",
        "data.input_size",
        "data.root",
        "data.inputs",
        "data.protocol",
        "data.split",
        "data.flip",
        "trainer.max_steps",
        "trainer.callbacks",
        "trainer.callbacks+",
        "trainer.logger",
        "trainer.devices",
        "trainer.precision",
        "trainer.strategy",
        "trainer.plugins",
        "trainer.gradient_clip_val",
        "no.such",
        "model.init_args.lr",
        "seed_everything",
    ]
)
VALUES = st.one_of(
    TEXT.filter(lambda text: "\0" not in text),
    st.sampled_from(
        [
            "os.system",
            "torch.hub.load",
            "torch.nn.Linear",
            "Timer",
            "null",
            "true",
            "[]",
            "{}",
            "[[]]",
            "{a:1}",
            "&a",
            "*a",
            "1e-3",
            ".nan",
        ]
    ),
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | TEXT, st.lists, max_leaves=4).map(str),
)
OPTIONS = st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=3)
TREE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | TEXT, inner, max_size=3),
    max_leaves=8,
)
CONFIG = {
    "model": {
        "class_path": "mer.training.task.Task",
        "init_args": {
            "lr": 0.1,
            "network": {"class_path": "mer.models.ststnet.STSTNet", "init_args": {"dropout": 0.1}},
        },
    },
    "data": {"class_path": "data_modules.flow_maps.FlowMaps", "init_args": {"input_size": 28, "flip": 0.5}},
    "trainer": {"max_steps": 3, "callbacks": [{"class_path": "lightning.pytorch.callbacks.Timer"}]},
}


class TestConfigurations:
    def test_options_that_hold_anything(self, feed):
        def test(options: list[tuple[str, str]], folder: Path) -> None:
            with contained():
                parse(Job("flow_maps", "ststnet", options=tuple(f"--{name}={value}" for name, value in options)))

        feed(OPTIONS, test, 10, 600)

    def test_a_mutated_file(self, feed):
        whole = yaml.safe_dump(CONFIG).encode()

        def test(edits: list, folder: Path) -> None:
            (folder / "recipe.yaml").write_bytes(mutate(whole, edits))
            with contained():
                parse(Job("flow_maps", "ststnet", options=("--config", str(folder / "recipe.yaml"))))

        feed(EDITS, test, 10, 500)

    def test_a_file_that_holds_anything(self, feed):
        def test(tree: object, folder: Path) -> None:
            (folder / "recipe.yaml").write_text(yaml.safe_dump(tree), errors="surrogatepass")
            with contained():
                parse(Job("flow_maps", "ststnet", options=("--config", str(folder / "recipe.yaml"))))

        feed(
            st.one_of(TREE, st.fixed_dictionaries({"trainer": TREE}), st.fixed_dictionaries({"model": TREE})),
            test,
            10,
            500,
        )


# Results


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    """Three folds of three clips, with pictures. Read only."""
    results = tmp_path_factory.mktemp("swept") / "results"
    cell = Cell(results, "smic", "megc2019", "loso", "hsta", "0123456789ab")
    sweeps.write_cell(cell, sweeps.clip_table({"smic": 3}, 3, CLASSES, coded=("smic",)), 1, 1.0, maps=True)
    return results


NAMES = ("clips.csv", "config.yaml", "seed0/smic-sub01.csv", "seed0/smic-sub01.json", "seed0/smic-sub01.safetensors")


def read_results(swept: Path, folder: Path, name: str, content: bytes) -> None:
    """Read results as ``mer status`` and a sweep do, with other content in one file."""
    results = folder / "results"
    shutil.copytree(swept, results)
    (file,) = results.glob(f"*/*/*/*/{name}")
    original = file.read_bytes()
    file.write_bytes(content)
    with contained(results):
        assert len(report.status(results)) == 1
        assert file.read_bytes() == content
    (cell,), (whole,) = cells(results), cells(swept)
    with contained(results):
        cell.write_header(whole.clips, "model: {}\n")
        moved = cell.set_aside(0)
        assert all(path.exists() and why for path, why in moved.items()) and not cell.pool(0).faults
        expected = whole.pooled(0)
        same = cell.pooled(0).merge(expected[["subject", "clip", "target"]], on=["subject", "clip", "target"])
        assert len(same) == len(cell.pooled(0)) in (6, 9)
    if name.endswith(".safetensors") and content != original:
        kept = store.read(file)
        assert kept is None or kept.keys() == {"flow", "attention"}


@pytest.mark.parametrize("name", NAMES)
class TestResults:
    def test_a_mutated_file(self, feed, swept, name):
        (file,) = swept.glob(f"*/*/*/*/{name}")
        whole = file.read_bytes()
        feed(EDITS, lambda edits, folder: read_results(swept, folder, name, mutate(whole, edits)), 8, 350)

    def test_a_file_that_holds_anything(self, feed, swept, name):
        (file,) = swept.glob(f"*/*/*/*/{name}")
        if not name.endswith(".csv"):
            feed(
                st.one_of(TREE.map(lambda tree: yaml.safe_dump(tree).encode("utf-8", "surrogatepass")), st.binary()),
                lambda content, folder: read_results(swept, folder, name, content),
                *(5, 100),
            )
            return
        rows = [tuple(row) for row in pd.read_csv(file, header=None, dtype=str, keep_default_na=False).to_numpy()]

        def test(table: list[list], folder: Path) -> None:
            text = pd.DataFrame(table).to_csv(index=False, header=False)
            read_results(swept, folder, name, text.encode("utf-8", "surrogatepass"))

        feed(replaced(rows), test, 10, 400)

    def test_a_report_of_a_damaged_file(self, feed, swept, name):
        (file,) = swept.glob(f"*/*/*/*/{name}")
        whole = file.read_bytes()

        def test(edits: list, folder: Path) -> None:
            results = folder / "results"
            shutil.copytree(swept, results)
            (copied,) = results.glob(f"*/*/*/*/{name}")
            copied.write_bytes(mutate(whole, edits))
            with contained(results):
                assert main(["report", "--results", str(results), "--cache", str(folder)]) in (0, 2)

        feed(EDITS, test, 1, 20)

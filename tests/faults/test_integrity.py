"""Sweeps whose files were damaged after they were written."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from data_modules import DATASETS
from data_modules.cache import extract
from experiments.cli import main
from experiments.jobs import load_class
from experiments.results import Fold, cells
from tests import trees


def sweep(root: Path, results: Path) -> int:
    shared = ["--dataset", "flow_maps", "--root", str(root), "--model", "ststnet", "--results", str(results)]
    return main(["sweep", *shared, "--workers", "1", "--trainer.max_steps=8", "--data.batch_size=8"])


def tables(results: Path) -> dict[str, bytes]:
    files = [
        *results.glob("*/*/loso/*/seed*/*.csv"),
        *results.glob("*/*/loso/*/*.csv"),
        *results.glob("*/*/*/*/*.yaml"),
    ]
    return {str(path.relative_to(results)): path.read_bytes() for path in files}


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def test_a_sweep_names_damaged_results_once_and_trains_them_again(flow_maps, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    results = tmp_path / "results"
    assert sweep(flow_maps, results) == 0
    before = tables(results)
    ((cell,), times) = (
        cells(results),
        {path: path.stat().st_mtime_ns for path in results.glob("*/*/loso/*/seed0/*.csv")},
    )
    first, second, third = (Fold(cell, name, 0).file for name in cell.folds)
    first.write_text(first.read_text().replace("s1,", "s2,", 1))
    second.write_bytes(b"")
    third.with_suffix(".json").write_text("{")
    (cell.folder / "clips.csv").write_text("damaged")
    (cell.folder / "config.yaml").unlink()
    capsys.readouterr()

    assert main(["status", "--results", str(results)]) == 0
    assert f"left out: {cell.folder / 'clips.csv'}: is not the clip table" in capsys.readouterr().out
    assert first.exists() and second.exists()  # status reads, and changes nothing

    assert sweep(flow_maps, results) == 0
    output = capsys.readouterr().out
    for path, words in ((first, "its clips and targets are not"), (second, "its columns are")):
        aside = path.with_name(f"{path.name}.bad")
        assert output.count(f"{aside}: {words}") == 1 and aside.exists()
    assert (cell.folder / "clips.csv.bad").read_text() == "damaged" and "left out" not in output
    assert tables(results) == before
    assert third.stat().st_mtime_ns == times[third]  # it was whole
    capsys.readouterr()
    assert sweep(flow_maps, results) == 0 and ".bad" not in capsys.readouterr().out


@pytest.fixture
def clips(tmp_path, monkeypatch):
    """CASME II, its cache filled; the function opens it once more."""
    monkeypatch.setattr(extract, "run", trees.prepare_without_faces)
    monkeypatch.setattr(extract.Entry, "tensors", remade)
    root = trees.casme2(tmp_path / "data")

    def load():
        return load_class(DATASETS["casme2"])(root=str(root), cache=str(tmp_path / "cache"), crop_size=16)

    load().prepare_data()
    return load


def remade(entry: extract.Entry) -> dict[str, np.ndarray]:
    side, target = entry.preparation.size, entry.target.with_suffix(".again")
    next(iter(trees.prepare_without_faces([extract.Entry(entry.preparation, target)], 1)), None)
    tensors = load_file(target)
    target.unlink()
    assert tensors["flow"].shape == (3, side, side)
    return tensors


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.glob("**/*.safetensors")}


def test_preparing_makes_damaged_files_again_with_one_warning(clips, tmp_path, recwarn):
    whole = files(tmp_path / "cache")
    damaged = sorted(whole)[:5]
    for number, path in enumerate(damaged[:4]):
        flip(path, number / 4)
    damaged[4].write_bytes(b"")
    recwarn.clear()
    clips().prepare_data()
    (warning,) = recwarn.list
    assert f"{damaged[0]}, " in str(warning.message) and "and 2 more: damaged, made again" in str(warning.message)
    assert files(tmp_path / "cache") == whole
    clips().prepare_data()
    assert len(recwarn.list) == 1


def test_a_worker_makes_what_is_damaged_since_again(clips, tmp_path, recwarn):
    data = clips()
    data.prepare_data()
    expected, whole = data.load(data.clips)["flow"], files(tmp_path / "cache")
    flip(sorted(whole)[0])
    sorted(whole)[1].unlink()
    recwarn.clear()
    assert data.load(data.clips)["flow"].equal(expected)
    warnings = [str(warning.message) for warning in recwarn.list]
    assert warnings == [f"{path}: missing or damaged, made again" for path in sorted(whole)[:2]]
    assert files(tmp_path / "cache") == whole


def test_a_file_that_another_worker_has_made_again_is_used(clips, tmp_path, recwarn, monkeypatch):
    data, whole = clips(), files(tmp_path / "cache")
    data.prepare_data()
    expected, path = data.load(data.clips)["flow"], sorted(whole)[0]
    flip(path)

    def slow(entry: extract.Entry):
        path.write_bytes(whole[path])
        return remade(entry)

    monkeypatch.setattr(extract.Entry, "tensors", slow)
    recwarn.clear()
    assert data.load(data.clips)["flow"].equal(expected) and not recwarn.list


def test_a_file_that_nothing_can_make_again_is_named(clips, tmp_path, monkeypatch):
    data = clips()
    flip(sorted(files(tmp_path / "cache"))[0])
    monkeypatch.setattr(extract.Entry, "tensors", lambda entry: "no face is found")
    with (
        pytest.warns(UserWarning, match="made again"),
        pytest.raises(ValueError, match="sub01 EP01_01f: no face is found"),
    ):
        data.load(data.clips)

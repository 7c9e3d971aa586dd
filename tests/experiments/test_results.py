"""Which files of a results folder are valid, and what becomes of the others."""

import errno
import os
import shutil

import numpy as np
import pandas as pd
import pytest

from data_modules import protocols
from data_modules.processes.whole_files import WriteError
from experiments.results import Cell, Fold, cells
from mer import InputError
from tests import sweeps

CLASSES = protocols.protocol("megc2019").classes
CONFIG = "model:\n  lr: 0.1\n"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Cell:
    """Four folds of six clips, one seed. Read only."""
    cell = Cell(tmp_path_factory.mktemp("results"), "smic", "megc2019", "loso", "hsta", "0123456789ab")
    sweeps.write_cell(cell, sweeps.clip_table({"smic": 4}, 6, CLASSES, coded=()), 1, 1.0)
    return cell


@pytest.fixture
def cell(written, tmp_path) -> Cell:
    """The same, to spoil."""
    shutil.copytree(written.results, tmp_path / "results")
    (copied,) = cells(tmp_path / "results")
    return copied


def spoil(cell: Cell, change, fold: str = "smic-sub01"):
    path = Fold(cell, fold, 0).file
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(table).to_csv(path, index=False)
    return path


def assign(row: int, **values):
    def change(table: pd.DataFrame) -> pd.DataFrame:
        for name, value in values.items():
            table.loc[row, name] = value
        return table

    return change


def sure(row: int, prediction: str, *chances: str):
    return assign(row, prediction=prediction, **{f"p_{name}": text for name, text in zip(CLASSES, chances)})


FAULTS = {
    "a column too few": (lambda table: table.drop(columns="optimistic_prediction"), "its columns are"),
    "columns in another order": (lambda table: table[sorted(table)], "its columns are"),
    "no row": (lambda table: table.iloc[:0], "not the 6 of the fold: it has 0"),
    "a clip too few": (lambda table: table.iloc[:-1], "it has 5"),
    "a clip twice": (lambda table: table.iloc[[0, 0, 1, 2, 3, 4]], "the first that differs is smic sub01 clip0"),
    "one clip more": (lambda table: table.iloc[[0, 1, 2, 3, 4, 5, 5]], "it has 7"),
    "another order": (lambda table: table.iloc[::-1], "the first that differs is smic sub01 clip5"),
    "a clip of another fold": (assign(2, subject="sub02"), "the first that differs is smic sub02 clip2"),
    "another target": (assign(0, target="negative"), "the first that differs is smic sub01 clip0 negative"),
    "an unknown class": (assign(1, prediction="wonder"), "clip clip1: 'wonder' is no class"),
    "an unknown optimistic class": (assign(1, optimistic_prediction=""), "clip clip1: '' is no class"),
    "no number": (assign(1, p_negative="many"), "could not convert"),
    "nothing for a number": (assign(1, p_negative=""), "could not convert"),
    "not a number": (sure(3, "negative", "nan", "nan", "nan"), "clip clip3: its probabilities are not in 0..1"),
    "a negative number": (sure(3, "positive", "-0.5", "1", "0.5"), "clip clip3: its probabilities are not in 0..1"),
    "a large number": (sure(3, "positive", "0", "1e300", "0"), "clip clip3: its probabilities are not in 0..1"),
    "another sum": (sure(5, "positive", "0.1", "0.5", "0.3"), "clip clip5: its probabilities do not sum to 1"),
    "another prediction": (sure(5, "positive", "0.6", "0.2", "0.2"), "clip clip5: its prediction is not the likeliest"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_no_result_of_its_fold_is_left_out_and_moved_aside(cell, written, fault):
    change, words = FAULTS[fault]
    path = spoil(cell, change)
    spoiled = path.read_bytes()
    pool = cell.pool(0)
    assert list(pool.faults) == ["smic-sub01"] and words in pool.faults["smic-sub01"]
    assert pool.done == cell.done(0) == [fold for fold in written.folds if fold != "smic-sub01"]
    others = written.pooled(0)
    assert pool.table.equals(others[others["subject"] != "sub01"].reset_index(drop=True))
    with pytest.raises(InputError, match="not the result of this fold"):
        Fold(cell, "smic-sub01", 0).read()
    assert path.read_bytes() == spoiled  # so far only read
    assert cell.set_aside(0) == {path.with_name("smic-sub01.csv.bad"): pool.faults["smic-sub01"]}
    assert not path.exists() and path.with_name("smic-sub01.csv.bad").read_bytes() == spoiled
    assert cell.set_aside(0) == {} and cell.pool(0).faults == {}


def test_a_file_system_that_refuses_to_move_it_aside_is_named(cell, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link", str(source), None, str(target))

    Fold(cell, "smic-sub01", 0).file.write_bytes(b"")
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(WriteError, match=r"smic-sub01\.csv cannot be written: .* refuses to rename"):
        cell.set_aside(0)


@pytest.mark.parametrize("content", [b"", b"\0" * 300, b"\xff\xfe", b'"', b"a,b\n1,2\n", b"\n" * 50, b'dataset,"x'])
def test_what_is_no_table_is_a_fault(cell, content):
    Fold(cell, "smic-sub01", 0).file.write_bytes(content)
    assert list(cell.pool(0).faults) == ["smic-sub01"]


def test_what_was_moved_aside_earlier_stays(cell):
    path = Fold(cell, "smic-sub01", 0).file
    for number, name in enumerate(("bad", "bad2", "bad3")):
        path.write_text(str(number))
        assert list(cell.set_aside(0)) == [path.with_name(f"smic-sub01.csv.{name}")]
    assert [path.with_name(f"smic-sub01.csv.{name}").read_text() for name in ("bad", "bad2", "bad3")] == ["0", "1", "2"]


def test_what_another_sweep_has_mended_meanwhile_stays(cell, written, monkeypatch):
    path = spoil(cell, assign(0, target="negative"))
    whole, pool = Fold(written, "smic-sub01", 0).file.read_text(), cell.pool(0)
    monkeypatch.setattr(Cell, "pool", lambda self, seed: path.write_text(whole) and pool)
    assert cell.set_aside(0) == {} and path.read_text() == whole


def test_valid_predictions_are_what_was_written(written):
    tables = [pd.read_csv(Fold(written, fold, 0).file, float_precision="round_trip") for fold in written.folds]
    pooled = written.pooled(0)
    assert pooled.to_numpy().tolist() == pd.concat(tables).to_numpy().tolist()
    assert pooled[["p_negative", "p_positive"]].dtypes.unique().tolist() == [np.dtype(float)]
    for fold, table in zip(written.folds, tables):
        assert Fold(written, fold, 0).read()["clip"].tolist() == table["clip"].tolist()


@pytest.mark.parametrize("fault", ["another prediction", "not a number", "a clip too few"])
def test_predictions_that_are_none_are_never_written(cell, fault):
    before = {path: path.read_bytes() for path in cell.folder.rglob("*") if path.is_file()}
    table = FAULTS[fault][0](Fold(cell, "smic-sub02", 0).read().astype(str))
    with pytest.raises(ValueError, match="hsta, smic-sub02, seed 0: .*training diverged"):
        Fold(cell, "smic-sub02", 0).write(table, {"fold": "smic-sub02"}, {})
    assert before == {path: path.read_bytes() for path in cell.folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "[" * 10_000, '{"seconds": "long"}', '{"seconds": NaN, "device": 3, "tuned_on": ["\\n"]}', None],
)
def test_facts_that_do_not_open_are_passed_over(cell, content):
    path = Fold(cell, "smic-sub01", 0).file.with_suffix(".json")
    path.unlink() if content is None else path.write_text(content)
    _, first, *others = (Fold(cell, name, 0).facts() for name in cell.done(0))
    assert first == {} and all(set(facts) == {"seconds", "peak_memory_mb", "device"} for facts in others)


@pytest.mark.parametrize("name", ["clips.csv", "config.yaml"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0", b"[1, 2", b"a: &a [1]\nb: *a\n", None])
def test_what_all_folds_share_is_written_again(cell, written, name, content):
    path, before = cell.folder / name, (written.folder / name).read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    if name == "clips.csv":
        with pytest.raises(InputError, match="is not the clip table"):
            cell.pool(0)
    cell.write_header(
        written.clips[pd.read_csv(written.folder / "clips.csv").columns], (written.folder / "config.yaml").read_text()
    )
    assert path.read_bytes() == before and cell.done(0) == written.done(0)
    assert path.with_name(f"{name}.bad").exists() == (content is not None)


def test_folds_of_other_clips_are_not_mixed(cell, written):
    with pytest.raises(InputError, match="folds of other clips .24, and now there are 18"):
        cell.write_header(written.clips.iloc[:18], CONFIG)


def test_a_subject_cannot_name_a_file_elsewhere(cell, written):
    clips = written.clips.assign(subject=[*written.clips["subject"][:-1], "../../../etc/passwd"])
    with pytest.raises(InputError, match="is no name for a file"):
        cell.write_header(clips, CONFIG)
    clips.to_csv(cell.folder / "clips.csv", index=False)
    with pytest.raises(InputError, match="is no name for a file"):
        cell.clips  # noqa: B018


def test_the_key_is_not_written(tmp_path, written, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 2)
    cell = Cell(tmp_path, "smic", "megc2019", "loso", "hsta", "0123456789ab")
    with pytest.raises(InputError, match="key for Weights & Biases"):
        cell.write_header(written.clips, f"{CONFIG}  key: {os.environ['WANDB_API_KEY']}\n")
    assert not list(tmp_path.iterdir())


def test_odd_folders_are_no_cells(tmp_path):
    for name in (
        "smic/megc2019/loso/nodash/seed0",
        "smic/other/loso/a-0/seed0",
        "smic/megc2019/any/a-0/seed0",
        "smic/megc2019/loso-without-smic-s1/a-0/seed0",
        "wandb/x",
    ):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    assert list(cells(tmp_path)) == [] and list(cells(tmp_path / "file")) == [] and list(cells(tmp_path / "none")) == []

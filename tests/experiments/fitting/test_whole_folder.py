"""The folder of a model appears whole or not at all."""

import errno
import os
import signal
from pathlib import Path

import pytest

from data_modules.processes import pool
from data_modules.processes.pool import Failure
from experiments import workers
from experiments.fitting import card
from tests import fitted
from tests.experiments.fitting.command import FILES, contents, experiment, folders, run


def test_a_training_that_fails_leaves_nothing(flow_maps, tmp_path, monkeypatch, capsys):
    assert run(flow_maps, tmp_path, "--model.lr=1e30") == 2
    assert "flow_maps-ststnet, seed 0" in (said := capsys.readouterr().err) and "diverged" in said
    assert not folders(tmp_path)
    for expected in (True, False):

        def broken(*_, expected=expected):
            yield 0, Failure("it broke", expected)

        monkeypatch.setattr(workers, "run", broken)
        if expected:
            assert run(flow_maps, tmp_path) == 2 and "mer: it broke" in capsys.readouterr().err
        else:
            with pytest.raises(RuntimeError, match="it broke"):
                run(flow_maps, tmp_path)
        assert not folders(tmp_path)


def die_while_writing(root: str, models: str) -> None:
    """Killed when the weights are written and the card is not."""
    card.card = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    fitted.write(Path(models, "flow_maps-ststnet"), experiment(Path(root), steps=1), (0,))


def test_killed_while_it_writes_it_leaves_no_model_and_the_next_one_tidies(flow_maps, tmp_path):
    process = pool.start(die_while_writing, str(flow_maps), str(tmp_path / "models"))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (left,) = folders(tmp_path)
    assert left.startswith(".flow_maps-ststnet.") and left.endswith(".tmp")
    assert (tmp_path / "models" / left / "model.safetensors").exists()
    assert run(flow_maps, tmp_path) == 0
    assert folders(tmp_path) == ["flow_maps-ststnet"]
    assert sorted(contents(tmp_path / "models/flow_maps-ststnet")) == FILES


@pytest.mark.parametrize("file", FILES)
def test_a_full_disk_leaves_nothing(flow_maps, trained_before, tmp_path, monkeypatch, capsys, file):
    write = {name: getattr(Path, name) for name in ("write_bytes", "write_text")}

    def full(name):
        def fill(path, content, *more, **others):
            if path.name == file:
                write[name](path, content[:10])
                raise OSError(errno.ENOSPC, "No space left on device")
            return write[name](path, content, *more, **others)

        return fill

    for name in write:
        monkeypatch.setattr(Path, name, full(name))
    assert run(flow_maps, tmp_path) == 2
    said = capsys.readouterr().err
    assert "models/flow_maps-ststnet cannot be written: the disk is full; free some space" in said
    assert not folders(tmp_path)


def test_a_folder_that_another_process_makes_meanwhile_stays(flow_maps, trained_before, tmp_path, monkeypatch, capsys):
    other = tmp_path / "models/flow_maps-ststnet"
    right = card.card

    def slow(*arguments):
        other.mkdir()
        (other / "README.md").write_text("another")
        return right(*arguments)

    monkeypatch.setattr(card, "card", slow)
    assert run(flow_maps, tmp_path) == 2
    assert "was made by another process meanwhile; run the same command again" in capsys.readouterr().err
    assert folders(tmp_path) == ["flow_maps-ststnet"] and contents(other) == {"README.md": b"another"}


@pytest.mark.parametrize("kind", ["file", "read-only parent"])
def test_models_that_cannot_be_written(flow_maps, trained_before, tmp_path, monkeypatch, capsys, kind):
    if kind == "file":
        (tmp_path / "models").write_text("mine")
    else:
        monkeypatch.setattr(Path, "mkdir", _refuse)
    assert run(flow_maps, tmp_path) == 2
    said = capsys.readouterr().err
    assert "cannot be written" in said and str(tmp_path / "models") in said


def _refuse(path: Path, *_, **__) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))

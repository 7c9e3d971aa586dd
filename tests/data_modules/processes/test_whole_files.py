import errno
import os
import subprocess
import sys
import time

import pytest

from data_modules.cache import store
from data_modules.processes import whole_files
from data_modules.processes.whole_files import WriteError


@pytest.fixture
def gone() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(path, process: int, host: str = ""):
    """The file that a process leaves when it is killed while it writes."""
    own = whole_files.temporary(path)
    left = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{process}-"))
    if host:
        left = left.with_name(left.name.replace(whole_files._host(), host))
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_text("half")
    return left


def age(path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_what_a_dead_process_left_is_removed_and_what_a_live_one_writes_stays(tmp_path, gone):
    mine, other = leave(tmp_path / "fold.csv", os.getpid()), leave(tmp_path / "fold.csv", 1)
    dead = leave(tmp_path / "fold.csv", gone)
    whole_files.remove_abandoned(tmp_path)
    assert mine.exists() and other.exists() and not dead.exists()


def test_what_another_host_writes_stays_until_it_is_a_day_old(tmp_path, gone):
    far, old = leave(tmp_path / "a.csv", gone, "00c0ffee"), leave(tmp_path / "b.csv", gone, "00c0ffee")
    age(old, whole_files.ABANDONED + 60)
    whole_files.remove_abandoned(tmp_path)
    assert far.exists() and not old.exists()


def test_a_folder_counts_as_touched_with_what_is_in_it(tmp_path, gone):
    folders = [whole_files.temporary(tmp_path / "data") for _ in "ab"]
    folders = [folder.with_name(folder.name.replace(whole_files._host(), "00c0ffee")) for folder in folders]
    for folder in folders:
        (folder / "clip").mkdir(parents=True)
        (folder / "clip/frame.jpg").touch()
    for path in (folders[0], folders[0] / "clip", folders[0] / "clip/frame.jpg", folders[1], folders[1] / "clip"):
        age(path, 2 * whole_files.ABANDONED)
    whole_files.remove_abandoned(tmp_path, of="data")
    assert list(tmp_path.iterdir()) == folders[1:]


def test_only_the_given_folder_and_name_are_looked_at(tmp_path, gone):
    names = ("a.csv", "b.csv", "below/a.csv")
    left = {name: leave(tmp_path / name, gone) for name in names}
    whole_files.remove_abandoned(tmp_path, of="a.csv")
    assert [name for name in names if left[name].exists()] == ["b.csv", "below/a.csv"]
    whole_files.remove_abandoned(tmp_path, below=True)
    assert not any(path.exists() for path in left.values())
    whole_files.remove_abandoned(tmp_path / "nowhere")


def test_nothing_unfinished_stays_before_and_after(tmp_path, gone):
    before, meanwhile = tmp_path / "a.csv", tmp_path / "below/b.csv"
    left = leave(before, gone)
    with pytest.raises(KeyboardInterrupt), whole_files.tidied(tmp_path, tmp_path / "nowhere"):
        assert not left.exists()
        left = leave(meanwhile, gone)
        raise KeyboardInterrupt
    assert not left.exists()


@pytest.mark.parametrize("name", ["fold.csv", ".fold.csv.tmp", ".a.tmp", "tmp", ".fold.csv.12-34-56.tmp", ".~lock.tmp"])
def test_files_of_others_stay(tmp_path, name):
    (tmp_path / name).touch()
    age(tmp_path / name, 9 * whole_files.ABANDONED)
    whole_files.remove_abandoned(tmp_path, below=True)
    assert (tmp_path / name).exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("where", [None, "data", "data/clip/frame.jpg", ""])
def test_what_a_disk_refuses_is_named_with_the_remedy(tmp_path, number, where):
    filename = None if where is None else str(tmp_path / where)
    with pytest.raises(WriteError, match="choose another folder") as raised, whole_files.writing(tmp_path / "data"):
        raise OSError(number, os.strerror(number), filename)
    assert str(tmp_path / "data") in str(raised.value)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EXDEV, errno.EPERM])
def test_a_drive_that_refuses_a_rename_is_named(tmp_path, monkeypatch, number):
    """The file could be written, so that no permission lacks."""

    def refuse(source, target):
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(WriteError, match="the file system.*refuses to rename.*on another disk") as raised:
        store.write_text(tmp_path / "clip.csv", "text")
    assert str(tmp_path / "clip.csv") in str(raised.value) and os.strerror(number) in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "no", "/data/casme2/img1.jpg"), OSError(errno.EIO, "broken"), ValueError()]
)
def test_other_errors_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as raised, whole_files.writing(tmp_path / "data"):
        raise error
    assert raised.value is error

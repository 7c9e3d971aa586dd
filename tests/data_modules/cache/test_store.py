import errno
import hashlib
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_modules.cache import store
from mer import InputError

TENSORS = {
    "flow": np.arange(3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8),
    "frame": np.arange(16, dtype=np.uint8).reshape(4, 4)[:, ::-1],  # not contiguous
    "apex": np.array(7),
    "none": np.zeros((0, 3)),
}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new" / "folder" / "clip.safetensors"
    store.write(path, TENSORS)
    found = store.read(path)
    assert found is not None and found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert np.array_equal(found[name], tensor) and found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
    assert [file.name for file in path.parent.iterdir()] == ["clip.safetensors"]


def test_a_damaged_file_is_none(tmp_path):
    path = tmp_path / "clip.safetensors"
    assert store.read(path) is None
    store.write(path, TENSORS)
    whole = path.read_bytes()
    for place in (0, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert store.read(path) is None, place
    for end in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert store.read(path) is None, end
    store.write(path, TENSORS)
    assert store.read(path) is not None


def test_a_file_of_someone_else_is_none(tmp_path):
    from safetensors.numpy import save_file

    save_file({"flow": TENSORS["flow"]}, tmp_path / "clip.safetensors")
    assert store.read(tmp_path / "clip.safetensors") is None
    assert store.read(tmp_path) is None


def fill(folder, rounds):
    for turn in range(rounds):
        for clip in range(5):
            path = store.clip_file(folder, "sub01", f"EP{clip}")
            store.write(path, {"flow": np.full((3, 64, 64), clip, np.float32)})
            found = store.read(store.clip_file(folder, "sub01", f"EP{turn % (clip + 1)}"))
            assert found is not None and len(np.unique(found["flow"])) == 1


def test_any_number_of_processes_may_fill_one_cache(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=fill, args=(tmp_path / "cache", 20)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(list((tmp_path / "cache").iterdir())) == 5


def test_a_killed_process_leaves_nothing_under_the_name(tmp_path):
    path = tmp_path / "fold.csv"
    run = (
        "import os, sys\nfrom data_modules.cache.store import whole_file\n"
        "with whole_file(sys.argv[1]) as temporary:\n    temporary.write_text('half')\n    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", run, path], env={"PYTHONPATH": os.pathsep.join(sys.path)})
    assert not path.exists() and not list(tmp_path.glob("*.csv"))
    assert [file.suffix for file in tmp_path.iterdir()] == [".tmp"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ZeroDivisionError(), FileNotFoundError(2, "no", "frame.jpg")])
def test_a_failed_body_leaves_the_old_file(tmp_path, failure):
    path = tmp_path / "fold.csv"
    path.write_text("old")
    with pytest.raises(type(failure)), store.whole_file(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS])
def test_a_folder_that_takes_nothing_is_named_with_the_remedy(tmp_path, monkeypatch, number):
    def refuse(self, content):
        self.touch()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    path = tmp_path / "clip.safetensors"
    with pytest.raises(InputError, match="choose another folder") as caught:
        store.write(path, TENSORS)
    assert str(path) in str(caught.value) and not list(tmp_path.iterdir())


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "results").write_text("")
    for path in (tmp_path / "results" / "a.csv", tmp_path / "results" / "b" / "a.csv", tmp_path):
        with pytest.raises(InputError, match="stands where"), store.whole_file(path) as temporary:
            temporary.write_text("text")


def test_an_error_over_another_file_stays_what_it_is(tmp_path):
    with pytest.raises(PermissionError), store.whole_file(tmp_path / "fold.csv"):
        raise PermissionError(errno.EACCES, "no", "/data/casme2/img1.jpg")


def test_digest_names_the_settings():
    settings = {"flow": "tvl1", "size": 128, "revision": {"flow": 1}, "subjects": ["a", "b"], "crop": None}
    text = '{"crop":null,"flow":"tvl1","revision":{"flow":1},"size":128,"subjects":["a","b"]}'
    assert store.digest(settings) == store.digest(dict(reversed(settings.items()))) == "49e0a1893067"
    assert hashlib.sha256(text.encode()).hexdigest().startswith("49e0a1893067")
    assert store.digest(settings | {"size": 112}) != store.digest(settings)
    with pytest.raises(TypeError):
        store.digest({"root": os.path.join, "size": 1})
    with pytest.raises(ValueError):
        store.digest({"lr": float("nan")})


def test_a_path_in_a_table_stays_in_its_folder(tmp_path):
    store.write(tmp_path / "cache/deep/clip.safetensors", TENSORS)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "cache")
    for folder, name in (("cache", "deep/clip.safetensors"), (".", "elsewhere/deep/clip.safetensors")):
        assert store.read_named(tmp_path / folder, name) is not None
    outside = ["../cache/deep/clip.safetensors", str(tmp_path / "cache/deep/clip.safetensors"), "", "\0", "C:/x"]
    for name in (*outside, "deep/../deep/clip.safetensors", "..\\x", "\\\\host\\x"):
        assert not store.is_below(name) and store.read_named(tmp_path / "cache", name) is None, name


names = st.text(min_size=0, max_size=100)


@given(names, names, names, names)
def test_clips_never_share_a_file_and_never_leave_the_folder(tmp_path_factory, subject, clip, subject2, clip2):
    first, second = store.clip_file("cache", subject, clip), store.clip_file("cache", subject2, clip2)
    assert (str(first).lower() == str(second).lower()) == ((subject, clip) == (subject2, clip2))
    assert first.parent.name == "cache" and len(first.name) < 200
    assert first.suffix == ".safetensors" and not first.name.startswith(".") and first.name.isascii()


@pytest.mark.parametrize("pair", [("a-b", "c"), ("a", "b-c"), ("..", "../../x"), ("sub01", "EP02_01f"), ("", "\0")])
def test_odd_names_are_files_of_their_own(tmp_path, pair):
    others = {store.clip_file(tmp_path, "a", "b"), store.clip_file(tmp_path, "a", "b c")}
    path = store.clip_file(tmp_path, *pair)
    store.write(path, TENSORS)
    assert path not in others and path.resolve().parent == tmp_path.resolve()


def test_the_cache_starts_without_torch():
    run = "import sys, data_modules.cache.store; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", run], check=True, env={"PYTHONPATH": os.pathsep.join(sys.path)})

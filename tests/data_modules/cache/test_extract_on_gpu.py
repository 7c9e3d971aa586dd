from itertools import count
from threading import Barrier

import cv2
import numpy as np
import pytest
import torch

from data_modules.cache import extract, extract_on_gpu, store
from data_modules.cache.extract import Entry
from data_modules.cache.extract_on_gpu import Device, finish, finish_all, run
from data_modules.preparation import resolve
from mer import InputError
from mer.flow import flow_map
from mer.flow.tvl1 import tvl1
from mer.preprocessing.clip import FlowPreparation, FramesPreparation
from tests import trees

SIDE = 48
Y, X = np.mgrid[:SIDE, :SIDE].astype(np.float32)


def picture(shift):
    """A textured square that moves to the right."""
    waves = np.sin((X - shift) / 3) * np.cos(Y / 4) + np.sin((X - shift + 2 * Y) / 7)
    return np.uint8(128 + 40 * waves)


def computed(folder, number, **changes):
    """A clip as a process hands it over."""
    one = Entry(FlowPreparation(frames=(), size=SIDE, apex=None, method=None), folder / f"{number}")
    tensors = {"pairs": np.stack([picture(0), picture(0.2 * number)])[None], "apex_frame": np.array([number])}
    return one, {**tensors, **changes}


def test_a_batch_is_written_with_its_flow_and_strain(tmp_path):
    batch = [computed(tmp_path, 1), (computed(tmp_path, 2)[0], "no face"), computed(tmp_path, 3)]
    still = {"frames": np.zeros((6, 3, 8, 8), np.uint8)}
    batch.append((Entry(FramesPreparation(frames=(), size=8, count=6), tmp_path / "still"), still))
    assert finish(batch, Device("cpu")) == [None, "no face", None, None]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3", "still"]
    for number in (1, 3):
        tensors = store.read(tmp_path / f"{number}")
        assert set(tensors) == {"flow", "apex_frame"} and tensors["apex_frame"] == [number]
        expected = flow_map(picture(0), picture(0.2 * number))
        assert tensors["flow"].shape == (3, SIDE, SIDE) and tensors["flow"].dtype == np.float32
        assert np.abs(tensors["flow"] - expected).mean() < 0.01
    np.testing.assert_array_equal(store.read(tmp_path / "still")["frames"], still["frames"])


def test_a_clip_may_have_several_maps(tmp_path):
    pairs = np.stack([[picture(0), picture(1)], [picture(1), picture(0)]])
    batch = [computed(tmp_path, 1), computed(tmp_path, 2, pairs=pairs), computed(tmp_path, 5)]
    finish(batch, Device("cpu"))
    finish([computed(tmp_path, 3, pairs=pairs[1:])], Device("cpu"))
    one, two, back, five = (store.read(tmp_path / name)["flow"] for name in ("1", "2", "3", "5"))
    assert two.shape == (6, SIDE, SIDE) and one.shape == five.shape == (3, SIDE, SIDE)
    np.testing.assert_array_equal(two[:3], five)  # a shift of one pixel, too
    np.testing.assert_array_equal(two[3:], back)


def test_outcomes_keep_their_order_and_bytes_do_not_depend_on_devices_or_batches(tmp_path, monkeypatch):
    contents = []
    for at_once, size in (([1], 2), ([1, 1, 1], 1), ([2, 1], 3), ([1], 128)):
        monkeypatch.setattr(extract_on_gpu, "BATCH", size)
        folder = tmp_path / f"{len(at_once)}-{size}"
        devices = [Device("cpu", number) for number in at_once]
        clips = [computed(folder, number) for number in range(7)]
        clips[4] = (clips[4][0], "broken")
        assert list(finish_all(iter(clips), devices)) == [None] * 4 + ["broken"] + [None] * 2
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert len(contents[0]) == 6 and all(one == contents[0] for one in contents)
    assert list(finish_all(iter([]), [Device("cpu")])) == []


@pytest.mark.parametrize("at_once", [1, 2])
def test_clips_are_taken_while_a_device_computes_but_not_without_end(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(extract_on_gpu, "BATCH", 2)
    taken = []
    clips = (taken.append(number) or computed(tmp_path, number) for number in range(20))
    outcomes = finish_all(clips, [Device("cpu", at_once)])
    assert next(outcomes) is None
    assert taken == list(range(2 * (at_once + 1)))
    outcomes.close()


def test_a_device_computes_two_batches_at_once(tmp_path, monkeypatch):
    both = Barrier(2, timeout=60)

    def meeting(first, second):
        both.wait()
        return tvl1(first, second)

    monkeypatch.setattr(extract_on_gpu, "BATCH", 1)
    monkeypatch.setattr(extract_on_gpu, "tvl1", meeting)
    assert list(finish_all([computed(tmp_path, number) for number in range(4)], [Device("cpu", 2)])) == [None] * 4


def test_processes_hand_over_what_opencv_would_have_seen(tmp_path):
    files = []
    for number, shift in ((4, 0.0), (5, 0.4), (6, 0.8)):
        files.append((number, tmp_path / f"img{number}.png"))
        cv2.imwrite(str(files[-1][1]), np.dstack([picture(shift)] * 3))
    settings = {"size": SIDE, "apex": 6, "registered": True}
    work = [Entry(FlowPreparation(frames=tuple(files), method=None, **settings), tmp_path / "torch")]
    work.append(Entry(FlowPreparation(frames=tuple(files[:1]), method=None, **settings), tmp_path / "short"))
    done, lost = run(work, 1)
    assert done is None and "1 frame" in lost
    reference = Entry(FlowPreparation(frames=tuple(files), method="tvl1", **settings), tmp_path / "opencv")
    assert reference.write() is None
    ours, theirs = store.read(tmp_path / "torch"), store.read(tmp_path / "opencv")
    assert set(ours) == set(theirs)
    for name in set(theirs) - {"flow"}:
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert np.abs(theirs["flow"]).max() > 0.5 and np.abs(ours["flow"] - theirs["flow"]).mean() < 0.01


def memory_for(pairs, sizes):
    """``tvl1`` on a device whose memory holds so many pairs; ``sizes`` gets those of the batches that it computes."""

    def limited(first, second):
        if len(first) > pairs:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(first))
        return tvl1(first, second)

    return limited


def test_a_batch_that_does_not_fit_is_halved_until_it_does(monkeypatch):
    pairs = np.stack([[picture(0), picture(0.2 * number)] for number in range(7)])
    whole = Device("cpu").flow(pairs)
    sizes = []
    monkeypatch.setattr(extract_on_gpu, "tvl1", memory_for(2, sizes))
    np.testing.assert_array_equal(Device("cpu", 2).flow(pairs), whole)
    assert sizes == [1, 2, 2, 2]


def test_a_batch_that_does_not_fit_beside_another_waits_for_it(tmp_path, monkeypatch):
    running, most, sizes, numbers = [], [], [], count()
    both = Barrier(2, timeout=60)

    def shared(first, second):
        """Memory for one batch; the first two meet."""
        running.append(len(first))
        try:
            if next(numbers) < 2:
                both.wait()
                raise torch.OutOfMemoryError("CUDA out of memory")
            most.append(len(running))
            sizes.append(len(first))
            return tvl1(first, second)
        finally:
            running.pop()

    monkeypatch.setattr(extract_on_gpu, "BATCH", 2)
    monkeypatch.setattr(extract_on_gpu, "tvl1", shared)
    assert list(finish_all([computed(tmp_path, number) for number in range(4)], [Device("cpu", 2)])) == [None] * 4
    assert most == [1, 1] and sizes == [2, 2]


def test_a_device_too_small_for_one_pair_is_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(extract_on_gpu, "tvl1", memory_for(0, []))
    with pytest.raises(InputError, match=r"memory of cpu.*one clip.*--data\.backend=opencv"):
        list(finish_all([computed(tmp_path, 0), computed(tmp_path, 1)], [Device("cpu")]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("backend", "method", "gpu", "resolved"),
    [
        ("auto", "tvl1", True, "torch"),
        ("auto", "tvl1", False, "opencv"),
        ("auto", "dis", True, "opencv"),
        ("opencv", "tvl1", True, "opencv"),
        ("torch", "tvl1", False, "torch"),
    ],
)
def test_auto_takes_torch_for_tvl1_on_a_gpu(backend, method, gpu, resolved):
    assert resolve(backend, method, gpu) == resolved


class TestDataset:
    @pytest.fixture
    def load(self, tmp_path):
        from data_modules.casme2 import CASME2

        root = trees.casme2(tmp_path / "data")
        return lambda **options: CASME2(root=str(root), cache=str(tmp_path / "cache"), **options)

    def test_each_backend_has_a_cache_of_its_own(self, load):
        automatic, opencv, one = load(), load(backend="opencv"), load(backend="torch")
        assert automatic.backend == resolve("auto", "tvl1", torch.cuda.is_available())
        assert opencv.folder != one.folder and automatic.folder in (opencv.folder, one.folder)

    def test_prepare_asks_the_backend(self, load, monkeypatch):
        asked = []

        def fill(entries, workers):
            asked.append({entry.preparation.method for entry in entries})
            return ("not today" for _ in entries)

        monkeypatch.setattr(extract_on_gpu, "run", fill)
        monkeypatch.setattr(extract, "run", fill)
        for backend in ("torch", "opencv"):
            load(backend=backend).prepare_data()
        assert asked == [{None}, {"tvl1"}]

    def test_another_method_is_opencvs(self, load):
        with pytest.raises(InputError, match="torch has no flow 'dis'"):
            load(backend="torch", method="dis")

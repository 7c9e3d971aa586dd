import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from data_modules.cache import extract, store
from data_modules.cache.extract import Entry
from mer import InputError
from mer.flow import flow_map
from mer.preprocessing.clip import FlowPreparation, FramesPreparation
from mer.preprocessing.motion import MAPS

NUMBERS = (7, 8, 9, 11, 12, 13, 14)  # 10 is missing
APEX = 11


def picture(strength: float) -> np.ndarray:
    """The portrait, its mouth corners pulled up by ``strength`` px."""
    image = cv2.cvtColor(astronaut()[:300, 60:400], cv2.COLOR_RGB2BGR)
    y, x = np.mgrid[:300, :340].astype(np.float32)
    bumps = sum(np.exp(-((x - mouth) ** 2 + (y - 148) ** 2) / 200) for mouth in (145, 182))
    return cv2.remap(image, x, (y + strength * bumps).astype(np.float32), cv2.INTER_CUBIC)


def film(folder: Path, write=cv2.imwrite, suffix: str = ".png") -> tuple[tuple[int, Path], ...]:
    folder.mkdir(parents=True)
    found = []
    for number in NUMBERS:
        found.append((number, folder / f"img{number}{suffix}"))
        write(str(found[-1][1]), picture(3 * np.exp(-(((number - APEX) / 2) ** 2)) if number > 7 else 0.0))
    return tuple(found)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Frames of one clip. Read only."""
    return film(tmp_path_factory.mktemp("frames") / "clip")


@pytest.fixture
def own_clip(tmp_path):
    """The same, to spoil."""
    return film(tmp_path / "clip")


def entry(clip, tmp_path, name="out.safetensors", **changes) -> Entry:
    settings = {"apex": APEX, "size": 128, "method": "farneback"} | changes
    return Entry(FlowPreparation(frames=clip, **settings), tmp_path / name)


def prepared(clip, tmp_path, **changes):
    work = entry(clip, tmp_path, **changes)
    assert work.write() is None
    return store.read(work.target)


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("remove_head_motion", [False, True])
def test_what_is_cached(clip, tmp_path, size, registered, remove_head_motion):
    tensors = prepared(clip, tmp_path, size=size, registered=registered, remove_head_motion=remove_head_motion)
    assert set(tensors) == {"flow", "onset", "apex", "apex_frame"}
    assert tensors["flow"].shape == (3, size, size) and tensors["flow"].dtype == np.float32
    for name in ("onset", "apex"):
        assert tensors[name].shape == (3, size, size) and tensors[name].dtype == np.uint8 and tensors[name].std() > 10
    assert tensors["apex_frame"].dtype == np.int64 and tensors["apex_frame"].tolist() == [APEX]
    assert np.hypot(*tensors["flow"][:2]).max() > 0.1


@pytest.mark.parametrize("wanted, used", [(10, 9), (12, 12), (99, 14), (7, 8), (0, 8)])
def test_the_nearest_frame_after_the_onset_is_the_apex(clip, tmp_path, wanted, used):
    assert prepared(clip, tmp_path, apex=wanted)["apex_frame"] == [used]


@pytest.mark.parametrize("registered", [False, True])
def test_an_apex_is_spotted(clip, tmp_path, registered):
    found = prepared(clip, tmp_path, apex=None, registered=registered)
    assert found["apex_frame"] == [APEX]
    given = prepared(clip, tmp_path, registered=registered)
    np.testing.assert_array_equal(found["flow"], given["flow"])


def test_the_spotted_apex_does_not_depend_on_size_or_method(clip, tmp_path):
    assert prepared(clip, tmp_path, apex=None, size=48, method="dis")["apex_frame"] == [APEX]


def test_two_frames_are_enough(clip, tmp_path):
    assert prepared(clip[:2], tmp_path, apex=None)["apex_frame"] == [8]
    assert "1 frame" in entry(clip[:1], tmp_path).write()


def between(clip, tmp_path, first: int, second: int) -> np.ndarray:
    """The flow between two frames of a clip whose face is the onset's, by place; it stands still in the first four."""
    return prepared((clip[first], *clip[second:]), tmp_path, apex=clip[second][0], registered=True)["flow"]


class TestMotion:
    """The whole motion: what leads back to rest, and the same motion between other frames."""

    def maps(self, clip, tmp_path, motion, **changes):
        return prepared(clip, tmp_path, motion=motion, registered=True, **changes)["flow"].reshape(-1, 3, 128, 128)

    def test_both_ways(self, clip, tmp_path):
        apex = [number for number, _ in clip].index(APEX)
        forth, back = self.maps(clip, tmp_path, "both")
        np.testing.assert_array_equal(forth, between(clip, tmp_path, 0, apex))
        np.testing.assert_array_equal(back, between(clip, tmp_path, apex, len(clip) - 1))

    def test_pairs_beside_onset_and_apex(self, clip, tmp_path):
        apex = [number for number, _ in clip].index(APEX)
        pairs = (0, apex), (0, apex - 1), (0, apex + 1), (1, apex)
        for found, (first, second) in zip(self.maps(clip, tmp_path, "pairs"), pairs, strict=True):
            np.testing.assert_array_equal(found, between(clip, tmp_path, first, second))

    def test_a_short_clip_has_as_many_maps(self, clip, tmp_path):
        assert [len(self.maps(clip[:2], tmp_path, motion)) for motion in MAPS] == list(MAPS.values())
        assert not self.maps(clip[:2], tmp_path, "both", method="tvl1")[1].any()  # the apex is the offset

    @pytest.mark.parametrize(("motion", "broken"), [("both", -1), ("pairs", 1)])
    def test_a_frame_that_is_no_onset_or_apex_may_be_broken(self, own_clip, tmp_path, motion, broken):
        own_clip[broken][1].write_bytes(b"")
        found = self.maps(own_clip, tmp_path, motion)
        apex = [number for number, _ in own_clip].index(APEX)
        pair = (apex, len(own_clip) - 2) if motion == "both" else (0, apex)
        np.testing.assert_array_equal(
            found[-1], between(own_clip[:broken] if broken < 0 else own_clip, tmp_path, *pair)
        )

    @pytest.mark.parametrize("motion", MAPS)
    def test_pairs_are_left_to_a_gpu_likewise(self, clip, tmp_path, motion):
        pairs = prepared(clip, tmp_path, motion=motion, method=None)["pairs"]
        flow = np.concatenate([flow_map(first, second, "farneback") for first, second in pairs])
        assert pairs.shape == (MAPS[motion], 2, 128, 128) and pairs.dtype == np.uint8
        np.testing.assert_array_equal(flow, prepared(clip, tmp_path, motion=motion)["flow"])


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_frames_give_nearly_the_same(clip, tmp_path, channels):
    def write(path, image):
        one = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        cv2.imwrite(path, one if channels == 1 else np.dstack([one] * 3))

    tensors = prepared(film(tmp_path / "grey", write, ".bmp"), tmp_path, apex=None, remove_head_motion=True)
    colour = prepared(clip, tmp_path, apex=None, remove_head_motion=True)
    assert tensors["apex_frame"] == colour["apex_frame"]
    assert np.abs(tensors["flow"][:2] - colour["flow"][:2]).mean() < 0.15


@pytest.mark.parametrize("index", [0, NUMBERS.index(APEX)], ids=["onset", "apex"])
def test_a_frame_that_is_needed_and_does_not_open_is_named(own_clip, tmp_path, index):
    own_clip[index][1].write_bytes(b"no image")
    work = entry(own_clip, tmp_path)
    assert str(own_clip[index][1]) in work.write()
    assert not work.target.exists()


def test_spotting_passes_over_some_damaged_frames_but_not_over_half_of_them(own_clip, tmp_path):
    for _, path in own_clip[-2:]:
        path.write_bytes(b"")
    assert prepared(own_clip, tmp_path, apex=None)["apex_frame"] == [APEX]
    own_clip[1][1].unlink()
    reason = entry(own_clip, tmp_path, apex=None).write()
    assert "3 of 7" in reason and str(own_clip[1][1]) in reason


def test_a_frame_of_another_size_is_named(own_clip, tmp_path):
    path = own_clip[NUMBERS.index(APEX)][1]
    cv2.imwrite(str(path), picture(1)[:200])
    reason = entry(own_clip, tmp_path).write()
    assert str(path) in reason and "340 x 200" in reason and "340 x 300" in reason


def test_a_face_may_first_be_seen_a_few_frames_later(own_clip, tmp_path):
    blank = np.full((300, 340, 3), 128, np.uint8)
    for _, path in own_clip[:2]:
        cv2.imwrite(str(path), blank)
    prepared(own_clip, tmp_path)
    for _, path in own_clip:
        cv2.imwrite(str(path), blank)
    reason = entry(own_clip, tmp_path).write()
    assert str(own_clip[0][1]) in reason and "no face" in reason
    assert prepared(own_clip, tmp_path, registered=True)


def filmstrip(clip, tmp_path, **changes) -> np.ndarray:
    settings = {"size": 64, "count": 4} | changes
    work = Entry(FramesPreparation(frames=clip, **settings), tmp_path / "frames.safetensors")
    assert work.write() is None
    return store.read(work.target)["frames"]


def test_frames_are_spread_evenly_from_onset_to_offset(clip, tmp_path):
    taken = filmstrip(clip, tmp_path)
    assert taken.shape == (4, 3, 64, 64) and taken.dtype == np.uint8
    every = filmstrip(clip, tmp_path, count=8)  # 7 to 14; 10 is missing, and 9 is the first of its neighbours
    assert [np.array_equal(every[3], frame) for frame in every[:5]] == [False, False, True, True, False]
    np.testing.assert_array_equal(taken[[0, 3]], every[[0, 7]])
    flow = prepared(clip, tmp_path, size=64)
    np.testing.assert_array_equal(flow["onset"], every[0])
    np.testing.assert_array_equal(flow["apex"], every[4])
    removed = filmstrip(clip, tmp_path, remove_head_motion=True)
    np.testing.assert_array_equal(removed[0], taken[0])


def test_the_nearest_frame_stands_in_for_one_that_does_not_open(own_clip, clip, tmp_path):
    for _, path in own_clip[-2:]:
        path.write_bytes(b"no image")
    every = filmstrip(clip, tmp_path, count=8)
    np.testing.assert_array_equal(filmstrip(own_clip, tmp_path)[[0, 3]], every[[0, 5]])
    own_clip[0][1].write_bytes(b"")
    work = Entry(FramesPreparation(frames=own_clip, size=64, count=4), tmp_path / "x")
    assert str(own_clip[0][1]) in work.write()


def test_outcomes_and_bytes_do_not_depend_on_the_workers(clip, tmp_path):
    def several(workers):
        folder = tmp_path / str(workers)
        broken = (*clip[:1], (8, tmp_path / "missing.png"))
        clips = [clip, broken, clip[:4], clip[1:]]
        work = [
            entry(one, folder, f"{i}", apex=(None, 8)[one is broken], remove_head_motion=True)
            for i, one in enumerate(clips)
        ]
        outcomes = list(extract.run(work, workers))
        return outcomes, {path.name: path.read_bytes() for path in folder.iterdir()}

    alone, together = several(1), several(3)
    assert alone == together
    assert [outcome is None for outcome in alone[0]] == [True, False, True, True]
    assert sorted(alone[1]) == ["0", "2", "3"]


def test_nothing_to_do():
    assert list(extract.run([], 2)) == []


class Fatal(Entry):
    def write(self):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_clip_that_kills_its_process_is_one_clear_error(tmp_path):
    frames = ((1, tmp_path / "clip/1.jpg"),)
    work = [Fatal(FlowPreparation(frames=frames, size=128, apex=None, method="dis"), tmp_path)] * 3
    with pytest.raises(InputError, match="clip: .*twice.*SIGKILL.*fewer --workers"):
        list(extract.spread(Fatal.write, work, 2))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_no_process_is_left_behind(clip, tmp_path, number):
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from data_modules.cache.extract import Entry, run
        from mer.preprocessing.clip import FlowPreparation
        if __name__ == "__main__":
            frames = tuple((i, Path(path)) for i, path in enumerate(sys.argv[2:]))
            settings = {"frames": frames, "size": 256, "registered": True, "apex": 3, "method": "tvl1"}
            work = [Entry(FlowPreparation(**settings), Path(sys.argv[1], str(i))) for i in range(500)]
            for outcome in run(work, 2):
                print(outcome, flush=True)
    """)
    (tmp_path / "work.py").write_text(script)
    roots = Path(extract.__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, tmp_path / "work.py", tmp_path / "out", *(str(path) for _, path in clip)],
        env=os.environ | {"PYTHONPATH": f"{roots}:{roots / 'src'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    process.stdout.readline()
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.kill()
    process.stdout.read(), process.stderr.read()  # end of file: nobody holds the other end any more
    process.wait(30)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("a process is left")


def test_workers_start_without_torch():
    code = "import sys, data_modules.cache.extract; sys.exit('torch' in sys.modules or 'lightning' in sys.modules)"
    roots = Path(extract.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{roots}:{roots / 'src'}"}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0

"""Depth frames: where they lie, that they are cropped as the colour frames are, and what is taken from them."""

import cv2
import numpy as np
import pytest

from mer import InputError
from mer.preprocessing.clip import FlowPreparation, VideoFrame
from mer.preprocessing.depth import FARTHEST, DepthPreparation, crop_depth, find_depth, normalise
from mer.preprocessing.frame_files import read_depth

CALM = np.array([[1.0, 0, 0], [0, 1, 0]])


@pytest.fixture
def film(studio, tmp_path):
    """Three frames of a face that moves, numbers and paths; depth is 500 and twice the grey value."""
    frames = []
    for number, right in enumerate((0, 3, 6), start=20):
        grey = studio.shoot(studio.similarity(1.0, 1.5 * right / 3, right, 2))
        for name, image in ((f"color/{number}.png", grey), (f"depth/{number}.png", 500 + 2 * grey.astype(np.uint16))):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / name), image)
        frames.append((number, tmp_path / f"color/{number}.png"))
    return tuple(frames)


@pytest.mark.parametrize("removed", [False, True])
def test_depth_is_cropped_as_colour_is(film, studio, removed):
    how = {"frames": film, "size": 96, "apex": 22, "remove_head_motion": removed}
    colour, depth = FlowPreparation(**how, method="dis").tensors(), DepthPreparation(**how).tensors()["depth"]
    assert depth.shape == (3, 96, 96) and depth.dtype == np.float32
    for name, channel in zip(("onset", "apex"), depth, strict=False):
        picture = colour[name][0].astype(np.float32)
        inside = np.abs(channel) < FARTHEST
        assert inside.mean() > 0.5 and np.corrcoef(picture[inside], channel[inside])[0, 1] > 0.995
    moved = np.abs(depth[1] - depth[0]).mean()
    still = DepthPreparation(**{**how, "remove_head_motion": True}).tensors()["depth"]
    assert removed or moved > 1.5 * np.abs(still[1] - still[0]).mean()


def test_a_spotted_apex_is_that_of_the_flow(film):
    how = {"frames": film, "size": 64, "apex": None}
    number = int(FlowPreparation(**how, method="dis").tensors()["apex_frame"][0])
    given = DepthPreparation(**{**how, "apex": number}).tensors()["depth"]
    assert np.array_equal(DepthPreparation(**how).tensors()["depth"], given)


def test_where_a_depth_frame_lies(tmp_path):
    for name in ("a/color/7.jpg", "a/depth/7.png", "frame/clip/8.jpg", "depth/clip/8.png", "b/color/9.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_depth(tmp_path / "a/color/7.jpg") == tmp_path / "a/depth/7.png"
    assert find_depth(tmp_path / "frame/clip/8.jpg") == tmp_path / "depth/clip/8.png"
    assert find_depth(tmp_path / "b/color/9.jpg") is None


def test_what_is_not_measured_counts_for_nothing():
    depth = np.full((60, 60), 700, np.uint16)
    depth[20:40, 30:] = 0
    crop = crop_depth(depth, CALM / 2, 30, CALM / 2)
    assert np.isnan(crop[12:18, 18:]).all() and not np.isnan(crop[:8]).any()
    assert np.nanmin(crop) == pytest.approx(700) == np.nanmax(crop)  # no mixture with 0 at the edge


def test_neither_unit_nor_distance_nor_other_clips_count():
    draws = np.random.default_rng(0)
    onset = draws.uniform(600, 700, (32, 32)).astype(np.float32)
    apex = onset + draws.normal(0, 5, onset.shape).astype(np.float32)
    onset[3:5, 6:9] = np.nan
    maps = normalise(onset, apex)
    assert maps.dtype == np.float32 and np.abs(maps).max() <= FARTHEST and (maps[[0, 2], 3:5, 6:9] == 0).all()
    assert np.median(np.abs(maps[0])) == pytest.approx(1, abs=0.05)
    assert np.percentile(np.abs(maps[2]), 95) == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(normalise(10 * onset, 10 * apex), maps, atol=1e-3)
    np.testing.assert_allclose(normalise(onset + 300, apex + 300), maps, atol=1e-3)
    np.testing.assert_allclose(normalise(onset, apex + 20)[2], maps[2], atol=1e-3)  # the head comes nearer
    flat = normalise(np.full((8, 8), 700, np.float32), np.full((8, 8), 700, np.float32))
    assert (flat == 0).all()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda file: file.unlink(), "color/20.png: has no depth frame"),
        (lambda file: file.write_bytes(b"x"), "depth/20.png: is no depth frame that opens"),
        (lambda file: cv2.imwrite(str(file), np.zeros((480, 640), np.uint8)), "one channel of 16 bits"),
        (lambda file: cv2.imwrite(str(file), np.ones((240, 320), np.uint16)), "320 x 240 pixels, the colour frame 640"),
        (lambda file: cv2.imwrite(str(file), np.zeros((480, 640), np.uint16)), "less than 25% of the face has a depth"),
    ],
)
def test_depth_that_cannot_be_used_is_named(film, studio, spoil, says):
    spoil(film[0][1].parent.parent / "depth/20.png")
    with pytest.raises(InputError, match=says):
        DepthPreparation(frames=film, size=64, apex=22, registered=True).tensors()


def test_a_video_has_no_depth(film):
    image = cv2.cvtColor(cv2.imread(str(film[0][1])), cv2.COLOR_BGR2RGB)
    frames = tuple((number, VideoFrame(film[0][1], number, image)) for number, _ in film)
    with pytest.raises(InputError, match="frame 20: has no depth frame"):
        DepthPreparation(frames=frames, size=64, apex=22, registered=True).tensors()


def test_a_depth_frame_is_read_as_it_is(film):
    depth = read_depth(film[0][1].parent.parent / "depth/20.png")
    assert depth.dtype == np.uint16 and depth.min() >= 500

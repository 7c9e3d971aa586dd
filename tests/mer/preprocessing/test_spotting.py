import numpy as np
import pytest

from mer import InputError
from mer.preprocessing import face_parts
from mer.preprocessing.spotting import Spotted, spot_in_curves, spot_intervals

RATE = 30.0
PARTS = face_parts.sides((*face_parts.EYES, *face_parts.STILL, *face_parts.EXPRESSIVE))
MOUTH = [index for index, (part, _) in enumerate(PARTS) if part.top >= 0.55 and part.inner]
BROWS = [index for index, (part, _) in enumerate(PARTS) if part.bottom <= 0.26]
EYES = [0, 1]


def curves(seconds=8.0, rate=RATE):
    """Displacements of a calm face: noise as in a synthetic video, and a slow drift of everything."""
    count = round(seconds * rate)
    noise = np.random.default_rng(0).normal(0, 0.01, (count, len(PARTS), 2))
    return noise + 0.3 * np.sin(np.arange(count) / rate / 3)[:, None, None]


def bump(count, onset, length, height):
    """A motion that rises to ``height`` and comes back; all in frames and px."""
    time = (np.arange(count) - onset) / length
    return height * np.where((time > 0) & (time < 1), 0.5 - 0.5 * np.cos(2 * np.pi * time), 0)


def move(moved, parts, curve, direction=(0.6, -0.8)):
    moved[:, parts] += curve[:, None, None] * np.asarray(direction)


def overlap(interval, onset, offset):
    inside = min(interval.offset, offset) - max(interval.onset, onset) + 1
    return inside / (interval.offset - interval.onset + offset - onset + 2 - inside)


@pytest.mark.parametrize("rate", [25.0, 30.0, 50.0, 60.0])
@pytest.mark.parametrize("seconds", [0.2, 0.35, 0.5])
@pytest.mark.parametrize("parts", [MOUTH, BROWS], ids=["mouth", "brows"])
def test_a_short_motion_is_spotted_with_its_ends(rate, seconds, parts):
    moved = curves(rate=rate)
    move(moved, parts, bump(len(moved), 3 * rate, seconds * rate, 0.5))
    motion, threshold, (interval,) = spot_in_curves(moved, rate)
    assert overlap(interval, 3 * rate, (3 + seconds) * rate) >= 0.6
    assert abs(interval.apex - (3 + seconds / 2) * rate) <= 2
    assert interval.onset < interval.apex < interval.offset
    assert 0.3 < interval.strength <= motion[interval.onset : interval.offset].max() and motion.max() > threshold


@pytest.mark.parametrize("seconds", [0.9, 1.5, 3.0])
def test_a_longer_motion_is_none(seconds):
    moved = curves()
    move(moved, MOUTH, bump(len(moved), 60, seconds * RATE, 4.0))
    assert spot_in_curves(moved, RATE)[2] == ()


def test_a_motion_that_stays_is_none():
    moved = curves()
    move(moved, BROWS, 2.0 * (np.arange(len(moved)) > 100))
    assert spot_in_curves(moved, RATE)[2] == ()


def test_nothing_in_a_calm_face():
    motion, threshold, intervals = spot_in_curves(curves(), RATE)
    assert intervals == () and motion.shape == (240,) and 0 < motion.max() < threshold < 0.3


def test_a_blink_is_none_and_an_expression_with_a_blink_stays():
    moved = curves()
    for start in (60, 150):
        blink = bump(len(moved), start, 8, 2.0)
        move(moved, EYES, blink, (0, 1))
        move(moved, BROWS, 0.2 * blink, (0, 1))
    assert spot_in_curves(moved, RATE)[2] == ()
    move(moved, MOUTH, bump(len(moved), 148, 12, 0.5))
    (interval,) = spot_in_curves(moved, RATE)[2]
    assert overlap(interval, 148, 160) >= 0.6


def test_speech_is_none_and_an_expression_apart_from_it_stays():
    moved = curves(10)
    for start in range(60, 130, 9):
        move(moved, MOUTH, bump(len(moved), start, 9, 1.0))
    assert spot_in_curves(moved, RATE)[2] == ()
    move(moved, BROWS, bump(len(moved), 200, 12, 0.5))
    (interval,) = spot_in_curves(moved, RATE)[2]
    assert overlap(interval, 200, 212) >= 0.6


def test_what_moves_the_still_parts_too_is_no_expression():
    moved = curves()
    move(moved, list(range(len(PARTS))), bump(len(moved), 100, 12, 0.5))
    assert spot_in_curves(moved, RATE)[2] == ()


def test_the_threshold_rises_with_the_noise():
    noisy = curves() + np.random.default_rng(1).normal(0, 0.08, (240, len(PARTS), 2))
    _, threshold, intervals = spot_in_curves(noisy, RATE)
    assert intervals == () and threshold > 0.8


def test_several_are_in_order_and_do_not_overlap():
    moved = curves(12)
    starts = (200, 40, 300, 110)
    for start, height in zip(starts, (0.4, 0.5, 1.0, 0.8), strict=True):
        move(moved, BROWS if start % 20 else MOUTH, bump(len(moved), start, 12, height))
    intervals = spot_in_curves(moved, RATE)[2]
    assert all(overlap(part, start, start + 12) > 0.5 for part, start in zip(intervals, sorted(starts), strict=True))
    assert all(first.offset < second.onset for first, second in zip(intervals, intervals[1:], strict=False))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_few_frames_hold_nothing(count):
    motion, _, intervals = spot_in_curves(curves()[:count], RATE)
    assert motion.shape == (count,) and intervals == ()


@pytest.fixture(scope="module")
def film(studio):
    """45 frames of a face that smiles from 15 to 25 while the head turns; the first is calm."""
    expression, frames = studio.expression(12, peak=1.3), []
    for time, amount in enumerate(bump(45, 15, 10, 1.0)):
        head = studio.similarity(1 + 0.0005 * time, 0.1 * time, 0.3 * time, -0.2 * time)
        frames.append(studio.shoot(head, amount * expression))
    return frames


def test_an_expression_is_spotted_in_frames_while_the_head_turns(film):
    spotted = spot_intervals((np.dstack([frame] * 3) for frame in film), RATE)
    assert isinstance(spotted, Spotted) and spotted.motion.shape == (45,) and spotted.motion.dtype == np.float64
    (interval,) = spotted.intervals
    assert overlap(interval, 15, 25) >= 0.5 and abs(interval.apex - 20) <= 1
    again = spot_intervals(film, RATE)
    assert again.intervals == spotted.intervals
    np.testing.assert_array_equal(again.motion, spotted.motion)


def test_of_a_fast_video_every_kth_frame_is_read_and_numbers_are_those_of_all(film):
    unread = np.zeros((2, 2), np.uint8)  # an image that nothing could read
    spotted = spot_intervals((frame for shot in film for frame in (shot, unread, unread, unread)), 4 * 50)
    assert spotted.motion.shape == (180,)
    (interval,) = spotted.intervals
    assert overlap(interval, 60, 100) >= 0.5 and abs(interval.apex - 80) <= 4


def test_frames_without_a_face_are_calm(film):
    empty = np.full_like(film[0], 128)
    before, within = [empty] * 5 + film, [*film[:8], empty, empty, *film[10:]]
    for frames, onset in ((before, 20), (within, 15)):
        (interval,) = spot_intervals(frames, RATE).intervals
        assert overlap(interval, onset, onset + 10) >= 0.5


def test_a_cut_to_another_place_is_no_motion(film):
    moved = [np.roll(frame, 60, axis=1) for frame in film[30:]]
    assert spot_intervals([*film[:12], *moved], RATE).intervals == ()


@pytest.mark.parametrize("frames", [[], [np.zeros((120, 160, 3), np.uint8)] * 3])
def test_no_face_is_an_input_error(frames):
    with pytest.raises(InputError, match="no face"):
        spot_intervals(frames, RATE)


@pytest.mark.parametrize("rate", [0, -25, float("nan"), float("inf")])
def test_the_frame_rate_is_a_positive_number(film, rate):
    with pytest.raises(InputError, match="frame rate"):
        spot_intervals(film, rate)

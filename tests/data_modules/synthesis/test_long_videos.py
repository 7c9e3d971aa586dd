import numpy as np
import pytest

from data_modules.synthesis.long_videos import LongVideo
from mer.preprocessing.faces import FaceFinder, alignment, crop

SEED = 1  # of a video that begins with a blink


@pytest.mark.parametrize("seed", range(5))
def test_the_plan_fits_the_video(seed):
    events = LongVideo(seed, 60, 30).events
    assert {"micro", "blink"} <= {event.kind for event in events}
    assert all(0 < event.onset < event.apex < event.offset < 60 * 30 for event in events)
    micro = [event for event in events if event.kind == "micro"]
    assert all(6 <= event.offset - event.onset <= 15 for event in micro)
    alone = [event for event in events if event.kind != "blink"]
    assert all(first.offset + 14 < second.onset for first, second in zip(alone, alone[1:], strict=False))


def test_the_same_arguments_give_the_same_video_and_a_blink_closes_the_eyes():
    video = LongVideo(SEED, 8, 30, (320, 240))
    blink = next(event for event in video.events if event.kind == "blink")
    frames = [frame for frame, _ in zip(video.frames(), range(blink.apex + 1), strict=False)]
    assert frames[0].shape == (240, 320, 3) and frames[0].dtype == np.uint8
    np.testing.assert_array_equal(next(LongVideo(SEED, 8, 30, (320, 240)).frames()), frames[0])
    with FaceFinder() as finder:
        opened, closed = (_opening(finder, frames[number]) for number in (blink.onset, blink.apex))
    assert closed < 0.6 * opened


def _opening(finder, frame):
    """Distance of the lids in the crop, in px."""
    landmarks = finder.landmarks(frame)
    assert landmarks is not None and crop(frame, alignment(landmarks)).shape == (128, 128, 3)
    return np.hypot(*(landmarks[159] - landmarks[145])) * np.hypot(*alignment(landmarks)[0, :2])

import cv2
import numpy as np
import pytest

from mer.preprocessing.apex import movement, spot
from mer.preprocessing.faces import crop


@pytest.fixture(scope="module", params=[(12,), (1, 2), (4,)], ids=str)
def clip(request, studio):
    """Crops of 17 frames; the expression is strongest in frame 6, while the head turns more and more."""
    expression, crops = studio.expression(*request.param, peak=1.0), [crop(studio.onset, studio.transform)]
    for time in range(1, 17):
        amount = np.sin(np.pi / 2 * time / 6) ** 2 if time <= 6 else np.cos(np.pi / 2 * (time - 6) / 14) ** 2
        head = studio.similarity(1 + 0.0008 * time, 0.25 * time, 0.7 * time, -0.4 * time)
        crops.append(crop(studio.shoot(head, amount * expression), studio.transform))
    return crops


def test_the_apex_is_the_strongest_expression_and_not_the_strongest_turn(clip):
    assert abs(spot(movement(clip)) - 6) <= 2


def test_again_gives_the_same(clip):
    np.testing.assert_array_equal(movement(clip), movement([frame.copy() for frame in clip]))


def test_the_head_alone_is_hardly_a_movement(studio):
    turned = crop(studio.shoot(studio.similarity(1.01, 3, 4, 2)), studio.transform)
    still = crop(studio.shoot(), studio.transform)
    smiling = crop(studio.shoot(expression=studio.expression(12, peak=1.0)), studio.transform)
    _, head, smile, noise = movement([still, turned, smiling, still])
    assert noise < 0.05 and head < 0.1 and smile > 1.5 * head


@pytest.mark.parametrize("length", [2, 3, 5])
def test_the_onset_is_never_the_apex(studio, length):
    still = crop(studio.onset, studio.transform)
    assert spot(movement([still] * length)) == 1
    assert spot(movement([np.zeros((128, 128), np.uint8)] * length)) == 1


def test_other_sizes(clip):
    halves = [cv2.resize(frame, (64, 64), interpolation=cv2.INTER_AREA) for frame in clip]
    assert 3 <= spot(movement(halves)) <= 9


def test_one_frame_has_no_apex():
    with pytest.raises(ValueError, match="two"):
        spot(np.zeros(1))

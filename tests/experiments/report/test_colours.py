import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.report.colours import colours, overlay, shades, veil, wheel


@given(st.floats(0, 2 * np.pi), st.floats(0.01, 10))
def test_colour_is_the_direction_and_saturation_the_length(angle, length):
    flow = length * np.array([np.cos(angle), np.sin(angle)]).reshape(2, 1, 1)
    (((red, green, blue),),) = colours(flow, 10).astype(int)
    assert max(red, green, blue) == 255
    assert 255 - min(red, green, blue) == pytest.approx(25.5 * length, abs=1)


def test_still_is_white_and_right_is_red():
    flow = np.array([[[0.0, 3, -3]], [[0.0, 0, 0]]])
    assert colours(flow, 1)[0].tolist() == [[255, 255, 255], [255, 0, 0], [0, 255, 255]]
    assert shades(np.zeros((2, 2)), 1).max() < 10 and shades(np.ones((2, 2)), 1).max() > 200


def test_the_wheel_has_every_direction_and_nothing_outside():
    picture = wheel(65)
    assert picture[32, 64].tolist() == [255, 0, 0] and picture[32, 32].tolist() == [255, 255, 255]
    assert picture[0, 0].tolist() == [255, 255, 255]


def test_attention_covers_what_it_looks_at_and_greys_the_rest():
    attention = np.full((8, 8), 0.6)
    attention[:, 4:] = 0.9
    picture = overlay(attention, np.full((32, 32, 3), (200, 100, 50), np.uint8))
    assert np.ptp(picture[16, 2]) == 0  # grey
    red, green, blue = picture[16, -2].astype(int)
    assert red > green + 60 > blue + 90


def test_a_veil_is_transparent_at_the_lowest_value():
    picture = veil(np.array([[0.2, 0.3], [0.25, 0.3]]), (1, 2, 3))
    assert picture[..., 3].tolist() == [[0, 255], [128, 255]] and (picture[..., :3] == (1, 2, 3)).all()
    assert not veil(np.ones((2, 2)), (1, 2, 3))[..., 3].any()

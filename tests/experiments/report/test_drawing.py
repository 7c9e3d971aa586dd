import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.report.drawing import draw_attention, draw_flow, draw_strain, draw_veil, draw_wheel, full_colour, peak


@given(st.floats(0, 2 * np.pi), st.floats(0.01, 10))
def test_colour_is_the_direction_and_saturation_the_length(angle, length):
    flow = length * np.array([np.cos(angle), np.sin(angle)]).reshape(2, 1, 1)
    (((red, green, blue),),) = draw_flow(flow, 10).astype(int)
    assert max(red, green, blue) == 255
    assert 255 - min(red, green, blue) == pytest.approx(25.5 * length, abs=1)


def test_still_is_white_and_right_is_red():
    flow = np.array([[[0.0, 3, -3]], [[0.0, 0, 0]]])
    assert draw_flow(flow, 1)[0].tolist() == [[255, 255, 255], [255, 0, 0], [0, 255, 255]]
    assert draw_strain(np.zeros((2, 2)), 1).max() < 10 and draw_strain(np.ones((2, 2)), 1).max() > 200


def test_the_wheel_has_every_direction_and_nothing_outside():
    picture = draw_wheel(65)
    assert picture[32, 64].tolist() == [255, 0, 0] and picture[32, 32].tolist() == [255, 255, 255]
    assert picture[0, 0].tolist() == [255, 255, 255]


def test_attention_covers_what_it_looks_at_and_greys_the_rest():
    attention = np.full((8, 8), 0.6)
    attention[:, 4:] = 0.9
    picture = draw_attention(attention, np.full((32, 32, 3), (200, 100, 50), np.uint8), None, 32)
    assert np.ptp(picture[16, 2]) == 0  # grey
    red, green, blue = picture[16, -2].astype(int)
    assert red > green + 60 > blue + 90


def test_without_a_face_attention_lies_on_the_motion_or_on_white():
    attention, flow = np.zeros((8, 8)), np.zeros((3, 16, 16))
    attention[0, 0], flow[0, :, 8:] = 1, 2.0
    still, moving = draw_attention(attention, None, flow, 32)[24, [4, 28]]
    assert still.tolist() == [255] * 3 and moving.tolist() == [85] * 3
    assert draw_attention(attention, None, None, 32)[24, 28].tolist() == [255] * 3


def test_nine_of_ten_maps_stay_below_the_full_colour():
    assert full_colour([*range(1, 10), 1000.0]) == pytest.approx(110, rel=0.1)
    assert full_colour([0.0]) == 0.001 and full_colour([]) == 1
    assert peak(np.arange(101.0)) == 99


def test_a_veil_is_transparent_at_the_lowest_value():
    picture = draw_veil(np.array([[0.2, 0.3], [0.25, 0.3]]), (1, 2, 3))
    assert picture[..., 3].tolist() == [[0, 255], [128, 255]] and (picture[..., :3] == (1, 2, 3)).all()
    assert not draw_veil(np.ones((2, 2)), (1, 2, 3))[..., 3].any()

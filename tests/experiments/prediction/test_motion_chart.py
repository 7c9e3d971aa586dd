import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.prediction.motion_chart import HEIGHT, TOP, draw


def dots(chart):
    """Frames' places across in per cent, and the part of the height that they reach."""
    places = re.findall(r'<circle class="dot" cx="([\d.]+)%" cy="([\d.]+)"', chart)
    return np.array([(float(x), (TOP + HEIGHT - float(y)) / HEIGHT) for x, y in places])


def marks(chart):
    return {name: float(x) for name, x in re.findall(r'<line class="mark (\w+)" x1="([\d.]+)%"', chart)}


def test_the_curve_has_every_frame_at_its_place(brows):
    chart = draw(brows)
    across, high = dots(chart).T
    assert across == pytest.approx(np.linspace(0, 100, 13), abs=0.01)
    top = float(re.search(r">([\d.]+) px</text>", chart)[1])
    assert high * top == pytest.approx(brows.movement, abs=0.001 + top / HEIGHT / 5)
    assert marks(chart) == {"onset": 0, "apex": 50, "offset": 100}
    assert "frame 46, 0.230 s" in chart and ">0.250</text>" in chart


def test_without_a_rate_there_are_frames_alone(bare):
    chart = draw(bare)
    assert ">s</text>" not in chart and re.findall(r'y="196">(\w+)<', chart) == ["frame", "0", "1"]


def test_noise_stays_low(brows):
    assert dots(draw(replace(brows, movement=brows.movement * 0 + 0.03)))[:, 1].max() < 0.35


def test_many_frames_have_no_dots(brows):
    numbers = np.arange(1000)
    chart = draw(replace(brows, onset=0, offset=999, frame_numbers=numbers, movement=np.sin(numbers / 300) ** 2))
    assert not len(dots(chart)) and len(re.search(r'polyline class="curve" points="([^"]+)"', chart)[1].split()) == 1000


@given(st.integers(0, 10**6), st.integers(0, 5000), st.integers(0, 5000), st.floats(0, 1000), st.integers(0, 5))
def test_every_clip_has_a_chart_that_fits(onset, rise, fall, moved, frames):
    class Clip:
        apex, offset, frames_per_second = onset + rise, onset + rise + fall, 29.97
        frame_numbers = np.linspace(onset, onset + rise + fall, frames).astype(np.int64)
        movement = np.linspace(0, moved, frames)
        seconds = staticmethod(lambda frame: round(frame / 29.97, 6))

    Clip.onset = onset
    chart = draw(Clip)
    assert "nan" not in chart and "inf" not in chart
    places = [float(x) for x in re.findall(r'[x|cx|x1]="(-?[\d.]+)%"', chart)]
    assert min(places) >= 0 and max(places) <= 100
    assert 1 <= len(re.findall(r'%" y="196">', chart)) <= 6 and 2 <= chart.count('class="grid"') <= 4
    assert all(0 <= high <= 1 for _, high in dots(chart))

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from mer.flow import METHODS, SMALLEST, flow_map, optical_flow, strain
from mer.preprocessing.opencv import cv2

SIDE = 128
Y, X = np.mgrid[:SIDE, :SIDE].astype(np.float32)
INSIDE = (slice(None), slice(12, -12), slice(12, -12))
# Mean endpoint error in px of smooth motion on a face, about twice what was measured.
TOLERANCE = {"tvl1": 0.06, "farneback": 0.25, "dis": 0.15}


@pytest.fixture(scope="module")
def face():
    portrait = cv2.cvtColor(data.astronaut()[:256, 150:406], cv2.COLOR_RGB2GRAY)
    return cv2.resize(portrait, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def moved_by(flow, frame):
    """The earlier frame of a pair whose later one is ``frame`` and whose motion is ``flow``."""
    return cv2.remap(frame, X + flow[0], Y + flow[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


def error(estimate, truth):
    return np.hypot(*(estimate - truth)[INSIDE]).mean()


@pytest.mark.parametrize("method", METHODS)
def test_a_translation_is_found(face, method):
    truth = np.stack([np.full_like(X, 1.3), np.full_like(X, -0.7)])
    flow = optical_flow(moved_by(truth, face), face, method)
    assert flow.shape == (2, SIDE, SIDE) and flow.dtype == np.float32 and flow.flags.c_contiguous
    assert error(flow, truth) < TOLERANCE[method]


@pytest.mark.parametrize("method", METHODS)
def test_an_affine_field_and_its_strain_are_found(face, method):
    x, y = (X - SIDE / 2) / SIDE, (Y - SIDE / 2) / SIDE
    truth = np.stack([2 * x + y, -1.5 * y + 0.5 * x])
    estimate = flow_map(moved_by(truth, face), face, method)
    assert error(estimate[:2], truth) < TOLERANCE[method]
    expected = np.sqrt(2**2 + 1.5**2 + (1 + 0.5) ** 2 / 2) / SIDE
    assert np.median(estimate[2]) == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize("method", METHODS)
def test_no_motion_is_no_flow(face, method):
    # In a flat background at the border, Farneback solves for a motion that nothing determines.
    still = np.abs(flow_map(face, face, method))
    assert still[INSIDE].max() < 3e-3 and still.mean() < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_a_flip_negates_u(face, method):
    bump = np.exp(-((X - 80) ** 2 + (Y - 50) ** 2) / 200)
    first = moved_by(np.stack([1.5 * bump, 0.8 * bump]), face)
    flow, flipped = flow_map(first, face, method), flow_map(first[:, ::-1], face[:, ::-1], method)
    expected = flow[:, :, ::-1] * np.array([-1, 1, 1], np.float32)[:, None, None]
    difference = np.abs(flipped - expected)[INSIDE].mean()
    assert difference < 0.2 * np.abs(flow)[INSIDE].mean()


@pytest.mark.parametrize("method", METHODS)
def test_the_number_of_threads_changes_nothing(face, method):
    before = cv2.getNumThreads()
    flows = []
    try:
        for threads in (1, 2, 5):
            cv2.setNumThreads(threads)
            flows.append(optical_flow(np.roll(face, 1, axis=0), face, method))
    finally:
        cv2.setNumThreads(before)
    assert all(np.array_equal(flow, flows[0]) for flow in flows)


@pytest.mark.parametrize("method", METHODS)
def test_colour_frames_count_by_their_luminance(method):
    first = data.astronaut()[:SIDE, 200 : 200 + SIDE]
    second = np.roll(first, 1, axis=1)
    in_grey = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in (first, second)]
    assert np.array_equal(optical_flow(first, second, method), optical_flow(*in_grey, method))


@pytest.mark.parametrize("method", METHODS)
def test_the_smallest_frame_has_a_flow(face, method):
    crop = face[:SMALLEST, :SMALLEST]
    assert np.isfinite(flow_map(crop, crop[::-1], method)).all()


def test_strain_of_affine_fields():
    cases = {
        (0, 0, 0, 0): 0,  # translation
        (0, -0.1, 0.1, 0): 0,  # rotation
        (0.1, 0, 0, 0): 0.1,  # u_x
        (0, 0, 0, 0.1): 0.1,  # v_y
        (0, 0.1, 0.1, 0): np.sqrt(0.2**2 / 2),  # pure shear
        (0.3, 0.2, -0.1, -0.4): np.sqrt(0.09 + 0.16 + 0.01 / 2),
    }
    for (u_x, u_y, v_x, v_y), expected in cases.items():
        field = np.stack([u_x * X + u_y * Y + 3, v_x * X + v_y * Y - 2])
        assert strain(field.astype(np.float32)) == pytest.approx(expected, abs=1e-4)
    assert strain(np.zeros((2, 8, 9), np.float32)).shape == (8, 9)
    assert flow_map(*[np.zeros((20, 30), np.uint8)] * 2).dtype == np.float32


@pytest.mark.parametrize(
    ("first", "second", "method", "message"),
    [
        (np.zeros((32, 32), np.uint8), np.zeros((32, 33), np.uint8), "tvl1", r"\(32, 32\) and \(32, 33\)"),
        (np.zeros((32, 32), np.float32), np.zeros((32, 32), np.float32), "tvl1", "float32"),
        (np.zeros((32, 32, 4), np.uint8), np.zeros((32, 32, 4), np.uint8), "tvl1", r"\(32, 32, 4\)"),
        (np.zeros((32, 8), np.uint8), np.zeros((32, 8), np.uint8), "dis", "8 x 32 px"),
        (np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8), "raft", "'raft'.*tvl1, farneback, dis"),
    ],
)
def test_what_is_no_pair_of_frames_is_refused(first, second, method, message):
    with pytest.raises(ValueError, match=message):
        optical_flow(first, second, method)


def test_flow_starts_without_torch():
    run = "import sys, mer.flow; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", run], check=True, env={"PYTHONPATH": "src"}, cwd=Path(__file__).parents[3])


def test_a_missing_system_library_is_named_with_its_package(tmp_path):
    reason = "libGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "cv2.py").write_text(f"raise ImportError({reason!r})")
    run = "import mer\ntry: import mer.flow\nexcept mer.InputError as error: print(error)"
    path = f"{tmp_path}:{Path(__file__).parents[3] / 'src'}"
    said = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, env={"PYTHONPATH": path})
    assert said.stdout.count("\n") == 1 and not said.stderr
    for word in ("libGL.so.1", "apt-get install libgl1 libglib2.0-0", "mesa-libGL", "libgl "):
        assert word in said.stdout

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.data import astronaut

from mer import InputError
from mer.preprocessing.faces import EYE_DISTANCE, EYE_HEIGHT, FaceFinder, alignment, centre_square, crop, eyes

BROWS_AND_CHIN = [105, 334, 107, 336, 152]


def similarity(scale: float, angle: float, right: float, down: float) -> np.ndarray:
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, right], [sine, cosine, down]])


def apply(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ transform[:, :2].T + transform[:, 2]


@pytest.fixture(scope="module")
def finder():
    with FaceFinder() as finder:
        yield finder


@pytest.fixture(scope="module")
def landmarks(finder):
    return finder.landmarks(astronaut())


def test_landmarks_lie_on_the_face(landmarks):
    assert landmarks.shape == (478, 2)
    assert landmarks.dtype == np.float32
    left, right = eyes(landmarks)
    np.testing.assert_allclose(left, (203, 101), atol=3)
    np.testing.assert_allclose(right, (246, 103), atol=3)


def test_a_grey_image_gives_nearly_the_same_landmarks(finder, landmarks):
    grey = finder.landmarks(cv2.cvtColor(astronaut(), cv2.COLOR_RGB2GRAY))
    assert np.abs(grey - landmarks).mean() < 1


def test_what_was_seen_before_changes_nothing(finder, landmarks):
    finder.landmarks(np.ascontiguousarray(astronaut()[:, ::-1]))
    np.testing.assert_array_equal(finder.landmarks(astronaut()), landmarks)


@pytest.mark.parametrize("window", [(60, 190, 165, 285), (0, 512, 0, 512)], ids=["tight", "small in a large image"])
def test_faces_at_other_scales_are_found(finder, landmarks, window):
    top, bottom, left, right = window
    image = astronaut()[top:bottom, left:right]
    if window[0] == 0:
        image = cv2.copyMakeBorder(image, 300, 300, 400, 400, cv2.BORDER_CONSTANT, value=(90, 90, 90))
        left, top = -400, -300
    located = finder.landmarks(image)
    assert np.abs(located + np.array((left, top)) - landmarks).mean() < 1.5


def test_no_face_is_none(finder, capfd):
    assert finder.landmarks(np.full((240, 320, 3), 128, np.uint8)) is None
    assert finder.landmarks(np.zeros((8, 8), np.uint8)) is None
    assert capfd.readouterr().err == ""


def test_a_finder_is_quiet(capfd):
    with FaceFinder() as finder:
        finder.landmarks(astronaut())
    assert capfd.readouterr().err == ""


def test_wrong_images_and_closed_finders(finder):
    with pytest.raises(ValueError, match="float64"):
        finder.landmarks(np.zeros((8, 8, 3)))
    with pytest.raises(RuntimeError, match="with statement"):
        FaceFinder().landmarks(astronaut())


@pytest.mark.parametrize("size", [64, 128, 224])
def test_eyes_are_level_and_at_a_fixed_distance(landmarks, size):
    transform = alignment(landmarks, size)
    left, right = (apply(transform, eye) for eye in eyes(landmarks))
    np.testing.assert_allclose(right - left, (EYE_DISTANCE * size, 0), atol=1e-9)
    np.testing.assert_allclose((left + right) / 2, (size / 2 - 0.5, EYE_HEIGHT * size - 0.5), atol=1e-9)
    face = apply(transform, landmarks[BROWS_AND_CHIN])
    assert (face > 0.02 * size).all() and (face < 0.98 * size).all()


@given(st.floats(0.1, 10), st.floats(-3.1, 3.1), st.floats(-500, 500), st.floats(-500, 500))
def test_a_moved_face_is_aligned_to_the_same_place(scale, angle, right, down):
    points = np.random.default_rng(0).uniform(0, 300, (478, 2))
    moved = apply(similarity(scale, angle, right, down), points)
    np.testing.assert_allclose(apply(alignment(moved), moved), apply(alignment(points), points), atol=1e-4)


def test_a_moved_image_gives_the_same_crop(finder, landmarks):
    image, motion = astronaut(), similarity(1.3, 0.15, -60, -40)
    moved = cv2.warpAffine(image, motion, (640, 560), flags=cv2.INTER_CUBIC)
    transform = alignment(landmarks)
    other = alignment(finder.landmarks(moved))
    corners = np.array([[0.0, 0], [0, 127], [127, 0], [127, 127]])
    back = np.linalg.inv(np.vstack([transform, (0, 0, 1)]))[:2]
    assert np.abs(apply(other, apply(motion, apply(back, corners))) - corners).max() < 2.5
    difference = crop(image, transform).astype(float) - crop(moved, other)
    assert np.abs(difference[10:118, 20:108]).mean() < 6


def test_degenerate_landmarks():
    with pytest.raises(InputError, match="eyes"):
        alignment(np.zeros((478, 2)))
    with pytest.raises(InputError):
        alignment(np.full((478, 2), np.nan))
    with pytest.raises(ValueError, match="478"):
        alignment(np.zeros((68, 2)))


@pytest.mark.parametrize("scale", [0.2, 0.5, 0.73, 1.0, 2.0])
def test_crop_puts_pixels_where_the_transform_says(scale):
    y, x = np.mgrid[:600, :600]
    transform = similarity(scale, 0.05, 0, 0)
    transform[:, 2] = 31.5 - transform[:, :2] @ (300, 290)
    wave = (100 + 0.2 * x + 0.1 * y).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(np.arange(64), np.arange(64)), -1).reshape(-1, 2)
    place = apply(np.linalg.inv(np.vstack([transform, (0, 0, 1)]))[:2], grid)
    inside = ((place > 8) & (place < 591)).all(1)
    expected = 100 + 0.2 * place[:, 0] + 0.1 * place[:, 1]
    error = crop(wave, transform, 64).reshape(-1) - expected
    assert np.abs(error[inside]).max() < 1.5
    assert abs(error[inside].mean()) < 0.1


def test_crop_does_not_alias():
    stripes = np.tile(np.array([[0, 255], [255, 0]], np.uint8), (256, 256))
    small = crop(np.dstack([stripes] * 3), similarity(0.25, 0, 0, 0), 128)
    assert small.shape == (128, 128, 3) and small.dtype == np.uint8
    assert np.ptp(small[4:-4, 4:-4].astype(int)) <= 4


def test_crops_to_compare_are_equally_sharp():
    draws = np.random.default_rng(0).integers(0, 255, (300, 300)).astype(np.uint8)
    half, less = similarity(0.5, 0, 0, 0), similarity(0.499, 0, 0, 0)
    sharpness = [crop(draws, *placing, like=like).std() for *placing, like in ((half, 128, None), (less, 128, half))]
    assert abs(sharpness[0] / sharpness[1] - 1) < 0.02
    np.testing.assert_array_equal(crop(draws, half, 128, like=half), crop(draws, half, 128))


@pytest.mark.parametrize("width, height", [(280, 340), (340, 280), (128, 128)])
def test_a_registered_face_is_cut_to_its_middle_square(width, height):
    transform = centre_square(width, height, 96)
    side = min(width, height)
    np.testing.assert_allclose(apply(transform, np.array([(width - 1) / 2, (height - 1) / 2])), (47.5, 47.5))
    corner = np.array([(width - side) / 2 - 0.5, (height - side) / 2 - 0.5])
    np.testing.assert_allclose(apply(transform, corner), (-0.5, -0.5), atol=1e-9)
    assert crop(np.zeros((height, width), np.uint8), transform, 96).shape == (96, 96)

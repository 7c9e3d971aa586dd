import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mer.flow import optical_flow
from mer.preprocessing.faces import alignment, crop
from mer.preprocessing.head_motion import align_to_onset, compose, displacement, fit, inverse, still_parts

FACE = np.hypot(*(np.mgrid[-1:1:128j, -1:1:128j])) < 0.8


def similarity(scale, angle, right, down):
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, right], [sine, cosine, down]])


def residual(studio, apex, transform, method="tvl1"):
    """Mean magnitude of the flow that is left, in px of the crop."""
    crops = crop(studio.onset, studio.transform), crop(apex, transform, like=studio.transform)
    return np.hypot(*optical_flow(*crops, method)).mean()


@settings(max_examples=25, deadline=None)
@given(st.floats(0.97, 1.03), st.floats(-0.1, 0.1), st.floats(-5, 5), st.floats(-5, 5), st.integers(0, 9))
def test_fit_finds_the_motion_that_most_pixels_share(scale, angle, right, down, seed):
    motion, draws = similarity(scale, angle, right, down), np.random.default_rng(seed)
    flow = displacement(motion, 64) + draws.normal(0, 0.02, (2, 64, 64))
    flow[:, 40:60, 10:45] += draws.uniform(1, 2, (2, 1, 1))  # an expression, a sixth of the pixels
    transform = fit(flow, np.ones((64, 64)))
    assert np.hypot(*(displacement(transform, 64) - displacement(motion, 64))).max() < 0.02


def test_pixels_without_weight_have_no_say():
    flow, weight = np.full((2, 64, 64), 9.0), np.zeros((64, 64))
    flow[:, 10:50, 10:30], weight[10:50, 10:30] = 0.5, 1
    np.testing.assert_allclose(fit(flow, weight), [[1, 0, 0.5], [0, 1, 0.5]], atol=1e-9)


@pytest.mark.parametrize("flow, weight", [(1.0, 0.0), (np.nan, 1.0), (np.inf, 1.0)])
def test_nothing_to_fit_is_no_motion(flow, weight):
    np.testing.assert_array_equal(fit(np.full((2, 32, 32), flow), np.full((32, 32), weight)), np.eye(2, 3))


def test_transforms_compose_and_invert():
    first, second = similarity(1.2, 0.3, 4, -2), similarity(0.9, -0.1, 1, 7)
    point = np.array([3.0, 5, 1])
    np.testing.assert_allclose(compose(second, first) @ point, second @ (*(first @ point), 1))
    np.testing.assert_allclose(compose(inverse(first), first), np.eye(2, 3), atol=1e-12)


@pytest.mark.parametrize("size", [64, 128, 224])
def test_still_parts_leave_out_what_expressions_move(studio, size):
    weight, transform = still_parts(size), alignment(studio.landmarks, size)
    places = {name: transform @ (*studio.landmarks[i], 1) for name, i in (("bridge", 6), ("brow", 105), ("lip", 61))}
    weights = {name: weight[int(y), int(x)] for name, (x, y) in places.items()}
    assert weights == {"bridge": 1, "brow": 0, "lip": 0}
    assert 0.2 < weight.mean() < 0.6
    np.testing.assert_array_equal(weight, weight[:, ::-1])


@pytest.mark.parametrize(
    "motion",
    [(1, 0, 3, -2), (1, 0, -20, 12), (1, 5, 0, 0), (1, -5, 0, 0), (1.02, 0, 0, 0), (0.98, 0, 0, 0), (1.02, -5, 8, 6)],
    ids=str,
)
def test_a_rigid_motion_is_removed(studio, motion):
    apex = studio.shoot(studio.similarity(*motion))
    guess = alignment(studio.finder.landmarks(apex))
    before = residual(studio, apex, studio.transform)
    for guesses in ([], [guess]):
        after = residual(studio, apex, align_to_onset(studio.onset, apex, studio.transform, guesses=guesses))
        assert after < 0.1 and after < before / 5
    assert residual(studio, apex, guess) > after * 2  # what landmarks alone leave


def test_landmarks_bridge_what_flow_cannot(studio):
    apex = studio.shoot(studio.similarity(1, 12, 110, 30))
    guess = alignment(studio.finder.landmarks(apex))
    assert residual(studio, apex, align_to_onset(studio.onset, apex, studio.transform, guesses=[guess])) < 0.1


def test_a_wall_that_stands_still_does_not_hold_the_head(studio):
    moved, still = studio.shoot(studio.similarity(1, 0, 6, 3)), studio.shoot()
    y, x = np.mgrid[: still.shape[0], : still.shape[1]]
    middle = inverse(studio.transform) @ (63.5, 55, 1)
    reach = 60 / np.hypot(*studio.transform[0, :2])
    inside = np.hypot((x - middle[0]) * 1.25, y - middle[1]) < reach  # the face, less so the hair
    apex = np.where(inside, moved, still).astype(np.uint8)
    motion = compose(studio.transform, inverse(align_to_onset(studio.onset, apex, studio.transform)))
    expected = compose(compose(studio.transform, studio.similarity(1, 0, 6, 3)), inverse(studio.transform))
    assert np.hypot(*(displacement(motion, 128) - displacement(expected, 128)))[FACE].mean() < 0.2  # of 3.5


@pytest.mark.parametrize("units", [(12,), (1, 2), (4, 9)], ids=str)
def test_the_expression_stays(studio, units):
    expression = studio.expression(*units)
    apex = studio.shoot(studio.similarity(1.004, 0.6, 1.0, -0.8), expression)
    maps = [channel.astype(np.float32) for channel in expression]
    scale = np.hypot(*studio.transform[0, :2])
    truth = np.stack([cv2.warpAffine(component, studio.transform, (128, 128)) for component in maps]) * scale
    errors = []
    for transform in (studio.transform, align_to_onset(studio.onset, apex, studio.transform)):
        crops = crop(studio.onset, studio.transform), crop(apex, transform, like=studio.transform)
        flow = optical_flow(*crops, "tvl1")
        errors.append(np.hypot(*(flow - truth))[FACE].mean())
    assert errors[1] < 0.12 and errors[1] < errors[0] / 3
    strength = (flow * truth).sum() / (truth**2).sum()
    assert 0.6 < strength < 1.1


def test_faces_without_likeness_keep_their_alignment(studio):
    noise = np.random.default_rng(0).integers(0, 255, studio.onset.shape).astype(np.uint8)
    transform = align_to_onset(studio.onset, noise, studio.transform)
    assert np.isfinite(transform).all() and transform.shape == (2, 3)
    flat = np.full_like(studio.onset, 90)
    assert np.isfinite(align_to_onset(flat, flat, studio.transform)).all()

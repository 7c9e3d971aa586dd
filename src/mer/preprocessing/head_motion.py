"""Removes the rigid motion of the head between two frames and leaves the expression.

A micro-expression moves the skin by about a pixel; a head that tries to keep still moves by some tenths of a pixel,
one that does not by far more. The head's motion in a short clip of a frontal face is close to a similarity transform.
It is fitted to the flow in those parts of the face that expressions move least. Landmarks are too noisy for this (they
leave 0.6 px of a crop of 128), but are a good start when the head has moved far.

    transform = align_to_onset(onset, apex, alignment(landmarks), size)
    flow = optical_flow(crop(onset, alignment(landmarks), size), crop(apex, transform, size))
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mer.flow import optical_flow
from mer.preprocessing.faces import crop

ROUNDS = 4
"""Most times that a similarity is fitted to the flow and the later frame is cropped again."""

CONVERGED = 0.01
"""Pixels of the crop; the rounds end when the fit moves no corner of the crop further than this."""


def align_to_onset(
    onset: NDArray[np.uint8],
    apex: NDArray[np.uint8],
    alignment: NDArray[np.float64],
    size: int = 128,
    *,
    guesses: Sequence[NDArray[np.float64]] = (),
) -> NDArray[np.float64]:
    """Finds the alignment of a later frame that removes the head's motion between the two crops.

    Each round crops the later frame, computes the flow between the crops and fits a similarity to it.

    Args:
        onset: Earlier frame, uint8 grey, shape (H, W).
        apex: Later frame, of the same shape.
        alignment: Shape (2, 3), from pixels of the earlier frame to those of its crop.
        size: Side of the crop in pixels.
        guesses: Other alignments of the later frame to start from, like the one from its own landmarks. The rounds
            start from the one whose crop is most like the onset's; ``alignment`` itself is always tried.

    Returns:
        Shape (2, 3), from pixels of the later frame to those of the crop. If the fit makes the still parts of the two
        crops less alike, the alignment from which the rounds started.
    """
    weight = still_parts(size)
    first = crop(onset, alignment, size)

    def crop_apex(transform: NDArray[np.float64]) -> NDArray[np.uint8]:
        return crop(apex, transform, size, like=alignment)

    start = min((alignment, *guesses), key=lambda guess: _difference(first, crop_apex(guess), weight))
    transform, second = start, crop_apex(start)
    difference_at_start = _difference(first, second, weight)
    for _ in range(ROUNDS):
        motion = fit(optical_flow(first, second, "farneback"), weight)
        # A point at q in the onset's crop is at motion(q) in the apex's, so that crop is made again by the inverse.
        transform = compose(inverse(motion), transform)
        second = crop_apex(transform)
        if max_corner_shift(motion, size) < CONVERGED:
            break
    # A fit to wrong flow makes the crops clearly less alike; a fit to good flow may do so by a rounding error.
    return transform if _difference(first, second, weight) < 1.1 * difference_at_start else start


def fit(flow: NDArray[np.floating], weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """Robust fit of a similarity transform to a flow field.

    Iteratively reweighted least squares with weights (1 + (r / s)^2)^-2, where r is the distance of a pixel's flow from
    the fit (Geman and McClure, Bulletin of the ISI 1987). The scale s is the median of r, at least 0.03 px: a part that
    moves by itself ends up with almost no weight. Unlike RANSAC it draws no random numbers and is more precise: a
    similarity through two pixels is no better than the flow at these two.

    Args:
        flow: u and v in pixels, shape (2, H, W).
        weight: Prior weight of each pixel, 0 or more, shape (H, W).

    Returns:
        Shape (2, 3); a point at (x, y) moves to ``motion @ (x, y, 1)``. No motion if there is nothing to fit.
    """
    height, width = weight.shape
    # Neighbouring pixels have nearly the same flow: about 64 by 64 of them are enough.
    step = max(1, min(height, width) // 64)
    rows, columns = (place * step for place in np.nonzero(weight[::step, ::step]))
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    prior = weight[rows, columns].astype(np.float64)
    x, y = columns - middle[0], rows - middle[1]
    u, v = flow[:, rows, columns].astype(np.float64)
    motion = np.zeros(4)  # right, down, growth, turn
    if len(x) < 2 or not np.isfinite(u).all() or not np.isfinite(v).all():
        return np.eye(2, 3)
    trust = prior
    for _ in range(20):
        before = motion
        motion = _least_squares(x, y, u, v, trust)
        right, down, growth, turn = motion
        apart = np.hypot(u - right - growth * x + turn * y, v - down - growth * y - turn * x)
        scale = max(0.03, float(np.median(apart)))
        trust = prior / (1 + (apart / scale) ** 2) ** 2
        if np.abs((motion - before) * (1, 1, width / 2, width / 2)).max() < 1e-4:
            break
    right, down, growth, turn = motion
    linear = np.array([[1 + growth, -turn], [turn, 1 + growth]])
    return np.column_stack([linear, middle + (right, down) - linear @ middle])


def displacement(motion: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Displacement of each pixel of a square by a motion (2, 3): u and v in pixels, shape (2, size, size)."""
    y, x = np.mgrid[:size, :size].astype(np.float64)
    return np.stack(
        [
            (motion[0, 0] - 1) * x + motion[0, 1] * y + motion[0, 2],
            motion[1, 0] * x + (motion[1, 1] - 1) * y + motion[1, 2],
        ]
    )


@lru_cache(maxsize=4)
def still_parts(size: int) -> NDArray[np.float32]:
    """Weight of each pixel of an aligned crop: 1 where expressions move the skin least, 0 where they move it most.

    0 outside the face, which may stand still while the head moves; 0 at brows, eyes and what is just below them except
    the bridge of the nose; 0 at mouth and chin.

    Returns:
        float32, shape (size, size); do not write to it.
    """
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    side = np.abs(x - 0.5)

    def box(inner: float, outer: float, top: float, bottom: float) -> NDArray[np.bool_]:
        return (side >= inner) & (side < outer) & (y >= top) & (y < bottom)

    face = (side / 0.46) ** 2 + ((y - 0.45) / 0.62) ** 2 < 1
    bridge = box(0, 0.06, 0.26, 0.47)
    moving = (box(0, 0.31, 0.12, 0.40) & ~bridge) | box(0, 0.27, 0.55, 0.95)
    weight = (face & ~moving).astype(np.float32)
    weight.setflags(write=False)
    return weight


def compose(after: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    """The transform, shape (2, 3), that does ``before`` and then ``after``."""
    return np.column_stack([after[:, :2] @ before[:, :2], after[:, :2] @ before[:, 2] + after[:, 2]])


def inverse(transform: NDArray[np.float64]) -> NDArray[np.float64]:
    """The transform, shape (2, 3), that undoes ``transform``."""
    back = np.asarray(np.linalg.inv(transform[:, :2]), np.float64)
    return np.column_stack([back, -back @ transform[:, 2]])


def _least_squares(x: NDArray, y: NDArray, u: NDArray, v: NDArray, weight: NDArray) -> NDArray[np.float64]:
    """Right, down, growth and turn of the similarity nearest to the flow, by the normal equations."""
    total = weight.sum()
    if not total > 0:
        return np.zeros(4)
    # Sums, not products of vectors, whose last digit depends on the number of threads.
    centre_x, centre_y, mean_u, mean_v = ((weight * values).sum() / total for values in (x, y, u, v))
    x, y = x - centre_x, y - centre_y
    spread = max(float((weight * (x * x + y * y)).sum()), 1e-9)
    growth, turn = (weight * (x * u + y * v)).sum() / spread, (weight * (x * v - y * u)).sum() / spread
    right, down = mean_u - growth * centre_x + turn * centre_y, mean_v - growth * centre_y - turn * centre_x
    return np.array([right, down, growth, turn])


def _difference(first: NDArray[np.uint8], second: NDArray[np.uint8], weight: NDArray[np.float32]) -> float:
    """Mean absolute difference in grey levels where ``weight`` is above 0, without a common change of brightness."""
    apart = second[weight > 0].astype(np.float32) - first[weight > 0]
    return float(np.abs(apart - np.median(apart)).mean())


def max_corner_shift(motion: NDArray[np.float64], size: int) -> float:
    """Largest displacement of the corners of a square by a motion (2, 3), in pixels."""
    corners = np.array([(0, 0, 1), (size, 0, 1), (0, size, 1), (size, size, 1)]).T
    return float(np.hypot(*(motion @ corners - corners[:2])).max())

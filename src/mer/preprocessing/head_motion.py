"""The rigid motion of the head between two frames, told apart from the expression, and taken out.

A micro-expression moves the skin by about a pixel, a head that tries to keep still by some tenths, and one that does
not by far more. What the head does to a frontal face in a short clip is close to a similarity: the one that the flow
follows in those parts of the face that expressions move least. Landmarks are too noisy for it (they leave 0.6 px of a
crop of 128), but they tell where to begin when the head has moved far.

    transform = follow(onset, apex, alignment(landmarks), size)
    flow = optical_flow(crop(onset, alignment(landmarks), size), crop(apex, transform, size))
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mer.flow import optical_flow
from mer.preprocessing.faces import crop

ROUNDS = 4
"""Most times that flow is fitted and the later frame is drawn again."""

SETTLED = 0.01
"""Pixels of the crop; the rounds end where the fit moves no corner of the crop further than this."""


def follow(
    onset: NDArray[np.uint8],
    apex: NDArray[np.uint8],
    alignment: NDArray[np.float64],
    size: int = 128,
    *,
    guesses: Sequence[NDArray[np.float64]] = (),
) -> NDArray[np.float64]:
    """Finds the alignment of a later frame that leaves nothing of the head's motion in the crops.

    Each round draws the crop of the later frame from the raw frame, computes flow and fits a similarity to it.

    Args:
        onset: Earlier frame, uint8 grey, shape (H, W).
        apex: Later frame, of the same shape.
        alignment: Shape (2, 3), from pixels of the earlier frame to those of its crop.
        size: Side of the crop in pixels.
        guesses: Other alignments of the later frame to begin with, like one from its own landmarks. The one that makes
            the crops most alike is taken; ``alignment`` itself is always tried.

    Returns:
        Shape (2, 3), from pixels of the later frame to those of the crop. Where no fit makes the still parts of the
        two crops more alike, ``alignment`` itself.
    """
    weight = still_parts(size)
    first = crop(onset, alignment, size)

    def drawn(transform: NDArray[np.float64]) -> tuple[float, NDArray[np.uint8]]:
        second = crop(apex, transform, size, like=alignment)
        return _difference(first, second, weight), second

    (start, second), chosen = min(((drawn(guess), guess) for guess in (alignment, *guesses)), key=lambda one: one[0][0])
    transform = chosen
    for _ in range(ROUNDS):
        motion = fit(optical_flow(first, second, "farneback"), weight)
        # What lies at q in the onset's crop lies at motion(q) in the apex's: drawn again through the inverse.
        transform = compose(inverse(motion), transform)
        difference, second = drawn(transform)
        if reach(motion, size) < SETTLED:
            break
    # A fit to flow that has lost its way makes the crops less alike; one to good flow may do so by a hair.
    return transform if difference < 1.1 * start else chosen


def fit(flow: NDArray[np.floating], weight: NDArray[np.floating]) -> NDArray[np.float64]:
    """The similarity that most of the flow agrees on.

    Least squares, weighted anew until nothing changes by (1 + (r / s)^2)^-2 with r the distance of a pixel's flow from
    the fit (Geman and McClure, Bulletin of the ISI 1987). The scale s falls with the median of r, but not below 0.03
    px: a part that moves by itself ends up with no say. Unlike RANSAC it draws no random numbers and is finer: a
    similarity through two pixels is no better than the flow at these two.

    Args:
        flow: u and v in pixels, shape (2, H, W).
        weight: How far each pixel is believed beforehand, 0 or more, shape (H, W).

    Returns:
        Shape (2, 3); what lies at (x, y) moves to ``motion @ (x, y, 1)``. No motion if there is nothing to fit.
    """
    height, width = weight.shape
    # Neighbours tell the same: some 64 by 64 pixels are enough.
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
    """How far a motion takes each pixel of a square: shape (2, size, size), u and v in pixels."""
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

    Whatever lies outside the face may stand still while the head moves: 0. Of the face, the brows with the eyes and
    what is below them count nothing but for the bridge of the nose, and neither do the mouth and the chin.

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
    """Right, down, growth and turn of the similarity nearest to the flow, by its normal equations."""
    total = weight.sum()
    if not total > 0:
        return np.zeros(4)
    # Sums rather than products of vectors, whose last digit hangs on the number of threads.
    centre_x, centre_y, mean_u, mean_v = ((weight * one).sum() / total for one in (x, y, u, v))
    x, y = x - centre_x, y - centre_y
    spread = max(float((weight * (x * x + y * y)).sum()), 1e-9)
    growth, turn = (weight * (x * u + y * v)).sum() / spread, (weight * (x * v - y * u)).sum() / spread
    right, down = mean_u - growth * centre_x + turn * centre_y, mean_v - growth * centre_y - turn * centre_x
    return np.array([right, down, growth, turn])


def _difference(first: NDArray[np.uint8], second: NDArray[np.uint8], weight: NDArray[np.float32]) -> float:
    """Mean absolute difference in grey levels, apart from a change of the light."""
    apart = second[weight > 0].astype(np.float32) - first[weight > 0]
    return float(np.abs(apart - np.median(apart)).mean())


def reach(motion: NDArray[np.float64], size: int) -> float:
    """How far a motion takes that corner of a square which it takes furthest, in pixels."""
    corners = np.array([(0, 0, 1), (size, 0, 1), (0, size, 1), (size, size, 1)]).T
    return float(np.hypot(*(motion @ corners - corners[:2])).max())

"""How far the parts of one face have moved in each frame of a video, without the motion of the head."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mer.flow import grey, optical_flow
from mer.preprocessing.faces import FaceFinder, alignment, crop
from mer.preprocessing.head_motion import ROUNDS, compose, displacement, fit, inverse, max_corner_shift, still_parts

SIZE = 128
"""Side in pixels of the crops in which motion is measured."""

REFRESH = 2.0
"""Seconds after which the reference frame is taken anew, because a face that has turned looks different."""

RETRY = 0.1
"""Seconds from one search to the next while there is no face."""

ALIKE = 0.6
"""Correlation of the still parts with those of the reference frame below which the face is taken to be lost."""


class Part(NamedTuple):
    """A part of the face: two of them, left and right, if it is off the midline.

    Attributes:
        inner: Least distance from the midline; all four are fractions of the crop's side.
        outer: Largest distance from the midline.
        top: Upper end.
        bottom: Lower end.
        lids: Share of the motion of the lids on the same side that shows in this part: flow has a window of 15 px, and
            a blink pulls at the brow. Synthetic blinks gave at most 0.24 at the brows and 0.06 below the eyes.
    """

    inner: float
    outer: float
    top: float
    bottom: float
    lids: float = 0.0


EYES = (Part(0.09, 0.28, 0.27, 0.35),)
STILL = (Part(0.0, 0.06, 0.30, 0.45), Part(0.31, 0.42, 0.30, 0.55))  # bridge of the nose, edges of the face
EXPRESSIVE = (
    Part(0.03, 0.17, 0.13, 0.25, 0.3),  # inner brows
    Part(0.17, 0.32, 0.11, 0.25, 0.3),  # outer brows
    Part(0.05, 0.16, 0.45, 0.58, 0.1),  # wings of the nose
    Part(0.16, 0.30, 0.42, 0.58, 0.1),  # cheeks
    Part(0.09, 0.26, 0.60, 0.78),  # corners of the mouth
    Part(0.0, 0.10, 0.58, 0.66),  # upper lip
    Part(0.0, 0.10, 0.68, 0.80),  # lower lip
    Part(0.0, 0.16, 0.82, 0.96),  # chin
)


def sides(parts: Sequence[Part]) -> list[tuple[Part, int]]:
    """Each part on the left of the image (-1) and on the right (1); a part on the midline once (0)."""
    return [(part, side) for part in parts for side in ((-1, 1) if part.inner else (0,))]


@lru_cache(maxsize=1)
def weights() -> NDArray[np.float64]:
    """Weight of each pixel of the crop in each of the P parts, shape (P, SIZE * SIZE); each row sums to 1.

    The order is that of ``sides((*EYES, *STILL, *EXPRESSIVE))``.
    """
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    rows = []
    for part, side in sides((*EYES, *STILL, *EXPRESSIVE)):
        away = (x - 0.5) * side if side else np.abs(x - 0.5)
        inside = (away >= part.inner) & (away < part.outer) & (y >= part.top) & (y < part.bottom)
        rows.append(inside.ravel() / inside.sum())
    return np.stack(rows)


class FaceFollower:
    """Follows one face through a video and measures how far its parts have moved.

    Flow (Farnebäck's) is taken from a reference frame to each frame, so that a slow motion does not add up errors. The
    motion of the head between the two is a similarity fitted to the still parts, as in
    ``mer.preprocessing.head_motion``. A new reference frame starts at the displacement that the old one ended with.

    Args:
        finder: An open one.
        frames_per_second: Of the frames that it is given.

    Attributes:
        found: Whether it has seen a face.
    """

    def __init__(self, finder: FaceFinder, frames_per_second: float) -> None:
        self.finder, self.frames_per_second = finder, frames_per_second
        self.found = False
        self.moved = self.start = np.zeros((len(weights()), 2))  # now, and when the reference frame was taken
        self.age = self.wait = 0  # frames since the reference; frames until the next search

    def follow(self, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Takes the next frame, RGB (H, W, 3) or grey (H, W).

        Returns:
            Displacement of each part since the first frame without the head's, in pixels of the crop to the right and
            down, shape (P, 2). While no face is seen and over a cut it stays as it was.
        """
        image = grey(frame)
        since = self._since_reference(image) if self.found else None
        if since is not None:
            self.moved, self.age, self.wait = self.start + since, self.age + 1, 0
            if self.age >= REFRESH * self.frames_per_second:
                self._refer_to(image, self._aligned_again(frame))
        elif self.wait > 0:
            self.wait -= 1
        elif (landmarks := self.finder.landmarks(frame)) is not None:
            self._refer_to(image, alignment(landmarks, SIZE))  # the first face, or the face after a cut
        else:
            self.wait = int(RETRY * self.frames_per_second)
        return self.moved

    def _refer_to(self, image: NDArray[np.uint8], transform: NDArray[np.float64]) -> None:
        """Makes this frame the reference."""
        self.transform = self.like = transform
        self.reference = crop(image, transform, SIZE)
        self.start, self.age, self.found = self.moved, 0, True

    def _aligned_again(self, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The alignment of the face that is followed, by its landmarks if they are seen; not that of another face."""
        landmarks = self.finder.landmarks(frame)
        if landmarks is None:
            return self.transform
        again = alignment(landmarks, SIZE)
        near = max_corner_shift(compose(again, inverse(self.transform)), SIZE) < SIZE / 4
        return again if near else self.transform

    def _since_reference(self, image: NDArray[np.uint8]) -> NDArray[np.float64] | None:
        """Displacement of the parts since the reference frame, shape (P, 2); None if the face is lost."""
        transform, still = self.transform, still_parts(SIZE)

        def compare() -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float64]]:
            now = crop(image, transform, SIZE, like=self.like)
            flow = optical_flow(self.reference, now, "farneback")
            return now, flow, fit(flow, still)

        # The head is about where it was a frame ago; if it has jumped, further rounds follow it.
        now, flow, motion = compare()
        for _ in range(ROUNDS - 1):
            if max_corner_shift(motion, SIZE) < 0.5:
                break
            transform = compose(inverse(motion), transform)
            now, flow, motion = compare()
        if not _correlation(self.reference[still > 0], now[still > 0]) >= ALIKE:
            return None
        self.transform = transform
        return weights() @ (flow - displacement(motion, SIZE)).reshape(2, -1).T


def _correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Pearson's; 0 if one of them is constant."""
    first_apart, second_apart = first - first.mean(), second - second.mean()
    size = float(np.sqrt((first_apart**2).sum() * (second_apart**2).sum()))
    return float((first_apart * second_apart).sum()) / size if size else 0.0

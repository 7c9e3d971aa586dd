"""Spotting micro-expressions in a long video: motions of the face that rise and fall within half a second.

    spotted = spot_intervals(frames, frames_per_second=30)
    for interval in spotted.intervals:
        print(interval.onset, interval.apex, interval.offset)

One pass follows the head and measures how far each part of the face has moved, without the motion of the head. All else
is read from these curves; nothing is trained. A curve is compared with its surroundings of half a second, as Moilanen,
Zhao and Pietikäinen (ICPR 2014) compare the features of a frame with those before and after it. Here a morphological
top-hat does it, which keeps what is shorter and removes what is longer. Flow in parts of the face less a common motion,
and single frames joined to intervals, are also in MDMD (Wang, Wu, Qian, Li and Fu, Neurocomputing 2017; as the baseline
of the MEGC 2020: He, Wang, Li and Yap, FG 2020).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mer import InputError
from mer.preprocessing.face_parts import EXPRESSIVE, FaceFollower, sides
from mer.preprocessing.faces import FaceFinder
from mer.preprocessing.opencv import cv2

RATE = 50
"""Frames per second that are enough; of a faster video every k-th frame is read, at least so many a second."""

LONGEST, SHORTEST = 0.5, 0.06
"""Seconds from onset to offset. A motion up to 15 % longer still counts: the ends are known to about a frame."""

SMOOTHING = 0.025
"""Standard deviation in seconds of the smoothing over time."""

LEAST, NOISE, USUAL = 0.12, 12.0, 4.0
"""The threshold lies above the baseline by the largest of three: ``LEAST`` px, so many times the noise of a curve, so
many times the median of the motion. These and the numbers below were chosen on synthetic videos, see docs/spotting.md.
"""

CALM = 10.0
"""Seconds from which a video has a baseline, the calmest tenth of its frames, and a usual motion; else both are 0."""

BACK = 0.3
"""A motion rises and falls if the smaller of the two is this share of the larger: some of an expression may stay."""

FOOT = 0.33
"""Onset and offset are where the slope has sunk to this share of the steepest one; the foot itself is lost in noise."""

SYLLABLES, BEAT = 4, 0.45
"""So many short motions in a row, less than so many seconds from apex to apex, are speech."""


@dataclass(frozen=True)
class Interval:
    """A spotted micro-expression.

    Attributes:
        onset: Index of the frame in which it begins.
        apex: Index of the frame in which it is strongest.
        offset: Index of the frame in which it is over.
        strength: Height of the motion above its baseline, in pixels of an aligned face of 128 px. The baseline is the
            calmest tenth of the frames, and 0 in a video under 10 s.
    """

    onset: int
    apex: int
    offset: int
    strength: float


@dataclass(frozen=True)
class Spotted:
    """What was spotted in a video of n frames.

    Attributes:
        motion: Short motion in each frame, in pixels of an aligned face of 128 px, float64 (n,): how far the part
            that moves most is from where it is just before and after, without head and lids.
        threshold: Motion from which an interval counts, in the same pixels.
        intervals: In order of time; they do not overlap. Often there are none.
    """

    motion: NDArray[np.float64]
    threshold: float
    intervals: tuple[Interval, ...]


def spot_intervals(frames: Iterable[NDArray[np.uint8]], frames_per_second: float) -> Spotted:
    """Finds the intervals in which a face moves and comes back within half a second.

    The motion of the head is removed by a similarity fitted to the still parts of the face. Blinks are left out by the
    eyes: their share is taken off the parts around them, so that an expression during a blink stays if its own motion
    is above the threshold. Motions that last longer are left out, and so is speech: four or more in a row without a
    pause. A motion of the lids alone is not found.

    Args:
        frames: The whole frames of a video of one face in order: uint8 RGB (H, W, 3) or grey (H, W). They are read once
            and not kept.
        frames_per_second: Of ``frames``; below about 25 there are too few frames in a micro-expression.

    Returns:
        Motion, threshold and intervals; a frame's number is its index in ``frames``. Between a face that is lost and
        the next one found there is no motion, and a cut is none.

    Raises:
        InputError: If no frame shows a face, or the frame rate is no positive number.
    """
    if not 0 < frames_per_second < np.inf:
        raise InputError(f"frames per second: {frames_per_second} is no positive number; say the video's frame rate")
    step = max(1, int(frames_per_second // RATE))
    rate, count, rows = frames_per_second / step, 0, []
    with FaceFinder() as finder:
        follower = FaceFollower(finder, rate)
        for frame in frames:
            if count % step == 0:
                rows.append(follower.follow(frame))
            count += 1
    if not follower.found:
        raise InputError(f"no face in any of {count} frames: a video of one face, seen from the front, is needed")
    motion, threshold, intervals = spot_in_curves(np.stack(rows), rate)
    return Spotted(
        np.interp(np.arange(count), np.arange(len(motion)) * step, motion),
        threshold,
        tuple(Interval(step * part.onset, step * part.apex, step * part.offset, part.strength) for part in intervals),
    )


def spot_in_curves(moved: NDArray[np.float64], rate: float) -> tuple[NDArray[np.float64], float, tuple[Interval, ...]]:
    """Finds the intervals in the displacements of the parts of the face.

    Args:
        moved: Shape (m, P, 2), in pixels of the crop, as ``FaceFollower`` measures them.
        rate: Frames per second.

    Returns:
        As ``Spotted``: motion (m,), threshold, intervals in these m frames.
    """
    smooth = cv2.GaussianBlur(
        moved.reshape(len(moved), -1), (1, 2 * int(4 * SMOOTHING * rate + 1) + 1), 1e-9, sigmaY=SMOOTHING * rate,
        borderType=cv2.BORDER_REPLICATE,
    ).reshape(moved.shape)  # fmt: skip
    own = _own_motion(smooth, rate)
    motion = own.max(axis=1)
    baseline = usual = 0.0
    if len(motion) > CALM * rate:  # more than half of a shorter video may be expression, which says nothing about noise
        baseline, usual = float(np.quantile(motion, 0.1)), USUAL * float(np.median(motion))
    threshold = baseline + max(LEAST, NOISE * _noise(moved[:, -own.shape[1] :]), usual)
    short: list[Interval] = []
    left = motion.copy()
    while (height := left[peak := int(np.argmax(left))]) >= threshold:
        # Only the parts that move take part, each in the direction in which it moves.
        parts = smooth[:, -own.shape[1] :][:, own[peak] > 0.5 * height]
        onset, apex, offset = _ends(_along(parts, peak, rate), peak, rate)
        if SHORTEST * rate <= offset - onset <= 1.15 * LONGEST * rate:
            short.append(Interval(onset, apex, offset, float(height - baseline)))
        reach = max(1, round(0.1 * rate))
        left[max(0, min(onset, peak - reach)) : max(offset, peak + reach) + 1] = 0
    return motion, threshold, tuple(_without_overlaps(_without_speech(short, rate)))


def _noise(moved: NDArray[np.float64]) -> float:
    """Standard deviation of what changes from frame to frame, robust, in px; displacements (m, E, 2)."""
    if len(moved) < 3:
        return 0.0
    bends = np.diff(moved, 2, axis=0)
    return float(np.median(np.abs(bends)) / 0.6745 / np.sqrt(6))


def _own_motion(smooth: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Short motion of each expressive part, without the lids' share and what the still parts move, shape (m, E)."""
    angles = np.arange(8) * np.pi / 4
    curves = smooth @ np.stack([np.cos(angles), np.sin(angles)])
    # What rises and falls within the window is kept at its height, what is longer is taken away.
    window = np.ones((round(LONGEST * rate) | 1, 1), np.uint8)
    hats = cv2.morphologyEx(curves.reshape(len(curves), -1).astype(np.float32), cv2.MORPH_TOPHAT, window)
    short = hats.reshape(curves.shape).max(axis=2).astype(np.float64)
    eyes, still, expressive = short[:, :2], short[:, 2:5], short[:, 5:]
    share = np.array([part.lids for part, _ in sides(EXPRESSIVE)])
    side = np.array([sign > 0 for _, sign in sides(EXPRESSIVE)], int)
    return np.maximum(expressive - share * eyes[:, side] - np.median(still, axis=1, keepdims=True), 0)


def _along(parts: NDArray[np.float64], peak: int, rate: float) -> NDArray[np.float64]:
    """How far parts (m, E, 2) have moved in the direction in which they have moved at the peak, shape (m,), in px."""
    apart = round(0.3 * rate)
    before, after = parts[max(0, peak - apart)], parts[min(len(parts) - 1, peak + apart)]
    direction = parts[peak] - (before + after) / 2
    return (parts * direction).sum(axis=(1, 2)) / max(1e-9, float(np.sqrt((direction**2).sum())))


def _ends(curve: NDArray[np.float64], peak: int, rate: float) -> tuple[int, int, int]:
    """Onset, apex and offset of the rise and fall around a peak; three times the peak if it does not rise and fall."""
    near, reach = round(0.15 * rate), round(1.15 * LONGEST * rate) + 1
    first = max(0, peak - near)
    apex = first + int(np.argmax(curve[first : peak + near + 1]))
    before, after = curve[max(0, apex - reach) : apex + 1][::-1], curve[apex : apex + reach + 1]
    onset, offset = apex - _foot(before), apex + _foot(after)
    rise, fall = curve[apex] - curve[onset], curve[apex] - curve[offset]
    return (onset, apex, offset) if min(rise, fall) > BACK * max(rise, fall) else (peak, peak, peak)


def _foot(curve: NDArray[np.float64]) -> int:
    """Frames from the top of a falling curve to its foot, where the slope is a third of the steepest one."""
    if len(curve) < 2:
        return 0
    low = np.minimum.accumulate(curve)
    again = np.flatnonzero(curve - low > 0.25 * (curve[0] - low[-1]))  # another motion begins
    slope = -np.diff(curve[: max(2, int(again[0]))] if len(again) else curve)
    steepest = int(np.argmax(slope))
    flat = np.flatnonzero(slope[steepest:] < slope[steepest] * FOOT)
    return steepest + int(flat[0]) if len(flat) else len(slope)


def _without_speech(intervals: Sequence[Interval], rate: float) -> list[Interval]:
    """Leaves out every run of at least ``SYLLABLES``.

    The way back and forth between two motions counts as one, too: two expressions that are close together are three.
    """
    runs: list[list[Interval]] = []
    for interval in sorted(intervals, key=lambda interval: interval.apex):
        if runs and interval.apex - runs[-1][-1].apex < BEAT * rate:
            runs[-1].append(interval)
        else:
            runs.append([interval])
    return [interval for run in runs if len(run) < SYLLABLES for interval in run]


def _without_overlaps(intervals: Sequence[Interval]) -> list[Interval]:
    """Leaves out what overlaps with a stronger one; in order of time."""
    kept: list[Interval] = []
    for interval in sorted(intervals, key=lambda interval: -interval.strength):
        if all(interval.offset < other.onset or other.offset < interval.onset for other in kept):
            kept.append(interval)
    return sorted(kept, key=lambda interval: interval.onset)

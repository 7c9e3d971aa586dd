"""A long video of a synthetic face: micro-expressions among blinks, macro-expressions, speech and head motion.

video = LongVideo(seed=3, seconds=20, frames_per_second=30)
for frame in video.frames():  # uint8 RGB (H, W, 3)
    ...
print(video.events)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_modules.synthesis.action_units import EMOTIONS, Field, parse
from data_modules.synthesis.filming import CROP, PEAK, Camera, Sway
from data_modules.synthesis.layouts.layout import stream
from data_modules.synthesis.portraits import Subject
from mer import InputError
from mer.preprocessing.faces import EYE_DISTANCE, FaceFinder, alignment
from mer.preprocessing.opencv import cv2

Kind = Literal["micro", "blink", "macro", "speech"]
SHARES: dict[Kind, float] = {"micro": 0.42, "blink": 0.33, "macro": 0.17, "speech": 0.08}
BLINK_INSIDE = 0.2  # share of the micro-expressions during which the eyes blink
SPOKEN = ("25", "17+25", "20+25", "24")  # action units of speech

# MediaPipe's upper and lower contour of the eye on the left in the image, then of the other one; corners included.
LIDS = (
    ((33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133)),
    ((362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263)),
)


@dataclass(frozen=True)
class Event:
    """Something that the face does; ``onset``, ``apex`` and ``offset`` are frame numbers."""

    kind: Kind
    onset: int
    apex: int
    offset: int


class LongVideo:
    """One recording; it depends on the arguments alone.

    Args:
        seed: Decides the person and all that happens.
        seconds: Length.
        frames_per_second: Its rate.
        size: Width and height of the frames in pixels.

    Attributes:
        events: What is planted, in order of the onsets. No two overlap but for a blink inside a micro-expression.
    """

    def __init__(self, seed: int, seconds: float, frames_per_second: float, size: tuple[int, int] = (480, 360)) -> None:
        self.seed, self.rate, self.size = seed, frames_per_second, size
        self.length = round(seconds * frames_per_second)
        self.events = _plan(stream(seed, 0, "events"), seconds, frames_per_second)

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Renders the video, frame by frame: uint8 RGB, shape (H, W, 3)."""
        draws = stream(self.seed, 0, "long video")
        neutral = Subject(draws, self.size).neutral(draws)
        camera = Camera(draws, self.size)
        with FaceFinder() as finder:
            landmarks = finder.landmarks(neutral)
        if landmarks is None:
            raise InputError(f"MediaPipe sees no face in the synthetic video {self.seed}; take another seed or size")
        transform = alignment(landmarks, CROP)
        unit = 1 / float(np.hypot(*transform[0, :2]))  # image pixels to one crop pixel
        centre = np.linalg.solve(transform[:, :2], (CROP / 2, CROP / 2) - transform[:, 2])
        nose, eye_distance = landmarks[4], EYE_DISTANCE * CROP * unit
        sway = Sway(draws, self.length, centre, eye_distance, unit)
        moved, turned = _head(draws, self.length, self.rate)
        sway.path = sway.path + (moved * unit / (1, 1, eye_distance, eye_distance)).astype(np.float32)

        radius = Sway.REACH * eye_distance
        left, top = np.maximum(centre - radius, 0).astype(int)
        right, bottom = np.minimum(centre + radius, self.size).astype(int)
        y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
        # When the head turns, what is nearer to the camera moves further: a motion that no similarity removes.
        across, along = (x - nose[0]) / (0.5 * eye_distance), (y - nose[1]) / (0.8 * eye_distance)
        near = np.exp(-0.5 * (across**2 + along**2)).astype(np.float32)
        motions = [
            (*_motion(draws, event, landmarks, x, y, unit), _course(draws, event, self.rate, self.length))
            for event in self.events
            if event.kind != "blink"
        ]
        lids = sum(
            (_course(draws, event, self.rate, self.length) for event in self.events if event.kind == "blink"),
            start=np.zeros(self.length),
        )
        for time in range(self.length):
            face = _close_eyes(neutral, landmarks, lids[time])
            dx, dy = near * np.float32(turned[time, 0] * unit), near * np.float32(turned[time, 1] * unit)
            for motion_x, motion_y, course in motions:
                if course[time]:
                    dx, dy = dx + motion_x * np.float32(course[time]), dy + motion_y * np.float32(course[time])
            image = face.copy()
            maps = sway.back(x - dx, y - dy, time)
            image[top:bottom, left:right] = cv2.remap(face, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            yield np.asarray(cv2.imdecode(camera.shoot(image), cv2.IMREAD_COLOR_RGB), np.uint8)


def _plan(draws: np.random.Generator, seconds: float, rate: float) -> tuple[Event, ...]:
    """One event after another with pauses between them, from half a second on."""
    events, start = [], 0.6

    def add(kind: Kind, onset: float, length: float, rise: float) -> None:
        numbers = round(onset * rate), round((onset + rise * length) * rate), round((onset + length) * rate)
        events.append(Event(kind, numbers[0], max(numbers[0] + 1, numbers[1]), max(numbers[0] + 2, numbers[2])))

    lengths = {"micro": (0.2, 0.5), "blink": (0.18, 0.4), "macro": (0.9, 3.0), "speech": (1.2, 2.5)}
    while True:
        kind: Kind = draws.choice(list(SHARES), p=list(SHARES.values()))
        length = float(draws.uniform(*lengths[kind]))
        if start + length > seconds - 0.6:
            return tuple(sorted(events, key=lambda event: event.onset))
        add(kind, start, length, draws.uniform(0.35, 0.45) if kind == "blink" else draws.uniform(0.3, 0.6))
        if kind == "micro" and draws.random() < BLINK_INSIDE:
            add("blink", start + draws.uniform(0, 0.1), 0.2, 0.4)
        start += length + float(draws.uniform(0.5, 2.0))


def _motion(
    draws: np.random.Generator,
    event: Event,
    landmarks: NDArray[np.float32],
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    unit: float,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Displacement at the apex in image pixels, right and down, at the positions given."""
    codes = SPOKEN if event.kind == "speech" else list(EMOTIONS[str(draws.choice(list(EMOTIONS)))])
    field = Field([(side, number, 1.0) for side, number in parse(str(draws.choice(codes)))], landmarks, draws)
    dx, dy = field(x, y)
    typical, spread, low, high = (PEAK, 0.4, 0.35, 1.95) if event.kind == "micro" else (3.0, 0.3, 1.8, 6.0)
    gain = float(np.clip(draws.lognormal(np.log(typical), spread), low, high)) * unit / float(np.hypot(dx, dy).max())
    return dx * np.float32(gain), dy * np.float32(gain)


def _course(draws: np.random.Generator, event: Event, rate: float, length: int) -> NDArray[np.float64]:
    """Strength in each frame of the video: 1 at the apex, 0 before the onset and some time after the offset."""
    time = np.arange(length, dtype=np.float64)
    up = _ease((time - event.onset) / (event.apex - event.onset))
    down = _ease((time - event.apex) / (event.offset - event.apex))
    if event.kind == "speech":
        beat = draws.uniform(2.5, 5.0) / rate
        inside = (time >= event.onset) & (time <= event.offset)
        return inside * (0.5 - 0.5 * np.cos(2 * np.pi * beat * (time - event.onset)))
    # A part of an expression stays when a coder takes it to be over, and fades within a second; eyes open at once.
    left = 0.0 if event.kind == "blink" else draws.uniform(0.0, 0.3)
    faded = _ease((time - event.offset) / (draws.uniform(0.4, 1.0) * rate))
    return up * (1 - (1 - left) * down) - left * down * faded


def _ease(part: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 - 0.5 * np.cos(np.pi * part.clip(0, 1))


def _head(draws: np.random.Generator, length: int, rate: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Motion of the head besides the sway, in crop pixels.

    Returns:
        Right, down, turn and growth (the latter two at an eye distance), shape (length, 4); how far the nose leads the
        face while the head turns, right and down, shape (length, 2).
    """
    time = np.arange(length) / rate
    path, lead = np.zeros((length, 4)), np.zeros((length, 2))
    strength = np.array((2.0, 1.5, 0.5, 0.5)) * draws.uniform(0.5, 1.5)
    for period in (8.0, 3.5):
        rates, phases = 2 * np.pi / period * draws.uniform(0.7, 1.3, 4), draws.uniform(0, 2 * np.pi, 4)
        path += strength * period / 8 * (np.sin(rates * time[:, None] + phases) - np.sin(phases))
    start = draws.uniform(1, 4)
    while start < time[-1]:  # it turns or nods and stays there
        goal = draws.normal(0, (3.0, 2.0, 0.7, 0.5))
        done = _ease((time - start) / draws.uniform(0.35, 1.0))[:, None]
        path, lead = path + goal * done, lead + 0.3 * goal[:2] * done
        start += draws.uniform(2, 6)
    return path, lead


def _close_eyes(image: NDArray[np.uint8], landmarks: NDArray[np.float32], closed: float) -> NDArray[np.uint8]:
    """Draws the upper lids down over the eyes; ``closed`` is 0 for open eyes and 1 for closed ones."""
    if closed < 0.01:
        return image
    image = image.copy()
    for upper, lower in LIDS:
        (x, above), (beneath, below) = landmarks[list(upper)].T, landmarks[list(lower)].T
        fold = float(above.min() - 0.8 * (below - above).max())  # the skin between this line and the lid stretches
        left, right, top, bottom = int(x[0]), int(x[-1]) + 1, int(fold), int(below.max()) + 3
        rows, columns = np.mgrid[top:bottom, left:right].astype(np.float32)
        rim = np.interp(columns[0], x, above)
        lid = rim + closed * (np.interp(columns[0], beneath, below) - rim)
        source = fold + (rows - fold) * ((rim - fold) / (lid - fold))
        source = np.where((rows > fold) & (rows < lid), source, rows).astype(np.float32)
        image[top:bottom, left:right] = cv2.remap(image, columns, source, cv2.INTER_LINEAR)
    return image

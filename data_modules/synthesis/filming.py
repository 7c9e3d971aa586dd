"""Renders one synthetic clip: a face with an expression, a swaying head, camera noise, and the true flow."""

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from data_modules.synthesis import relief
from data_modules.synthesis.action_units import ACTION_UNITS, Field, parse
from data_modules.synthesis.layouts.layout import Clip, Layout, stream
from data_modules.synthesis.portraits import Subject
from mer import InputError
from mer.preprocessing.faces import FaceFinder, alignment
from mer.preprocessing.opencv import cv2

CROP = 128  # px, side of the crop that the truth refers to
PEAK = 1.05  # px of the crop, median over the clips of the largest displacement at the apex
FAINT = 0.2  # share of the clips in which another action unit moves too, too faintly for a coder


def film(folder: Path, seed: int, size: tuple[int, int] | None, layout: Layout, clip: Clip) -> None:
    """Write the frames of one clip and its true flow; they depend on the arguments alone."""
    size = size or layout.size
    person = _person(seed, clip.person, size)
    # The clip's own stream: its name is what tells it from the subject's other clips.
    generator = stream(seed, clip.person, "clip", layout.key(clip))
    neutral = person.neutral(generator)
    camera = Camera(generator, size, Path(layout.frame(clip, 0)).suffix, layout.grey)

    onset = camera.shoot(neutral)
    landmarks = _finder().landmarks(np.asarray(cv2.imdecode(onset, cv2.IMREAD_COLOR_RGB), np.uint8))
    if landmarks is None:
        raise InputError(
            f"{clip.subject} {clip.name}: MediaPipe sees no face in the synthetic frame; take another seed or size"
        )
    transform = alignment(landmarks, CROP)
    scale = float(np.hypot(*transform[0, :2]))
    parts = [(side, unit, 1.0) for side, unit in parse(clip.action_units)]
    if generator.random() < FAINT:
        parts.append(("", int(generator.choice(list(ACTION_UNITS))), generator.uniform(0.2, 0.4)))
    field = Field(parts, landmarks, stream(seed, clip.person, "habit"), generator)
    centre = np.linalg.solve(transform[:, :2], (CROP / 2, CROP / 2) - transform[:, 2])
    sway = Sway(generator, clip.offset - clip.onset + 1, centre, field.eye_distance, 1 / scale)

    # Only the part around the head is drawn anew for each frame; beyond it nothing moves.
    radius = Sway.REACH * field.eye_distance
    left, top = np.maximum(centre - radius, 0).astype(int)
    right, bottom = np.minimum(centre + radius, size).astype(int)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    dx, dy = field(x, y)
    field.gain = float(np.clip(generator.lognormal(np.log(PEAK), 0.4), 0.35, 1.95) / scale / np.hypot(dx, dy).max())
    dx, dy = dx * np.float32(field.gain), dy * np.float32(field.gain)
    course = _course(generator, clip).astype(np.float32)
    calm = None
    if layout.has_depth:
        calm = relief.relief(transform, *np.mgrid[: size[1], : size[0]].astype(np.float32)[::-1])
    for number in range(clip.onset - clip.lead, clip.offset + clip.tail + 1):
        photograph, depth, time = onset, calm, min(max(number - clip.onset, 0), len(course) - 1)
        if number != clip.onset:
            image, amount = neutral.copy(), course[time]
            maps = sway.back(x - amount * dx, y - amount * dy, time)
            image[top:bottom, left:right] = cv2.remap(neutral, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            photograph = camera.shoot(image)
            if calm is not None:
                depth = calm.copy()
                depth[top:bottom, left:right] = relief.relief(transform, *maps)
        if number not in clip.dropped:
            layout.add_frame(folder, clip, number, photograph.tobytes())
            if depth is not None:
                layout.add_depth(folder, clip, number, relief.encode(depth))

    truth = folder / layout.truth(clip)
    truth.parent.mkdir(exist_ok=True)
    flow, expression = true_flow(transform, field, sway, clip.apex - clip.onset)
    arrays = {"flow": flow.astype(np.float16), "expression": expression.astype(np.float16), "transform": transform}
    truth.write_bytes(save(arrays))


class Sway:
    """Motion of the head: it drifts by some tenths of a crop pixel and trembles by some hundredths.

    Args:
        generator: Decides the motion.
        length: Number of frames; on the first the head is at rest.
        centre: About which it turns, (x, y) in pixels.
        eye_distance: In pixels; the motion fades out from 1.8 to 2.8 of it, so that walls stand still.
        unit: Image pixels to one crop pixel.
    """

    REACH = 2.8  # eye distances

    def __init__(
        self,
        generator: np.random.Generator,
        length: int,
        centre: NDArray[np.float64],
        eye_distance: float,
        unit: float,
    ) -> None:
        self.centre, self.eye_distance = centre.astype(np.float32), eye_distance
        time = np.arange(length)
        # right, down, turn, growth; the latter two as crop pixels at the edge of the face
        strength = np.array((0.16, 0.16, 0.10, 0.07)) * generator.uniform(0.4, 1.3)
        path = np.zeros((length, 4))
        for period in (100.0, 45.0):
            phase, rate = generator.uniform(0, 2 * np.pi, 4), 2 * np.pi / period * generator.uniform(0.7, 1.3, 4)
            path += strength * period / 145 * np.sin(rate * time[:, None] + phase)
        path += strength * 0.06 * generator.normal(size=path.shape)
        path = (path - path[0]) * unit
        path[:, 2:] /= eye_distance
        self.path = path.astype(np.float32)

    def shift(self, x: NDArray, y: NDArray, time: int) -> tuple[NDArray, NDArray]:
        """Displacement in pixels since the first frame of the point at (x, y) in this frame."""
        x, y = x - self.centre[0], y - self.centre[1]
        right, down, turn, growth = self.path[time]
        far = ((np.hypot(x, y) / np.float32(self.eye_distance) - 1.8) / (self.REACH - 1.8)).clip(0, 1)
        near = 1 - far * far * (3 - 2 * far)
        return near * (right + growth * x - turn * y), near * (down + growth * y + turn * x)

    def back(self, x: NDArray, y: NDArray, time: int) -> tuple[NDArray, NDArray]:
        """Position in the first frame, in pixels, of the point at (x, y) in this frame."""
        dx, dy = self.shift(x, y, time)
        return x - dx, y - dy


class Camera:
    """Sensor noise, a little flicker of the light, the format of the files."""

    def __init__(
        self, generator: np.random.Generator, size: tuple[int, int], suffix: str = ".jpg", grey: bool = False
    ) -> None:
        self.generator, self.size, self.suffix, self.grey = generator, size, suffix, grey
        noise = generator.standard_normal((size[1] + 64, size[0] + 64, 3), dtype=np.float32)
        self.noise = cv2.GaussianBlur(noise, (0, 0), 0.5) * np.float32(generator.uniform(2.0, 3.0))

    def shoot(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A photograph of ``image`` as the bytes of a file."""
        # One sheet of noise for the whole clip, moved elsewhere for every frame.
        left, top = self.generator.integers(0, 64, 2)
        noise = self.noise[top : top + self.size[1], left : left + self.size[0]]
        bright, sign = 1 + self.generator.normal(0, 0.003), float(self.generator.choice((-1, 1)))
        noisy = np.maximum(cv2.addWeighted(image.astype(np.float32), bright, noise, sign, 0.0), 0)
        return encode(np.asarray(cv2.convertScaleAbs(noisy), np.uint8), self.suffix, self.grey)


def encode(image: NDArray[np.uint8], suffix: str, grey: bool) -> NDArray[np.uint8]:
    """An RGB image as the bytes of a file."""
    image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY if grey else cv2.COLOR_RGB2BGR), np.uint8)
    options = (cv2.IMWRITE_JPEG_QUALITY, 91) if suffix == ".jpg" else ()
    done, data = cv2.imencode(suffix, image, options)
    assert done
    return data


def _course(generator: np.random.Generator, clip: Clip) -> NDArray[np.float64]:
    """The strength of the expression in every frame: 0 at the onset, 1 at the apex, some of it left at the offset."""
    rise, fall = clip.apex - clip.onset, clip.offset - clip.apex
    time = np.arange(rise + fall + 1)
    up = np.clip(time / rise, 0, 1) ** generator.uniform(0.8, 1.4)
    down = np.clip((time - rise) / fall, 0, 1)
    left = generator.uniform(0.05, 0.45)
    return (0.5 - 0.5 * np.cos(np.pi * up)) * (1 - (1 - left) * (0.5 - 0.5 * np.cos(np.pi * down)))


def true_flow(
    transform: NDArray[np.float64], field: Field, sway: Sway, apex: int, size: int = CROP
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inverts the map that drew the apex frame, by fixed point, at the pixels of the onset crop.

    A frame shows at p the neutral face at ``back(p - d(p))``. What was at q is then at the p with
    ``p = d(p) + r`` and ``r = q + shift(r)``.

    Args:
        transform: Shape (2, 3), from image pixels to pixels of the crop.
        field: The expression, its gain set, in image pixels.
        sway: The motion of the head, in image pixels.
        apex: The apex frame, counted from the onset.
        size: Side of the crop in pixels.

    Returns:
        Displacement with and without the motion of the head, each (2, size, size), in pixels of the crop, u right, v
        down; exact to far below 0.005 px.
    """
    turn = transform[:, :2]
    pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(-1, 2)
    start = np.linalg.solve(turn, (pixels - transform[:, 2]).T)

    def invert(move: Callable[..., tuple[NDArray, NDArray]], origin: NDArray) -> NDArray:
        place = origin
        for _ in range(50):
            place, before = origin + np.stack(move(*place)), place
            if np.abs(place - before).max() < 1e-5:
                break
        return place

    swayed = invert(partial(sway.shift, time=apex), start)
    moved, expressed = (turn @ (invert(field, origin) - start) for origin in (swayed, start))
    return moved.reshape(2, size, size), expressed.reshape(2, size, size)


@lru_cache(maxsize=4)
def _person(seed: int, subject: int, size: tuple[int, int]) -> Subject:
    return Subject(stream(seed, subject, "person"), size)


@lru_cache(maxsize=1)
def _finder() -> FaceFinder:
    return FaceFinder().__enter__()

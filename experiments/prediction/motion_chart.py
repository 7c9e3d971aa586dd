"""The motion over time as inline SVG: places across are percentages, so that it is as wide as its column."""

import math

import numpy as np
from markupsafe import Markup

from experiments.prediction.table import FRAMES
from mer.prediction import Prediction

TOP, HEIGHT = 30, 150  # pixels: where the curve may begin, and how high it is
BELOW = 36  # pixels under it, for two rows of ticks
LEAST = 0.1  # px, the least top of the axis: camera noise alone gives up to about half of it on synthetic faces
MANY = 80  # frames beyond which they have no dots


def draw(prediction: Prediction) -> Markup:
    """The chart of a clip: a dot per frame, and onset, apex and offset as lines."""
    numbers, moved = prediction.frame_numbers.astype(float), prediction.movement.astype(float)
    marked = [int(getattr(prediction, name)) for name in FRAMES]
    first, last = min([*numbers, *marked]), max([*numbers, *marked])
    last = max(last, first + 1)
    rise = _step(max([LEAST, *moved]), 3)
    top = rise * math.ceil(max([LEAST, *moved]) / rise - 1e-9)

    def across(frame: float) -> float:
        return 100 * (frame - first) / (last - first)

    def down(value: float) -> float:
        return TOP + HEIGHT * (1 - value / top)

    parts = [_rows(rise, top), _ticks(first, last, across, prediction)]
    if len(numbers):
        places = [f"{10 * across(x):.2f},{1000 * (1 - y / top):.1f}" for x, y in zip(numbers, moved, strict=True)]
        ends = (f"{10 * across(numbers[0]):.2f},1000", f"{10 * across(numbers[-1]):.2f},1000")
        parts.append(
            f'<svg y="{TOP}" width="100%" height="{HEIGHT}" viewBox="0 0 1000 1000" preserveAspectRatio="none">'
            f'<polygon class="area" points="{" ".join([ends[0], *places, ends[1]])}"/>'
            f'<polyline class="curve" points="{" ".join(places)}"/></svg>'
        )
    marks = [_mark(name, frame, across(frame)) for name, frame in zip(FRAMES, marked, strict=True)]
    parts += [line for line, _ in marks]
    for number, value in zip(numbers, moved, strict=True) if len(numbers) <= MANY else ():
        time = prediction.seconds(int(number))
        title = f"frame {number:.0f}{'' if time is None else f', {time:.3f} s'}: {value:.2f} px"
        dot = f'cx="{across(number):.3f}%" cy="{down(value):.1f}" r="2.5"'
        parts.append(f'<circle class="dot" {dot}><title>{title}</title></circle>')
    parts += [text for _, text in marks]
    said = ", ".join(f"{name} at frame {frame}" for name, frame in zip(FRAMES, marked, strict=True))
    peak = f"; at most {np.max(moved):.2f} px" if len(moved) else ""
    label = f"Movement of the face over time{peak}; {said}"
    size = f'height="{TOP + HEIGHT + BELOW}"'
    return Markup(f'<svg class="track motion" {size} role="img" aria-label="{label}">{"".join(parts)}</svg>')


def _rows(rise: float, top: float) -> str:
    """The grid's level lines with their values in pixels."""
    digits = max(0, -math.floor(math.log10(rise) + 1e-9))
    parts = []
    for index in range(round(top / rise) + 1):
        y = TOP + HEIGHT * (1 - index * rise / top)
        text = f"{index * rise:.{digits}f}" + (" px" if index * rise >= top - rise / 2 else "")
        parts.append(f'<line class="grid" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="left" x="-8" y="{y + 4:.1f}">{text}</text>')
    return "".join(parts)


def _ticks(first: float, last: float, across, prediction: Prediction) -> str:
    """Numbers of frames under the curve, and under them the seconds."""
    step = max(1, round(_step(last - first, 5)))
    frame_row, time_row = TOP + HEIGHT + 16, TOP + HEIGHT + 31
    parts = [f'<text class="left" x="-24" y="{frame_row}">frame</text>']
    parts += [f'<text class="left" x="-24" y="{time_row}">s</text>'] if prediction.frames_per_second else []
    for frame in range(math.ceil(first / step) * step, math.floor(last) + 1, step):
        place = f'x="{across(frame):.3f}%"'
        parts.append(f'<text {place} y="{frame_row}">{frame}</text>')
        if (time := prediction.seconds(frame)) is not None:
            parts.append(f'<text {place} y="{time_row}">{time:.3f}</text>')
    return "".join(parts)


def _mark(name: str, frame: int, place: float) -> tuple[str, str]:
    """A line and its name; the apex's is above those of onset and offset, so that no two names meet."""
    apex = name == "apex"
    anchor = {"onset": "start", "offset": "end"}.get(name, "start" if place < 10 else "end" if place > 90 else "middle")
    y = 11 if apex else 26
    return (
        f'<line class="mark {name}" x1="{place:.3f}%" x2="{place:.3f}%" y1="{y + 3}" y2="{TOP + HEIGHT}"/>',
        f'<text class="name {name}" x="{place:.3f}%" y="{y}" style="text-anchor: {anchor}">{name} {frame}</text>',
    )


def _step(span: float, most: int) -> float:
    """The smallest of 1, 2 and 5 times a power of ten that parts a span into no more than so many steps."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(power * factor for factor in (1, 2, 5, 10) if span <= power * factor * most * (1 + 1e-9))

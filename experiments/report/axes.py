"""Rows of marks over a common axis, as inline SVG. Places across are percentages: a chart is as wide as its column."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

HEIGHT = 26  # pixels of a chart's row


@dataclass(frozen=True)
class Bar:
    """One row of a chart: what stands left of it, right of it, and the drawing."""

    kind: str
    label: str
    value: str
    drawing: Markup


@dataclass(frozen=True)
class Chart:
    """Rows over a common axis."""

    bars: list[Bar]
    axis: Markup


@dataclass(frozen=True)
class Scale:
    """From scores to places across."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float]) -> "Scale":
        """From the tenth below the lowest value to the one above the highest."""
        values = list(values)
        low = max(0.0, math.floor(min(values) * 10 - 1e-9) / 10)
        return cls(low, max(min(1.0, math.ceil(max(values) * 10 + 1e-9) / 10), low + 0.1))

    @property
    def ticks(self) -> list[float]:
        """Tenths, or fifths where there are many."""
        tenths = round((self.high - self.low) * 10)
        step = 2 if tenths > 6 else 1
        return [self.low + i / 10 for i in range(0, tenths + 1, step)]

    def place(self, value: float) -> str:
        """A percentage."""
        return f"{(value - self.low) / (self.high - self.low) * 100:.2f}%"


def drawing(scale: Scale, marks: Sequence[str], title: str, height: int = HEIGHT) -> Markup:
    """Marks around the middle line, over the grid."""
    grid = "".join(line(scale, tick, height / 2, "grid") for tick in scale.ticks)
    return Markup(
        f'<svg class="track" height="{height}" role="img" aria-label="{escape(title)}">'
        f'<svg y="50%" overflow="visible">{grid}{"".join(marks)}</svg></svg>'
    )


def axis(scale: Scale, percent: bool = False) -> Markup:
    """The ticks' values, for below the last row."""
    texts = [
        f'<text x="{scale.place(tick)}" y="13">{f"{tick:.0%}" if percent else f"{tick:.1f}"}</text>'
        for tick in scale.ticks
    ]
    return Markup(f'<svg class="track axis" height="18" aria-hidden="true">{"".join(texts)}</svg>')


def whisker(scale: Scale, score: dict, look: str) -> str:
    """An interval, from ``score["low"]`` to ``score["high"]``, with a cap at either end."""
    ends = [scale.place(score[end]) for end in ("low", "high")]
    caps = "".join(f'<line class="{look}" x1="{end}" x2="{end}" y1="-4" y2="4"/>' for end in ends)
    return f'<line class="{look}" x1="{ends[0]}" x2="{ends[1]}" y1="0" y2="0"/>{caps}'


def line(scale: Scale, value: float, reach: float, look: str) -> str:
    """An upright line, ``reach`` pixels to either side of the middle line."""
    x = scale.place(value)
    return f'<line class="{look}" x1="{x}" x2="{x}" y1="{-reach:g}" y2="{reach:g}"/>'


def at(scale: Scale, value: float, mark: str) -> str:
    """A mark, drawn around (0, 0), put at a value."""
    return f'<svg x="{scale.place(value)}" overflow="visible">{mark}</svg>'

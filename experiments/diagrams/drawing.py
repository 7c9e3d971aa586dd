"""Diagrams as SVG: boxes by kind of block, arrows, groups, tokens, a legend. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

KINDS = {
    "tensor": ("#ffffff", "#6e7781"),
    "token": ("#fff3b0", "#b08800"),
    "convolution": ("#dbeafe", "#2563eb"),
    "attention": ("#ffe3cc", "#d9580d"),
    "feed-forward, linear": ("#d8f5e1", "#188048"),
    "pooling": ("#ebe4fd", "#7c4fe0"),
    "normalisation": ("#eef1f4", "#8c959f"),
    "loss": ("#ffdfe4", "#d1274b"),
}
"""Fill and edge of every kind of block, in the order of the legend."""

LINEAR = "feed-forward, linear"
WIDTH = 1000
INK, FAINT = "#1f2328", "#57606a"
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
LINE = 16
"""Distance of lines of text, px."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """Where a block lies, px; arrows start and end at the middles of its sides."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> Point:
        return self.x, self.y + self.height / 2

    @property
    def right(self) -> Point:
        return self.x + self.width, self.y + self.height / 2

    @property
    def top(self) -> Point:
        return self.x + self.width / 2, self.y

    @property
    def bottom(self) -> Point:
        return self.x + self.width / 2, self.y + self.height


@dataclass(frozen=True)
class Block:
    """A block of a chain: its kind, its width in px, its name and what is to know of it, line by line."""

    kind: str
    width: float
    name: str
    notes: tuple[str, ...] = ()


class Figure:
    """A diagram; what is drawn later lies above.

    Args:
        height: Height in px, with the legend.
        title: Name, said at the top.
        subtitle: What the figure holds.
    """

    def __init__(self, height: float, title: str, subtitle: str):
        self.height, self.title = height, title
        self.parts: list[str] = []
        self.kinds: set[str] = set()
        self.text(24, 36, title, size=18, weight=650)
        self.text(24, 57, subtitle, size=12.5, colour=FAINT)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        anchor: str = "start",
        size: float = 12,
        weight: int = 400,
        colour: str = INK,
    ) -> None:
        """Write one line whose baseline is at y."""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size:g}" font-weight="{weight}" '
            f'fill="{colour}">{escape(words, quote=False)}</text>'
        )

    def rectangle(
        self, box: Box, fill: str, edge: str, radius: float = 6, dashes: str = "none", thickness: float = 1.3
    ) -> None:
        """Draw a box without words."""
        self.parts.append(
            f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="{radius:g}" '
            f'fill="{fill}" stroke="{edge}" stroke-width="{thickness:g}" stroke-dasharray="{dashes}"/>'
        )

    def box(self, block: Block, x: float, y: float, height: float = 0, cards: int = 1) -> Box:
        """Draw a block whose left edge is at x and whose middle is at y; ``cards`` of them behind one another."""
        height = height or 20 + LINE * (1 + len(block.notes))
        box = Box(x, y - height / 2, block.width, height)
        self.kinds.add(block.kind)
        for card in reversed(range(cards)):
            self.rectangle(Box(x + 5 * card, box.y - 5 * card, box.width, height), *KINDS[block.kind])
        baseline = y - LINE * len(block.notes) / 2 + 4.5
        self.text(box.top[0], baseline, block.name, "middle", weight=600)
        for line, note in enumerate(block.notes, start=1):
            self.text(box.top[0], baseline + LINE * line, note, "middle", size=11.5)
        return box

    def sign(self, x: float, y: float, symbol: str) -> Box:
        """Draw an operation of arithmetic as a circle around x, y."""
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="11" fill="#ffffff" stroke="{INK}" stroke-width="1.3"/>')
        self.text(x, y + 5, symbol, "middle", size=15)
        return Box(x - 11, y - 11, 22, 22)

    def arrow(self, *points: Point, dashed: bool = False) -> None:
        """Draw an arrow through points; between two that are not level it goes across, along and across again."""
        path = [points[0]]
        for end in points[1:]:
            start = path[-1]
            if start[0] != end[0] and start[1] != end[1]:
                middle = (start[0] + end[0]) / 2
                path += [(middle, start[1]), (middle, end[1])]
            path.append(end)
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        d = "M" + " L".join(f"{x:g} {y:g}" for x, y in path)
        self.parts.append(
            f'<path d="{d}" fill="none" stroke="{INK}" stroke-width="1.3" stroke-linejoin="round"{dashes} '
            'marker-end="url(#head)"/>'
        )

    def chain(self, x: float, y: float, *items: Block | str, gap: float = 24, lift: float = 0) -> list[Box]:
        """Draw blocks from left to right at the height y, joined by arrows.

        A ``+`` among them adds what has passed by the blocks since the last ``+``, or since the first block, on a line
        that is ``lift`` px above the middle.
        """
        placed: list[Box] = []
        fork = x
        for item in items:
            box = self.sign(x + 11, y, item) if isinstance(item, str) else self.box(item, x, y)
            if placed:
                self.arrow(placed[-1].right, box.left)
            if item == "+":
                self.arrow((fork, y), (fork, y - lift), (box.top[0], y - lift), box.top)
            x = box.x + box.width + gap
            if not placed or item == "+":
                fork = x - gap / 2 - 2
            placed.append(box)
        return placed

    def group(self, box: Box, name: str, note: str = "") -> None:
        """Frame what belongs together, its name in the upper left corner; to be called before what lies in it."""
        self.rectangle(box, "#f8fafc", "#c3cad2", radius=10, thickness=1.1)
        extra = f'<tspan font-weight="400" fill="{FAINT}" dx="8">{escape(note, quote=False)}</tspan>' if note else ""
        self.parts.append(
            f'<text x="{box.x + 14:g}" y="{box.y + 22:g}" font-size="13" font-weight="650" fill="{INK}">'
            f"{escape(name, quote=False)}{extra}</text>"
        )

    def tokens(self, x: float, y: float, count: int, cls: bool = True) -> Box:
        """Draw a row of tokens around the height y: the CLS token, if any, then patches."""
        side, pitch = 13, 16
        for index in range(count):
            fill, edge = KINDS["token" if cls and not index else "tensor"]
            self.rectangle(Box(x + pitch * index, y - side / 2, side, side), fill, edge, radius=2.5)
        self.text(x + pitch * count + 1, y + 4, "…", size=13)
        return Box(x, y - side / 2, pitch * count + 12, side)

    def svg(self) -> str:
        """The whole picture, with a legend of the kinds of block in it at the lower edge."""
        self._legend(kind for kind in KINDS if kind in self.kinds)
        body = "\n".join(self.parts)
        return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:g}" \
width="{WIDTH}" height="{self.height:g}" font-family="{FONT}" role="img" aria-label="{escape(self.title)}">
<defs><marker id="head" viewBox="0 0 8 8" refX="7.4" refY="4" markerWidth="8" markerHeight="8" orient="auto" \
markerUnits="userSpaceOnUse"><path d="M0 0.6 L8 4 L0 7.4 Z" fill="{INK}"/></marker></defs>
<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{self.height - 1:g}" rx="12" fill="#ffffff" stroke="#d0d7de"/>
{body}
</svg>
"""

    def _legend(self, kinds: Iterable[str]) -> None:
        x, y = 24.0, self.height - 22
        for kind in kinds:
            self.rectangle(Box(x, y - 11, 15, 14), *KINDS[kind], radius=3)
            self.text(x + 22, y + 0.5, kind, size=12, colour=FAINT)
            x += 46 + 7.3 * len(kind)

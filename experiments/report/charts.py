"""Charts as inline SVG. Positions across are percentages, so that a chart is as wide as its place."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from markupsafe import Markup, escape

from experiments.report.comparison import Comparison, ModelScores
from experiments.report.formatting import interval, number
from experiments.report.published import HONEST, OPTIMISTIC, published_scores
from mer.evaluation import scoring

HEIGHT = 26  # pixels of a chart's row
_DIAMOND = "M0,-5.5 5.5,0 0,5.5 -5.5,0Z"


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


def forest(comparison: Comparison) -> Chart:
    """UF1 with its interval: models with every seed and the optimistic mean, references, published scores."""
    papers = published_scores(comparison.protocol, comparison.split, comparison.clips)
    known = [(paper, paper.uf1) for paper in papers if paper.uf1 is not None]
    summaries = [*(model.summary for model in comparison.models), *comparison.reference_summaries.values()]
    scores = [summary[kind]["uf1"] for summary in summaries for kind in ("honest", "optimistic") if kind in summary]
    ends = [score[end] for score in scores for end in ("low", "mean", "high")]
    scale = Scale.over([*ends, *(uf1 for _, uf1 in known)])
    bars = []
    for model in comparison.models:
        honest, optimistic = model.summary["honest"]["uf1"], model.summary["optimistic"]["uf1"]
        seeds = [scoring.scores(table, comparison.classes)["uf1"] for table in model.tables]
        marks = [
            _whisker(scale, honest, "whisker"),
            *(_line(scale, uf1, 7, "seed") for uf1 in seeds if len(seeds) > 1),
            _at(scale, optimistic["mean"], '<circle class="optimistic" r="4.5"/>'),
            _at(scale, honest["mean"], '<circle class="honest" r="5"/>'),
        ]
        title = (
            f"{model.name}: honest UF1 {number(honest['mean'])}, interval {interval(honest)}, "
            f"optimistic {number(optimistic['mean'])}"
        )
        bars.append(Bar("model", model.name, number(honest["mean"]), _drawing(scale, marks, title)))
    for name, summary in comparison.reference_summaries.items():
        uf1 = summary["honest"]["uf1"]
        marks = [
            _whisker(scale, uf1, "whisker faint"),
            _at(scale, uf1["mean"], '<rect class="reference" x="-4" y="-4" width="8" height="8"/>'),
        ]
        bars.append(Bar("reference", name, number(uf1["mean"]), _drawing(scale, marks, f"{name}: {interval(uf1)}")))
    for paper, uf1 in known:
        look = {OPTIMISTIC: "diamond optimistic", HONEST: "diamond known"}.get(paper.epoch, "diamond")
        marks = [_at(scale, uf1, f'<path class="{look}" d="{_DIAMOND}"/>')]
        title = f"{paper.method}, published: epoch chosen {paper.epoch}"
        bars.append(Bar("published", paper.method, number(uf1), _drawing(scale, marks, title)))
    return Chart(bars, _axis(scale))


def strips(comparison: Comparison) -> Chart:
    """Every subject's share of right clips, a dot per subject."""
    scale = Scale(0, 1)
    bars = [_strip(model, comparison.databases, scale) for model in comparison.models]
    return Chart(bars, _axis(scale, percent=True))


def _strip(model: ModelScores, databases: Sequence[str], scale: Scale) -> Bar:
    hits: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for table in model.tables:
        right = (table["target"] == table["prediction"]).tolist()
        for dataset, subject, hit in zip(table["dataset"], table["subject"], right, strict=True):
            hits[dataset, subject].append(hit)
    stacks: dict[int, list[tuple[str, str]]] = defaultdict(list)  # of dots at about the same place
    shares = {who: sum(of_subject) / len(of_subject) for who, of_subject in hits.items()}
    for who in sorted(shares):
        stacks[round(shares[who] * 50)].append(who)
    tallest = max(map(len, stacks.values()))
    step = min(7.0, 84 / tallest)
    height = max(HEIGHT, math.ceil(tallest * step) + 12)
    marks = []
    for place in sorted(stacks):
        for index, (dataset, subject) in enumerate(stacks[place]):
            share, clips = shares[dataset, subject], len(hits[dataset, subject]) // len(model.tables)
            shift = (index - (len(stacks[place]) - 1) / 2) * step
            radius = min(2 + math.sqrt(clips) * 0.55, 5.5)
            colour = databases.index(dataset) % 4
            title = escape(f"{dataset} {subject}: {share:.0%} of {clips} clip{'' if clips == 1 else 's'}")
            dot = f'<circle class="subject c{colour}" cy="{shift:.1f}" r="{radius:.1f}"><title>{title}</title></circle>'
            marks.append(_at(scale, share, dot))
    middle = median(shares.values())
    marks.append(_line(scale, middle, height / 2 - 2, "median"))
    title = f"{model.name}: share of right clips of {len(shares)} subjects, median {middle:.0%}"
    return Bar("model", model.name, f"{middle:.0%}", _drawing(scale, marks, title, height))


def _drawing(scale: Scale, marks: Sequence[str], title: str, height: int = HEIGHT) -> Markup:
    """Marks around the middle line, over the grid."""
    grid = "".join(_line(scale, tick, height / 2, "grid") for tick in scale.ticks)
    return Markup(
        f'<svg class="track" height="{height}" role="img" aria-label="{escape(title)}">'
        f'<svg y="50%" overflow="visible">{grid}{"".join(marks)}</svg></svg>'
    )


def _axis(scale: Scale, percent: bool = False) -> Markup:
    texts = [
        f'<text x="{scale.place(tick)}" y="13">{f"{tick:.0%}" if percent else f"{tick:.1f}"}</text>'
        for tick in scale.ticks
    ]
    return Markup(f'<svg class="track axis" height="18" aria-hidden="true">{"".join(texts)}</svg>')


def _whisker(scale: Scale, score: dict, look: str) -> str:
    ends = [scale.place(score[end]) for end in ("low", "high")]
    caps = "".join(f'<line class="{look}" x1="{end}" x2="{end}" y1="-4" y2="4"/>' for end in ends)
    return f'<line class="{look}" x1="{ends[0]}" x2="{ends[1]}" y1="0" y2="0"/>{caps}'


def _line(scale: Scale, value: float, reach: float, look: str) -> str:
    x = scale.place(value)
    return f'<line class="{look}" x1="{x}" x2="{x}" y1="{-reach:g}" y2="{reach:g}"/>'


def _at(scale: Scale, value: float, mark: str) -> str:
    return f'<svg x="{scale.place(value)}" overflow="visible">{mark}</svg>'

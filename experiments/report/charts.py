"""The report's charts: scores with their intervals, and how the subjects fare."""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from markupsafe import escape

from experiments.report.axes import HEIGHT, Bar, Chart, Scale, at, axis, drawing, line, whisker
from experiments.report.comparison import Comparison, ModelScores
from experiments.report.formatting import interval, number
from experiments.report.published import HONEST, OPTIMISTIC, published_scores
from mer.evaluation import scoring

_DIAMOND = "M0,-5.5 5.5,0 0,5.5 -5.5,0Z"


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
            whisker(scale, honest, "whisker"),
            *(line(scale, uf1, 7, "seed") for uf1 in seeds if len(seeds) > 1),
            at(scale, optimistic["mean"], '<circle class="optimistic" r="4.5"/>'),
            at(scale, honest["mean"], '<circle class="honest" r="5"/>'),
        ]
        title = (
            f"{model.name}: honest UF1 {number(honest['mean'])}, interval {interval(honest)}, "
            f"optimistic {number(optimistic['mean'])}"
        )
        bars.append(Bar("model", model.name, number(honest["mean"]), drawing(scale, marks, title)))
    for name, summary in comparison.reference_summaries.items():
        uf1 = summary["honest"]["uf1"]
        marks = [
            whisker(scale, uf1, "whisker faint"),
            at(scale, uf1["mean"], '<rect class="reference" x="-4" y="-4" width="8" height="8"/>'),
        ]
        bars.append(Bar("reference", name, number(uf1["mean"]), drawing(scale, marks, f"{name}: {interval(uf1)}")))
    for paper, uf1 in known:
        look = {OPTIMISTIC: "diamond optimistic", HONEST: "diamond known"}.get(paper.epoch, "diamond")
        marks = [at(scale, uf1, f'<path class="{look}" d="{_DIAMOND}"/>')]
        title = f"{paper.method}, published: epoch chosen {paper.epoch}"
        bars.append(Bar("published", paper.method, number(uf1), drawing(scale, marks, title)))
    return Chart(bars, axis(scale))


def strips(comparison: Comparison) -> Chart:
    """Every subject's share of right clips, a dot per subject."""
    scale = Scale(0, 1)
    bars = [_strip(model, comparison.databases, scale) for model in comparison.models]
    return Chart(bars, axis(scale, percent=True))


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
            marks.append(at(scale, share, dot))
    middle = median(shares.values())
    marks.append(line(scale, middle, height / 2 - 2, "median"))
    title = f"{model.name}: share of right clips of {len(shares)} subjects, median {middle:.0%}"
    return Bar("model", model.name, f"{middle:.0%}", drawing(scale, marks, title, height))

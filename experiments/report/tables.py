"""The tables, as text: the same for the page, for Markdown and for a terminal."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from experiments.report.comparison import Comparison, ModelScores
from experiments.report.formatting import interval, number, p_value, signed, spread
from experiments.report.published import HONEST, OPTIMISTIC, Published, published_scores
from mer.evaluation import scoring

MODEL, REFERENCE, LITERATURE = "model", "reference", "published"
NO_OPTIONS = ("root", "cache", "workers", "accelerator", "devices")  # in a configuration, but no part of the recipe


@dataclass(frozen=True)
class Line:
    """A row of texts, and what it is about."""

    kind: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        key: Unique on the page.
        title: What it shows.
        header: Names of the columns.
        lines: Its rows.
        note: How to read it.
        texts: Columns that hold words; the others hold numbers.
    """

    key: str
    title: str
    header: tuple[str, ...]
    lines: tuple[Line, ...]
    note: str = ""
    texts: tuple[int, ...] = (0,)

    def markdown(self) -> list[str]:
        """Lines of a Markdown table."""
        rule = tuple("---" if column in self.texts else "---:" for column in range(len(self.header)))
        rows = [self.header, rule, *(line.texts for line in self.lines)]
        return ["| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows] + [""]


def recipes(comparison: Comparison) -> Table | None:
    """The options in which recipes of one model differ; None if no model has two."""
    names = [model.cell.model for model in comparison.models]
    if len(set(names)) == len(names):
        return None
    lines = []
    for name in dict.fromkeys(names):
        options = {
            model.name: dict(_flat(model.cell.config())) for model in comparison.models if model.cell.model == name
        }
        for option in sorted(set().union(*options.values())):
            values = {recipe: of_recipe.get(option, "") for recipe, of_recipe in options.items()}
            if len(set(values.values())) > 1:
                lines += [Line(MODEL, (recipe, option, value)) for recipe, value in values.items()]
    return Table(
        f"{comparison.key}-recipes",
        "What differs between recipes",
        ("model", "option", "value"),
        tuple(lines),
        "Recipes of one model whose options are all alike differ in their data or in a revision of the code.",
        (0, 1, 2),
    )


def literature(comparison: Comparison) -> Table:
    """Published scores of the same protocol; of its databases, where only some of them are here."""
    papers = published_scores(comparison.protocol, comparison.split, comparison.clips)
    whole = all(paper.uf1 is not None or paper.accuracy is not None for paper in papers)
    parts = [] if whole else list(papers[0].parts)
    names = ["UF1", "UAR", "accuracy"] if whole else [f"{part} {score}" for part in parts for score in ("UF1", "UAR")]
    lines = []
    for paper in papers:
        of_parts = [score for part in parts for score in paper.parts[part]]
        scores = map(number, of_parts or (paper.uf1, paper.uar, paper.accuracy))
        source = paper.source + (f"; {paper.remark}" if paper.remark else "")
        lines.append(Line(LITERATURE, (paper.method, *scores, paper.epoch, source)))
    note = (
        "Scores whose epoch was chosen on the held-out subject are optimistic: compare them with the optimistic column "
        "alone. Not recomputed here."
    )
    if not whole:
        note += f" Parts of a run over all databases of {comparison.protocol}, which had more clips to train on."
    header = ("method", *names, "epoch chosen", "source")
    key = f"{comparison.key}-published"
    return Table(
        key, "Published under the same protocol", header, tuple(lines), note, (0, len(header) - 2, len(header) - 1)
    )


def databases(comparison: Comparison) -> Table | None:
    """UF1 and UAR of each database, from the same predictions; None if there is but one."""
    names = comparison.databases
    if len(names) < 2:
        return None
    header = ("model", *(f"{name} {score}" for name in names for score in ("UF1", "interval", "UAR")))
    lines = [
        Line(kind, (name, *_by_database(summary["parts"], names))) for kind, name, summary in _summaries(comparison)
    ]
    papers = published_scores(comparison.protocol, comparison.split, comparison.clips)
    for paper in papers:
        if paper.parts:
            scores = (paper.parts.get(name, (None, None)) for name in names)
            texts = (text for uf1, uar in scores for text in (number(uf1), "", number(uar)))
            lines.append(Line(LITERATURE, (_marked(paper), *texts)))
    notes, absences = [], []
    for name in names:
        clips = comparison.clips[comparison.clips["dataset"] == name]
        notes.append(f"{name}: {len(clips)} clips, {clips['subject'].nunique()} subjects")
        if absent := [label for label in comparison.classes if label not in set(clips["target"])]:
            absences.append(f"{name} has no clip of {', '.join(absent)}, which count 0 there")
    whole = [f"Published scores are parts of runs over all databases of {comparison.protocol}"] if papers else []
    note = ". ".join(["; ".join(notes), *absences, *whole]) + "."
    return Table(f"{comparison.key}-databases", "By database", header, tuple(lines), note)


def classes(comparison: Comparison) -> Table:
    """F1 and recall of each class."""
    header = ("model", *(f"{name} {score}" for name in comparison.classes for score in ("F1", "recall")))
    lines = []
    for kind, name, summary in _summaries(comparison):
        texts = [spread(scores[score]) for scores in summary["classes"].values() for score in ("f1", "recall")]
        lines.append(Line(kind, (name, *texts)))
    counts = comparison.clips["target"].value_counts()
    note = ", ".join(f"{name} {counts.get(name, 0)}" for name in comparison.classes)
    return Table(f"{comparison.key}-classes", "By class", header, tuple(lines), f"Clips: {note}.")


def paired_tests(comparison: Comparison) -> Table:
    """Paired permutation tests."""
    lines = []
    for test in comparison.tests:
        counts = map(str, (test.subjects, test.clips, test.seeds))
        ends = f"{signed(test.low)} .. {signed(test.high)}"
        p_values = map(p_value, (test.p, test.corrected))
        lines.append(Line(MODEL, (test.first, test.second, *counts, signed(test.difference), ends, *p_values)))
    return Table(
        f"{comparison.key}-comparisons",
        "Is the difference more than chance?",
        ("model", "against", "subjects", "clips", "seeds", "UF1 difference", "95 % interval", "p", "p (Holm)"),
        tuple(lines),
        "Paired permutation test over subjects: all of a subject's predictions, of all seeds at once, are exchanged "
        "between the two models; the score is the mean UF1 over the seeds; two-sided, 9,999 exchanges (every one where "
        "there are fewer). Holm's correction covers the whole table. The interval is a bootstrap over the same "
        "subjects for both models, and is not corrected.",
        (0, 1),
    )


def optimism(comparison: Comparison) -> Table:
    """Honest against optimistic scores."""
    lines = []
    for model in comparison.models:
        texts = []
        for score in scoring.SCORES:
            honest, optimistic = (model.summary[kind][score]["mean"] for kind in ("honest", "optimistic"))
            texts += [number(honest), number(optimistic), signed(optimistic - honest)]
        lines.append(Line(MODEL, (model.name, *texts)))
    names = ("UF1", "UAR", "accuracy")
    return Table(
        f"{comparison.key}-optimism",
        "Honest against optimistic",
        ("model", *(text for name in names for text in (f"honest {name}", f"optimistic {name}", "gap"))),
        tuple(lines),
        "Optimistic: each fold keeps the epoch that did best on its own held-out subject. The gap is what that choice "
        "alone is worth; it ranks nothing.",
    )


def costs(comparison: Comparison) -> Table:
    """Seconds and memory of the folds."""
    lines = []
    for model in comparison.models:
        facts = {name: [of_fold[name] for of_fold in model.facts if name in of_fold]
                 for name in ("seconds", "peak_memory_mb", "device")}  # fmt: skip
        if seconds := facts["seconds"]:
            times = (f"{median(seconds):.1f}", f"{max(seconds):.1f}", f"{sum(seconds) / 3600:.2f}")
            peak = f"{max(facts['peak_memory_mb']):,}" if facts["peak_memory_mb"] else ""
            devices = ", ".join(sorted(set(facts["device"])))
            lines.append(Line(MODEL, (model.name, str(len(seconds)), *times, peak, devices)))
    return Table(
        f"{comparison.key}-costs",
        "Seconds and memory per fold",
        ("model", "folds", "median s", "longest s", "all, hours", "peak MB", "device"),
        tuple(lines),
        "As measured while training, next to whatever else ran on the machine: never a benchmark.",
        (0, 6),
    )


def confusion(model: ModelScores) -> Table:
    """True classes against predicted ones, counted over all seeds."""
    cell = model.cell
    matrix = sum(scoring.confusion(table, cell.classes) for table in model.tables)
    lines = [Line(MODEL, (name, *map(str, row))) for name, row in zip(cell.classes, matrix.tolist(), strict=True)]
    key = f"{cell.dataset}-{cell.protocol}-{cell.split}-confusion-{cell.model}-{cell.digest}"
    return Table(key, model.name, ("true \\ predicted", *cell.classes), tuple(lines))


def _summaries(comparison: Comparison) -> Iterator[tuple[str, str, dict]]:
    """Kind, name and scores of the models, then of the references."""
    for model in comparison.models:
        yield MODEL, model.name, model.summary
    for name, summary in comparison.reference_summaries.items():
        yield REFERENCE, name, summary


def _marked(paper: Published) -> str:
    """A published method with how its epoch was chosen, where that is not beyond doubt."""
    return paper.method + {OPTIMISTIC: " (optimistic)", HONEST: ""}.get(paper.epoch, " (not stated)")


def _by_database(parts: dict[str, dict], names: Sequence[str]) -> list[str]:
    texts = []
    for name in names:
        scores = parts[name]["honest"] if name in parts else None
        texts += [spread(scores["uf1"]), interval(scores["uf1"]), spread(scores["uar"])] if scores else [""] * 3
    return texts


def _flat(options: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Options as ``model.lr``, with the text of their values."""
    if isinstance(options, dict) and options:
        for name, value in options.items():
            if name not in NO_OPTIONS:
                step = "" if name == "init_args" else f".{name}" if prefix else str(name)
                yield from _flat(value, prefix + step)
    else:
        yield prefix, str(options)

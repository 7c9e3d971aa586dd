"""The tables, as text: the same for the page, for Markdown and for a terminal."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from experiments.report.boards import Board, Row
from experiments.report.figures import interval, number, p_value, signed, spread
from experiments.report.published import HONEST, OPTIMISTIC, Published, published
from mer.evaluation import scoring

MODEL, REFERENCE, LITERATURE = "model", "reference", "published"


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


def leaderboard(board: Board) -> Table:
    """Models, then references; honest scores rank."""
    header = (
        "model", "seeds", "folds", "UF1", "95 % interval", "UAR", "UAR interval", "accuracy", "accuracy interval",
        "seeds together, UF1", "optimistic UF1",
    )  # fmt: skip
    lines = [Line(MODEL, _scores(row)) for row in board.rows]
    for name, summary in board.reference_summaries.items():
        honest, clips = summary["honest"], len(board.references[name])
        label = name if clips == len(board.clips) else f"{name} ({clips} of {len(board.clips)} clips)"
        lines.append(Line(REFERENCE, (label, "", "", *_three(honest), "", "")))
    unfinished = [row.name for row in board.rows if not row.complete]
    note = f"Not finished, so last and not ranked: {', '.join(unfinished)}." if unfinished else ""
    if board.unlike:
        note += f" Not on the clips of the first, so not comparable here: {', '.join(board.unlike)}; "
        note += "the tests below are on the clips in common."
    return Table(f"{board.key}-leaderboard", "Leaderboard", header, tuple(lines), note.strip())


def literature(board: Board) -> Table | None:
    """Published scores of the same protocol."""
    found = published(board.protocol, board.split, board.clips)
    if not found:
        return None
    lines = [
        Line(LITERATURE, (one.method, number(one.uf1), number(one.uar), number(one.accuracy), one.epoch, _source(one)))
        for one in found
    ]
    return Table(
        f"{board.key}-published",
        "Published under the same protocol",
        ("method", "UF1", "UAR", "accuracy", "epoch chosen", "source"),
        tuple(lines),
        "Scores whose epoch was chosen on the held-out subject are optimistic: compare them with the optimistic column "
        "alone. Not recomputed here.",
        (0, 4, 5),
    )


def databases(board: Board) -> Table | None:
    """UF1 and UAR of each database, from the same predictions."""
    names = board.databases
    if len(names) < 2:
        return None
    header = ("model", *(f"{name} {score}" for name in names for score in ("UF1", "interval", "UAR")))
    lines = [Line(MODEL, (row.name, *_parts(row.summary["parts"], names))) for row in board.rows]
    for name, summary in board.reference_summaries.items():
        lines.append(Line(REFERENCE, (name, *_parts(summary["parts"], names))))
    for one in published(board.protocol, board.split, board.clips):
        if one.parts:
            texts = [text for name in names for text in (number(one.parts[name][0]), "", number(one.parts[name][1]))]
            lines.append(Line(LITERATURE, (marked(one), *texts)))
    counts = {name: board.clips[board.clips["dataset"] == name] for name in names}
    note = "; ".join(
        f"{name}: {len(rows)} clips, {rows['subject'].nunique()} subjects" for name, rows in counts.items()
    )
    lacking = [
        f"{name} has no clip of {', '.join(absent)}, which count 0 there"
        for name, rows in counts.items()
        if (absent := [one for one in board.classes if one not in set(rows["target"])])
    ]
    return Table(f"{board.key}-databases", "By database", header, tuple(lines), ". ".join([note, *lacking]) + ".")


def classes(board: Board) -> Table:
    """F1 and recall of each class."""
    header = ("model", *(f"{name} {score}" for name in board.classes for score in ("F1", "recall")))
    summaries = [(MODEL, row.name, row.summary) for row in board.rows]
    summaries += [(REFERENCE, name, summary) for name, summary in board.reference_summaries.items()]
    lines = [
        Line(
            kind,
            (
                name,
                *(spread(of[one][score]) for of in [summary["classes"]] for one in of for score in ("f1", "recall")),
            ),
        )
        for kind, name, summary in summaries
    ]
    counts = board.clips["target"].value_counts()
    note = ", ".join(f"{name} {counts.get(name, 0)}" for name in board.classes)
    return Table(f"{board.key}-classes", "By class", header, tuple(lines), f"Clips: {note}.")


def comparisons(board: Board) -> Table:
    """Paired permutation tests."""
    lines = [
        Line(
            MODEL,
            (
                each.first, each.second, str(each.subjects), str(each.clips), str(each.seeds),
                signed(each.difference), f"{signed(each.low)} .. {signed(each.high)}", p_value(each.p),
                p_value(each.corrected),
            ),
        )
        for each in board.comparisons
    ]  # fmt: skip
    return Table(
        f"{board.key}-comparisons",
        "Is the difference more than chance?",
        ("model", "against", "subjects", "clips", "seeds", "UF1 difference", "95 % interval", "p", "p (Holm)"),
        tuple(lines),
        "Paired permutation test over subjects: all of a subject's predictions, of all seeds at once, are exchanged "
        "between the two models; the score is the mean UF1 over the seeds; two-sided, 9,999 exchanges (every one where "
        "there are fewer). Holm's correction covers the whole table. The interval is a bootstrap over the same "
        "subjects for both models, and is not corrected.",
        (0, 1),
    )


def optimism(board: Board) -> Table:
    """Honest against optimistic scores."""
    lines = []
    for row in board.rows:
        honest, optimistic = row.summary["honest"], row.summary["optimistic"]
        texts = [
            text
            for score in scoring.SCORES
            for text in (
                number(honest[score]["mean"]),
                number(optimistic[score]["mean"]),
                signed(optimistic[score]["mean"] - honest[score]["mean"]),
            )
        ]
        lines.append(Line(MODEL, (row.name, *texts)))
    names = ("UF1", "UAR", "accuracy")
    return Table(
        f"{board.key}-optimism",
        "Honest against optimistic",
        ("model", *(text for name in names for text in (f"honest {name}", f"optimistic {name}", "gap"))),
        tuple(lines),
        "Optimistic: each fold keeps the epoch that did best on its own held-out subject. The gap is what that choice "
        "alone is worth; it ranks nothing.",
    )


def costs(board: Board) -> Table:
    """Seconds and memory of the folds."""
    lines = []
    for row in board.rows:
        seconds = [facts["seconds"] for facts in row.facts if "seconds" in facts]
        memory = [facts["peak_memory_mb"] for facts in row.facts if "peak_memory_mb" in facts]
        devices = sorted({str(facts["device"]) for facts in row.facts if "device" in facts})
        if seconds:
            times = (f"{median(seconds):.1f}", f"{max(seconds):.1f}", f"{sum(seconds) / 3600:.2f}")
            peak = f"{max(memory):,}" if memory else ""
            lines.append(Line(MODEL, (row.name, str(len(seconds)), *times, peak, ", ".join(devices))))
    return Table(
        f"{board.key}-costs",
        "Seconds and memory per fold",
        ("model", "folds", "median s", "longest s", "all, hours", "peak MB", "device"),
        tuple(lines),
        "As measured while training, next to whatever else ran on the machine: never a benchmark.",
        (0, 6),
    )


def confusion(row: Row) -> Table:
    """True classes against predicted ones, counted over all seeds."""
    matrix = sum(scoring.confusion(table, row.cell.classes) for table in row.tables)
    lines = [
        Line(MODEL, (name, *(str(count) for count in counts)))
        for name, counts in zip(row.cell.classes, matrix.tolist(), strict=True)
    ]
    key = f"{row.cell.dataset}-{row.cell.protocol}-{row.cell.split}-confusion-{row.cell.model}-{row.cell.digest}"
    return Table(key, row.name, ("true \\ predicted", *row.cell.classes), tuple(lines))


def marked(one: Published) -> str:
    """A published method with how its epoch was chosen, where that is not beyond doubt."""
    return one.method + {OPTIMISTIC: " (optimistic)", HONEST: ""}.get(one.epoch, " (not stated)")


def _scores(row: Row) -> tuple[str, ...]:
    folds = f"{row.done} / {row.total}"
    optimistic = spread(row.summary["optimistic"]["uf1"])
    together = "" if row.ensemble is None else number(scoring.scores(row.ensemble, row.cell.classes)["uf1"])
    return (row.name, str(len(row.tables)), folds, *_three(row.summary["honest"]), together, optimistic)


def _three(figures: dict[str, dict]) -> tuple[str, ...]:
    return tuple(text for name in scoring.SCORES for text in (spread(figures[name]), interval(figures[name])))


def _parts(parts: dict[str, dict], names: Sequence[str]) -> list[str]:
    texts = []
    for name in names:
        honest = parts[name]["honest"] if name in parts else None
        texts += [spread(honest["uf1"]), interval(honest["uf1"]), spread(honest["uar"])] if honest else [""] * 3
    return texts


def _source(one: Published) -> str:
    return one.source + (f"; {one.remark}" if one.remark else "")

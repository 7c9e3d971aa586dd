"""``report/index.html``, which needs nothing but itself, and ``report/report.md`` beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from data_modules.cache.store import write_text
from experiments.report import charts, surest_clips, tables
from experiments.report.comparison import Comparison
from experiments.report.conclusions import Conclusion, conclusions
from experiments.report.formatting import interval, number, p_value, signed
from experiments.report.kept_maps import THIRDS, MeanMaps, mean_maps, thirds
from experiments.report.tables import MODEL, Line, Table
from mer import __version__

NOTE = (
    "UF1 is the mean of the classes' F1, UAR of their recalls, each computed once from the predictions of all folds: "
    "means ± standard deviations over seeds, 95 % bootstrap intervals over subjects. Honest scores have their steps "
    "fixed beforehand and rank; optimistic ones pick each fold's epoch on its own held-out subject and rank nothing. "
    "Seeds together: the probabilities of all seeds, averaged for every clip; as honest, and another method."
)
REFERENCES = (
    "Majority class: always the most frequent class of the training clips. Action units, looked up: the class that "
    "most training clips with the same human action-unit code have (the most similar code where none has it), the "
    "subject left out; about what a perfect reader of the muscles would reach: a score far above it asks for an audit."
)


@dataclass(frozen=True)
class Section:
    """A comparison with all that the page shows of it."""

    comparison: Comparison
    cache: Path | None

    @cached_property
    def means(self) -> dict[str, MeanMaps]:
        means = {model.name: mean_maps(model) for model in self.comparison.models}
        return {name: maps for name, maps in means.items() if maps is not None}

    @cached_property
    def conclusions(self) -> list[Conclusion]:
        return conclusions(self.comparison, self.means)

    @cached_property
    def tables(self) -> dict[str, Table]:
        """The tables that have a line, by name."""
        all_tables = {
            "leaderboard": tables.leaderboard(self.comparison),
            "recipes": tables.recipes(self.comparison),
            "published": tables.literature(self.comparison),
            "comparisons": tables.paired_tests(self.comparison),
            "databases": tables.databases(self.comparison),
            "classes": tables.classes(self.comparison),
            "optimism": tables.optimism(self.comparison),
            "attention": self._thirds(),
            "costs": tables.costs(self.comparison),
        }
        return {name: table for name, table in all_tables.items() if table is not None and table.lines}

    @cached_property
    def confusions(self) -> list[tuple[Table, list[list[float]]]]:
        """A table per model, and every count as a share of its true class."""
        return [(table, _shares(table)) for table in map(tables.confusion, self.comparison.models)]

    @cached_property
    def forest(self) -> charts.Chart:
        return charts.forest(self.comparison)

    @cached_property
    def strips(self) -> charts.Chart:
        return charts.strips(self.comparison)

    @cached_property
    def mean_maps(self) -> dict[str, list[dict[str, str]]]:
        return {name: surest_clips.draw_mean_maps(maps) for name, maps in self.means.items()}

    @cached_property
    def gallery(self) -> surest_clips.Gallery | None:
        return surest_clips.gallery(self.comparison, self.cache)

    @property
    def counts(self) -> str:
        """How many clips, subjects and classes."""
        clips = self.comparison.clips
        subjects = len(clips.drop_duplicates(["dataset", "subject"]))
        return f"{len(clips):,} clips, {subjects} subjects, {len(self.comparison.classes)} classes"

    def _thirds(self) -> Table:
        lines = []
        for name, maps in self.means.items():
            for label, share in maps.attention.items():
                motion = map(number, thirds(maps.motion[label])) if label in maps.motion else [""] * 3
                lines.append(Line(MODEL, (name, label, *map(number, thirds(share)), *motion)))
        return Table(
            f"{self.comparison.key}-attention",
            "Where attention lies, and where the face moves",
            ("model", "true class", *(f"{what}, {place}" for what in ("attention", "motion") for place in THIRDS)),
            tuple(lines),
            "Shares of the thirds of the crop, which hold brows and eyes, nose and cheeks, mouth and chin; every clip "
            "counts the same, all seeds. Motion is the length of the flow.",
            (0, 1),
        )


def write(comparisons: Sequence[Comparison], left_out: Sequence[str], results: Path, cache: Path | None) -> Path:
    """Write both.

    Args:
        comparisons: What there is to show; with none, the page says so.
        left_out: Files that are no results, and why; the page gives only their number, as paths are this machine's.
        results: The results folder.
        cache: Where the faces of the gallery are; None leaves them out.

    Returns:
        The page.
    """
    sections = [Section(comparison, cache) for comparison in comparisons]
    note = f"{len(left_out)} damaged file(s) are left out; `mer status` names them." if left_out else ""
    for name, text in {"report.md": markdown(sections, note), "index.html": html(sections, note)}.items():
        write_text(results / "report" / name, text.encode("utf-8", "backslashreplace").decode())
    return results / "report/index.html"


def html(sections: Sequence[Section], left_out: str = "") -> str:
    """The page; every text in it is escaped."""
    environment = Environment(
        loader=PackageLoader("experiments.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("index.html").render(
        sections=sections,
        overview=_overview(sections),
        note=NOTE,
        left_out=left_out,
        references=REFERENCES,
        version=__version__,
    )


def markdown(sections: Sequence[Section], left_out: str = "") -> str:
    """The same conclusions and tables, without charts and pictures."""
    lines = ["# Micro-expression recognition, leaving subjects out", "", NOTE, "", REFERENCES, ""]
    lines += [left_out, ""] if left_out else []
    if not sections:
        lines += ["No fold is done yet.", ""]
    if overview := _overview(sections):
        lines += [f"## {overview.title}", "", *overview.markdown()]
    for section in sections:
        lines += [f"## {section.comparison.title}", "", f"{section.counts}.", ""]
        lines += [f"- {item.question} **{item.answer}** {item.detail}" for item in section.conclusions] + [""]
        for name, table in section.tables.items():
            lines += [f"### {table.title}", "", *table.markdown()]
            lines += [table.note, ""] if table.note else []
            if name == "classes":
                for matrix, _ in section.confusions:
                    lines += [f"Confusion of {matrix.title}, a row per true class, all seeds:", "", *matrix.markdown()]
    return "\n".join(lines)


def _overview(sections: Sequence[Section]) -> Table | None:
    """The best model of every comparison, where there are several."""
    if len(sections) < 2:
        return None
    lines = []
    for comparison in (section.comparison for section in sections):
        best, margin = comparison.models[0], ("", "", "")
        test = comparison.test(best.name, comparison.next.name) if comparison.next else None
        if test:
            margin = (test.second, signed(test.difference), p_value(test.corrected))
        uf1 = best.summary["honest"]["uf1"]
        lines.append(Line(MODEL, (comparison.title, best.name, number(uf1["mean"]), interval(uf1), *margin)))
    return Table(
        "overview",
        "Every dataset, protocol and split",
        ("data", "best model", "UF1", "95 % interval", "next", "difference", "p (Holm)"),
        tuple(lines),
        texts=(0, 1, 4),
    )


def _shares(table: Table) -> list[list[float]]:
    counts = [[int(text) for text in line.texts[1:]] for line in table.lines]
    return [[count / max(sum(row), 1) for count in row] for row in counts]

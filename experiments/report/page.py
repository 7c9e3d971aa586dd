"""``report/index.html``, which needs nothing but itself, and ``report/report.md`` beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from data_modules.cache.store import write_text
from experiments.report import charts, maps, pictures, tables
from experiments.report.answers import Answer, answers
from experiments.report.boards import Board
from experiments.report.figures import interval, number, p_value, signed
from experiments.report.recipes import recipes
from experiments.report.tables import Line, Table
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
    """A board with all that the page shows of it."""

    board: Board
    cache: Path | None

    @cached_property
    def means(self) -> dict[str, maps.Mean]:
        found = {row.name: maps.mean(row) for row in self.board.rows}
        return {name: mean for name, mean in found.items() if mean is not None}

    @cached_property
    def answers(self) -> list[Answer]:
        return answers(self.board, self.means)

    @cached_property
    def tables(self) -> dict[str, Table]:
        made = {
            "leaderboard": tables.leaderboard(self.board),
            "recipes": recipes(self.board),
            "published": tables.literature(self.board),
            "comparisons": tables.comparisons(self.board),
            "databases": tables.databases(self.board),
            "classes": tables.classes(self.board),
            "optimism": tables.optimism(self.board),
            "attention": self._thirds(),
            "costs": tables.costs(self.board),
        }
        return {name: table for name, table in made.items() if table is not None and table.lines}

    @cached_property
    def confusions(self) -> list[tuple[Table, list[list[float]]]]:
        """A table per model, and each count as a share of its true class."""
        return [(table, _shares(table)) for table in map(tables.confusion, self.board.rows)]

    @cached_property
    def forest(self) -> charts.Chart:
        return charts.forest(self.board)

    @cached_property
    def strips(self) -> charts.Chart:
        return charts.strips(self.board)

    @cached_property
    def mean_maps(self) -> dict[str, list[dict]]:
        return {name: pictures.mean_maps(mean) for name, mean in self.means.items()}

    @cached_property
    def gallery(self) -> pictures.Gallery | None:
        return pictures.gallery(self.board, self.cache)

    @property
    def counts(self) -> str:
        """How much of what there is."""
        clips = self.board.clips
        subjects = len(clips.drop_duplicates(["dataset", "subject"]))
        return f"{len(clips):,} clips, {subjects} subjects, {len(self.board.classes)} classes"

    def _thirds(self) -> Table | None:
        lines = []
        for name, mean in self.means.items():
            for one, share in mean.attention.items():
                moved = map(number, maps.thirds(mean.motion[one])) if one in mean.motion else [""] * 3
                lines.append(Line("model", (name, one, *map(number, maps.thirds(share)), *moved)))
        return Table(
            f"{self.board.key}-attention",
            "Where attention lies, and where the face moves",
            ("model", "true class", *(f"{what}, {place}" for what in ("attention", "motion") for place in maps.THIRDS)),
            tuple(lines),
            "Shares of the thirds of the crop, which hold brows and eyes, nose and cheeks, mouth and chin; every clip "
            "counts the same, all seeds. Motion is the length of the flow.",
            (0, 1),
        )


def write(boards: Sequence[Board], left_out: Sequence[str], results: Path, cache: Path | None) -> Path:
    """Write both.

    Args:
        boards: What there is to show; with none, the page says so.
        left_out: Files that are no results, and why; only their number is told, as their paths are this machine's.
        results: The results folder.
        cache: Where the faces of the gallery are; None leaves them out.

    Returns:
        The page.
    """
    sections = [Section(board, cache) for board in boards]
    told = f"{len(left_out)} damaged file(s) are left out; `mer status` names them." if left_out else ""
    texts = {"report.md": markdown(sections, told), "index.html": html(sections, told)}
    for name, text in texts.items():
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
    """The same answers and tables, without charts and pictures."""
    lines = ["# Micro-expression recognition, leaving subjects out", "", NOTE, "", REFERENCES, ""]
    lines += [left_out, ""] if left_out else []
    if not sections:
        lines += ["No fold is done yet.", ""]
    if overview := _overview(sections):
        lines += [f"## {overview.title}", "", *overview.markdown()]
    for section in sections:
        lines += [f"## {section.board.title}", "", f"{section.counts}.", ""]
        lines += [f"- {each.question} **{each.headline}** {each.detail}" for each in section.answers] + [""]
        for name, table in section.tables.items():
            lines += [f"### {table.title}", "", *table.markdown()]
            lines += [table.note, ""] if table.note else []
            if name == "classes":
                for matrix, _ in section.confusions:
                    lines += [f"Confusion of {matrix.title}, a row per true class, all seeds:", "", *matrix.markdown()]
    return "\n".join(lines)


def _overview(sections: Sequence[Section]) -> Table | None:
    """The first of every board, where there are several."""
    if len(sections) < 2:
        return None
    lines = []
    for section in sections:
        best, margin = section.board.rows[0], _margin(section.board)
        uf1 = best.summary["honest"]["uf1"]
        lines.append(Line("model", (section.board.title, best.name, number(uf1["mean"]), interval(uf1), *margin)))
    return Table(
        "overview",
        "Every dataset, protocol and split",
        ("data", "best model", "UF1", "95 % interval", "next", "difference", "p (Holm)"),
        tuple(lines),
        texts=(0, 1, 4),
    )


def _margin(board: Board) -> tuple[str, str, str]:
    compared = board.compared(board.rows[0], board.next) if board.next else None
    if compared is None:
        return ("", "", "")
    return (compared.second, signed(compared.difference), p_value(compared.corrected))


def _shares(table: Table) -> list[list[float]]:
    counts = [[int(text) for text in line.texts[1:]] for line in table.lines]
    return [[count / max(sum(row), 1) for count in row] for row in counts]

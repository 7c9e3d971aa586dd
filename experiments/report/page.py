"""``report/index.html``, which needs nothing but itself; beside it ``report.md``, ``leaderboard.md`` and the data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.report import charts, data_files, html, surest_clips, tables
from experiments.report.comparison import Comparison
from experiments.report.conclusions import conclusions
from experiments.report.formatting import interval, number, p_value, signed
from experiments.report.kept_maps import THIRDS, MeanMaps, mean_maps, thirds
from experiments.report.leaderboard import leaderboard
from experiments.report.tables import MODEL, Line, Table

NOTE = (
    "UF1 is the mean of the classes' F1, UAR of their recalls, each computed once from the predictions of all folds: "
    "means ± standard deviations over seeds, 95 % bootstrap intervals over subjects. Honest scores have their steps "
    "fixed beforehand and rank; optimistic ones pick each fold's epoch on its own held-out subject and rank nothing. "
    "Seeds together: the probabilities of all seeds, averaged for every clip; as honest, and another method."
)
REFERENCES = (
    "Majority class: always the most frequent class of the training clips. Support vectors and nearest class mean: "
    "classic classifiers of the flow map averaged to 7 by 7 cells, fitted to the training clips of every fold, with "
    "their library's defaults; a network has to be above them to be worth its steps. Action units, looked up: the "
    "class that most training clips with the same human action-unit code have (the most similar code where none has "
    "it), the subject left out; about what a perfect reader of the muscles would reach: a score far above it asks for "
    "an audit."
)
SETTINGS = (
    "Settings: the recipe as a model's folds were trained with it. Tuned here: its values were chosen by scores of "
    "subjects of these databases, so its honest score is still too high by what that choice is worth; nothing within "
    "the table can undo it. Searched: chosen for each group of subjects by scores of the others, from candidates whose "
    "range may have been tuned here. By hand: options that a command line gave on top. "
    "P-values: paired permutation tests over subjects, with Holm's correction for all tests of the comparison."
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
    content = {
        "note": NOTE,
        "references": REFERENCES,
        "settings": SETTINGS,
        "left_out": f"{len(left_out)} damaged file(s) are left out; `mer status` names them." if left_out else "",
        "overview": _overview(comparisons) if len(comparisons) > 1 else None,
        "sections": [_section(comparison, cache) for comparison in comparisons],
    }
    folder = results / "report"
    html.write(folder / "report.md", markdown(**content))
    html.write(folder / "leaderboard.md", leaderboard_markdown(content["sections"]))
    for section in content["sections"]:
        for name, text in section["files"].items():
            html.write(folder / "data" / name, text)
    html.write(folder / "index.html", html.render("index.html", **content))
    return folder / "index.html"


def leaderboard_markdown(sections: Sequence[dict]) -> str:
    """The leaderboards, and what has been published beside them."""
    lines = ["# Leaderboard", "", NOTE, "", SETTINGS, "", REFERENCES, ""]
    for section in sections:
        lines += [f"## {section['comparison'].title}", "", f"{section['counts']}.", ""]
        for name in ("leaderboard", "databases", "published"):
            if table := section["tables"].get(name):
                lines += _with_title(table)
    return "\n".join(lines)


def markdown(
    note: str, references: str, settings: str, left_out: str, overview: Table | None, sections: Sequence[dict]
) -> str:
    """The same conclusions and tables, without charts and pictures."""
    lines = ["# Micro-expression recognition, leaving subjects out", "", note, "", settings, "", references, ""]
    lines += [left_out, ""] if left_out else []
    lines += [] if sections else ["No fold is done yet.", ""]
    if overview:
        lines += [f"## {overview.title}", "", *overview.markdown()]
    for section in sections:
        lines += [f"## {section['comparison'].title}", "", f"{section['counts']}.", ""]
        lines += [f"- {item.question} **{item.answer}** {item.detail}" for item in section["conclusions"]] + [""]
        for name, table in section["tables"].items():
            lines += _with_title(table)
            if name == "classes":
                for matrix, _ in section["confusions"]:
                    lines += [f"Confusion of {matrix.title}, a row per true class, all seeds:", "", *matrix.markdown()]
    return "\n".join(lines)


def _with_title(table: Table) -> list[str]:
    return [f"### {table.title}", "", *table.markdown(), *([table.note, ""] if table.note else [])]


def _section(comparison: Comparison, cache: Path | None) -> dict[str, Any]:
    """A comparison with all that the page shows of it."""
    subjects = len(comparison.clips.drop_duplicates(["dataset", "subject"]))
    means = {model.name: maps for model in comparison.models if (maps := mean_maps(model))}
    confusions = map(tables.confusion, comparison.models)
    shown = {
        "leaderboard": leaderboard(comparison),
        "recipes": tables.recipes(comparison),
        "published": tables.literature(comparison),
        "comparisons": tables.paired_tests(comparison),
        "databases": tables.databases(comparison),
        "classes": tables.classes(comparison),
        "optimism": tables.optimism(comparison),
        "attention": _thirds(comparison, means),
        "costs": tables.costs(comparison),
    }
    return {
        "comparison": comparison,
        "cache": cache,
        "counts": f"{len(comparison.clips):,} clips, {subjects} subjects, {len(comparison.classes)} classes",
        "conclusions": conclusions(comparison, means),
        "tables": {name: table for name, table in shown.items() if table and table.lines},
        "confusions": [(table, _shares(table)) for table in confusions],
        "files": data_files.files(comparison),
        "forest": charts.forest(comparison),
        "strips": charts.strips(comparison),
        "mean_maps": {name: surest_clips.draw_mean_maps(maps) for name, maps in means.items()},
        "gallery": surest_clips.gallery(comparison, cache),
    }


def _thirds(comparison: Comparison, means: dict[str, MeanMaps]) -> Table:
    lines = []
    for name, maps in means.items():
        for label, share in maps.attention.items():
            motion = map(number, thirds(maps.motion[label])) if label in maps.motion else [""] * 3
            lines.append(Line(MODEL, (name, label, *map(number, thirds(share)), *motion)))
    return Table(
        f"{comparison.key}-attention",
        "Where attention lies, and where the face moves",
        ("model", "true class", *(f"{what}, {place}" for what in ("attention", "motion") for place in THIRDS)),
        tuple(lines),
        "Shares of the thirds of the crop, which hold brows and eyes, nose and cheeks, mouth and chin; every clip "
        "counts the same, all seeds. Motion is the length of the flow.",
        (0, 1),
    )


def _overview(comparisons: Sequence[Comparison]) -> Table:
    """The best model of every comparison."""
    lines = []
    for comparison in comparisons:
        best, margin = comparison.models[0], ("", "", "")
        if comparison.next and (test := comparison.test(best.name, comparison.next.name)):
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
    """Every count of a confusion as a share of its true class."""
    counts = [[int(text) for text in line.texts[1:]] for line in table.lines]
    return [[count / max(sum(row), 1) for count in row] for row in counts]

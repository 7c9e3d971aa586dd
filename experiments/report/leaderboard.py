"""The leaderboard: what every model and reference scores, by which settings, at which cost."""

from collections import Counter
from statistics import median

from experiments.report import baselines
from experiments.report.comparison import NEAREST_MEAN, SUPPORT_VECTORS, Comparison, ModelScores
from experiments.report.formatting import interval, number, p_value, signed, spread
from experiments.report.tables import MODEL, REFERENCE, Line, Table
from mer.evaluation import scoring

HEADER = (
    "model", "settings", "UF1", "95 % interval", "seeds", "p against the best", "p against support vectors",
    "optimistic UF1", "optimistic less honest", "UAR", "UAR interval", "accuracy", "accuracy interval",
    "seeds together, UF1", "parameters", "s per fold", "device", "folds",
)  # fmt: skip
NO_SETTING = "--data.split"  # the comparison's own


def leaderboard(comparison: Comparison) -> Table:
    """Models, then references; honest scores rank."""
    lines = []
    for model in comparison.models:
        uf1, others = _with_intervals(model.summary["honest"])
        optimistic, together = model.summary["optimistic"]["uf1"], ""
        if model.ensemble is not None:
            together = number(scoring.scores(model.ensemble, comparison.classes)["uf1"])
        texts = (
            model.name, settings(model, comparison.databases), *uf1, str(len(model.seeds)),
            *_p_values(comparison, model.name), spread(optimistic), signed(optimistic["mean"] - model.uf1),
            *others, together, *_costs(model), f"{model.done} / {model.total}",
        )  # fmt: skip
        lines.append(Line(MODEL, texts))
    for name, summary in comparison.reference_summaries.items():
        clips, whole = len(comparison.references[name]), len(comparison.clips)
        label = name if clips == whole else f"{name} ({clips} of {whole} clips)"
        tuned = _tuned(baselines.TUNED_ON, comparison.databases) if name in (NEAREST_MEAN, SUPPORT_VECTORS) else ""
        uf1, others = _with_intervals(summary["honest"])
        texts = (label, tuned and f"grid {tuned}", *uf1, "", *_p_values(comparison, name), "", "", *others, *[""] * 5)
        lines.append(Line(REFERENCE, texts))
    key = f"{comparison.key}-leaderboard"
    return Table(key, "Leaderboard", HEADER, tuple(lines), " ".join(_notes(comparison)), (0, 1, 16))


def settings(model: ModelScores, databases: list[str]) -> str:
    """The recipe, what was changed of it by hand, and which of these databases its values were chosen by.

    Args:
        model: Its folds hold what the recipe declared when they were trained.
        databases: Those of the comparison.
    """
    facts = model.facts
    recipes = sorted({of_fold["recipe"] for of_fold in facts if "recipe" in of_fold})
    options = sorted({option for of_fold in facts for option in of_fold.get("options", ())} - {NO_SETTING})
    if "search" in model.cell.config():  # its options are those of the candidates
        recipes, options = [f"searched from {', '.join(recipes)}"], []
    by_hand = "by hand: " + ", ".join(option.removeprefix("--") for option in options) if options else ""
    tuned = _tuned(tuned_on(model), databases)
    unknown = "" if all("tuned_on" in of_fold for of_fold in facts) else "not declared what it was tuned on"
    return "; ".join(filter(None, [*recipes, by_hand, tuned, unknown]))


def tuned_on(model: ModelScores) -> set[str]:
    """Databases whose scores the values of the recipe were chosen by, as the recipe declared."""
    return {name for of_fold in model.facts for name in of_fold.get("tuned_on", ())}


def _tuned(names: set[str], databases: list[str]) -> str:
    here = sorted(names.intersection(databases))
    return f"tuned here: {', '.join(here)}" if here else ""


def _p_values(comparison: Comparison, name: str) -> tuple[str, str]:
    """Corrected p-values against the best model and against the support vectors; empty where there is no such test."""
    best = comparison.test(comparison.models[0].name, name)
    classic = comparison.test(name, SUPPORT_VECTORS)
    return p_value(best.corrected) if best else "", p_value(classic.corrected) if classic else ""


def _costs(model: ModelScores) -> tuple[str, str, str]:
    """Parameters, which differ between the folds of a search, median seconds of a fold, and devices."""
    weights = sorted({int(of_fold["parameters"]) for of_fold in model.facts if "parameters" in of_fold})
    seconds = [of_fold["seconds"] for of_fold in model.facts if "seconds" in of_fold]
    devices = sorted({of_fold["device"] for of_fold in model.facts if "device" in of_fold})
    ends = " .. ".join(f"{count:,}" for count in dict.fromkeys((weights[0], weights[-1]))) if weights else ""
    return ends, f"{median(seconds):.1f}" if seconds else "", ", ".join(devices)


def _with_intervals(scores: dict[str, dict]) -> tuple[list[str], list[str]]:
    """UF1 with its interval; the other scores with theirs."""
    texts = [text for name in scoring.SCORES for text in (spread(scores[name]), interval(scores[name]))]
    return texts[:2], texts[2:]


def _notes(comparison: Comparison) -> list[str]:
    notes = []
    if unfinished := [model.name for model in comparison.models if not model.complete]:
        notes.append(f"Not finished, so last and not ranked: {', '.join(unfinished)}.")
    if comparison.on_other_clips:
        notes.append(
            f"Not on the clips of the first, so not comparable here: {', '.join(comparison.on_other_clips)}; "
            "tests are on the clips in common."
        )
    if comparison.flow is not None:
        notes.append(f"Support vectors and nearest class mean: on the flow maps of {comparison.flow[0]}.")
    counts = Counter(model.cell.model for model in comparison.models)
    if several := [name for name, count in counts.items() if count > 1]:
        notes.append(f"Several recipes of {', '.join(several)}: who keeps the best of them has tuned it here.")
    return notes

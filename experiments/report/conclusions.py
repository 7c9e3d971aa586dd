"""The conclusions of a comparison in words: questions and answers, the first thing on its page."""

from dataclasses import dataclass

from experiments.report.comparison import AGAINST, MAJORITY, Comparison, ModelScores, PairedTest
from experiments.report.formatting import interval, number, p_value, signed, spread
from experiments.report.kept_maps import THIRDS, MeanMaps, thirds
from experiments.report.leaderboard import tuned_on

LEVEL = 0.05  # a corrected p-value below it is more than chance
MARGIN = 0.05  # above 1/3, by which a third of the face has to stand out


@dataclass(frozen=True)
class Conclusion:
    """A question, its answer in a few words, and the figures for it."""

    question: str
    answer: str
    detail: str


def conclusions(comparison: Comparison, means: dict[str, MeanMaps]) -> list[Conclusion]:
    """Which model is better, by how much, is that more than chance, on which database and class, where does it look.

    Args:
        comparison: The models.
        means: Mean maps of the models that show attention, by name.
    """
    best, second = comparison.models[0], comparison.next
    margin = _margin(comparison, best, second) if second else [_above_majority(comparison, best)]
    return [_best(comparison, best), *margin, _easiest(comparison, best), _attention(best, means)]


def _best(comparison: Comparison, best: ModelScores) -> Conclusion:
    uf1 = best.summary["honest"]["uf1"]
    subjects = len(comparison.clips.drop_duplicates(["dataset", "subject"]))
    seeds = f"{len(best.seeds)} seed{'' if len(best.seeds) == 1 else 's'}"
    detail = f"Honest UF1 {spread(uf1)}, 95\u00a0% interval {interval(uf1)}; {subjects} subjects, {seeds}."
    if tuned_on(best).intersection(comparison.databases):
        detail += " Its settings were tuned on these subjects."
    unfinished = [model.name for model in comparison.models if not model.complete]
    if unfinished:
        detail += f" Not finished, so not ranked: {', '.join(unfinished)}."
    return Conclusion("Which model is better?", best.name, detail)


def _margin(comparison: Comparison, best: ModelScores, second: ModelScores) -> list[Conclusion]:
    tests = [comparison.test(best.name, model.name) for model in comparison.models[1:]]
    test = tests[0]
    if test is None:
        return [Conclusion("By how much?", "not comparable yet", f"{second.name} shares no clip with it so far.")]
    by = Conclusion(
        "By how much?",
        f"{signed(test.difference)} UF1",
        f"Over {second.name}; 95\u00a0% interval {signed(test.low)} .. {signed(test.high)}.",
    )
    detail = f"p\u00a0{_equals(test.corrected)} against {second.name}"
    if len(tests) > 1:
        beaten = sum(other is not None and other.corrected < LEVEL for other in tests)
        detail += f"; ahead of {beaten} of {len(tests)} models beyond chance"
    detail += f". {_against_references(comparison, best)}"
    return [by, Conclusion("Is that more than chance?", _verdict(test, "No: it may be chance"), detail)]


def _above_majority(comparison: Comparison, best: ModelScores) -> Conclusion:
    answer = _verdict(comparison.test(best.name, MAJORITY), "No")
    return Conclusion("Is it more than chance?", answer, _against_references(comparison, best))


def _verdict(test: PairedTest | None, no: str) -> str:
    """Yes, ``no``, or that these subjects are too few: with n of them no p-value is below 2 / 2^n."""
    if test and test.corrected < LEVEL and test.difference > 0:
        return "Yes"
    return "Too few subjects to tell" if test and 2 / 2**test.subjects > LEVEL else no


def _against_references(comparison: Comparison, best: ModelScores) -> str:
    tests = {name: comparison.test(best.name, name) for name in AGAINST}
    texts = [
        f"against the {name} {signed(test.difference)}, p\u00a0{_equals(test.corrected)}"
        for name, test in tests.items()
        if test
    ]
    return f"UF1 {'; '.join(texts)} (Holm)." if texts else ""


def _equals(value: float) -> str:
    text = p_value(value)
    return text.replace(" ", "\u00a0") if text.startswith("≤") else f"=\u00a0{text}"


def _easiest(comparison: Comparison, best: ModelScores) -> Conclusion:
    f1 = {name: scores["f1"]["mean"] for name, scores in best.summary["classes"].items() if scores["clips"]}
    easy, hard = max(f1, key=f1.__getitem__), min(f1, key=f1.__getitem__)
    by_class = f"{easy} is its easiest class (F1 {number(f1[easy])}), {hard} its hardest ({number(f1[hard])})."
    uf1 = _by_database(best)
    if len(uf1) < 2:
        return Conclusion("On which class?", f"{easy} most, {hard} least", by_class)
    high, low = max(uf1, key=uf1.__getitem__), min(uf1, key=uf1.__getitem__)
    detail = f"UF1 {number(uf1[high])} and {number(uf1[low])}. {by_class}"
    complete = [(_by_database(model), model.name) for model in comparison.models if model.complete]
    others = []
    for database in uf1:
        scores = {name: parts[database] for parts, name in complete if database in parts}
        ahead = max(scores, key=scores.__getitem__, default=best.name)
        if scores.get(ahead, 0) > uf1[database]:
            others.append(f"on {database}, {ahead} is ahead ({number(scores[ahead])})")
    if others:
        detail += f" But {'; '.join(others)}."
    return Conclusion("On which database and class?", f"{high} most, {low} least", detail)


def _by_database(model: ModelScores) -> dict[str, float]:
    return {name: part["honest"]["uf1"]["mean"] for name, part in model.summary["parts"].items()}


def _attention(best: ModelScores, means: dict[str, MeanMaps]) -> Conclusion:
    question = "Where does it look?"
    if not means:
        return Conclusion(question, "not kept", "No model here has kept its attention.")
    name = best.name if best.name in means else next(iter(means))
    shares = {label: thirds(share) for label, share in means[name].attention.items()}
    detail = f"Attention: {_parts(shares['all'])}"
    if means[name].motion:
        detail += f"; motion: {_parts(thirds(means[name].motion['all']))}"
    most = {label: _most(share) for label, share in shares.items()}
    by_class = [f"{label} {place}" for label, place in most.items() if label != "all" and place]
    if by_class:
        detail += f". By class: {', '.join(by_class)}"
    who = "" if name == best.name else f" ({name}; the best model shows no attention)"
    place = f"{most['all']} third of the face" if most["all"] else "it depends on the class" if by_class else "all over"
    return Conclusion(question, place.capitalize(), f"{detail}{who}.")


def _parts(shares: list[float]) -> str:
    return ", ".join(f"{share:.0%} {place}" for share, place in zip(shares, THIRDS, strict=True))


def _most(shares: list[float]) -> str:
    """The third that stands out; empty if none does."""
    most = max(shares)
    return THIRDS[shares.index(most)] if most - 1 / 3 > MARGIN else ""

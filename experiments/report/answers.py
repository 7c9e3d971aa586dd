"""What the figures of a board say, in words: the first thing on its page."""

from dataclasses import dataclass

from experiments.report.boards import MAJORITY, Board, Comparison, Row
from experiments.report.figures import interval, number, p_value, signed, spread
from experiments.report.maps import THIRDS, Mean, thirds

LEVEL = 0.05  # of the corrected p-value
EVEN = 0.05  # thirds whose shares of attention differ from a third by less are all alike


@dataclass(frozen=True)
class Answer:
    """A question, its answer in a few words, and what belongs to it."""

    question: str
    headline: str
    detail: str


def answers(board: Board, means: dict[str, Mean]) -> list[Answer]:
    """Which model is better, by how much, is that more than chance, on which database and class, where does it look.

    Args:
        board: The models.
        means: Mean maps of the models that show attention, by name.
    """
    best = board.rows[0]
    told = [_better(board, best)]
    told += _margin(board, best, board.next) if board.next else [_above_majority(board, best)]
    return [*told, _where(board, best), _looks(best, means)]


def _better(board: Board, best: Row) -> Answer:
    uf1 = best.summary["honest"]["uf1"]
    subjects = len(board.clips.drop_duplicates(["dataset", "subject"]))
    seeds = f"{len(best.tables)} seed{'' if len(best.tables) == 1 else 's'}"
    detail = f"Honest UF1 {spread(uf1)}, 95\u00a0% interval {interval(uf1)}; {subjects} subjects, {seeds}."
    unfinished = [row.name for row in board.rows if not row.complete]
    if unfinished:
        detail += f" Not finished, so not ranked: {', '.join(unfinished)}."
    return Answer("Which model is better?", best.name, detail)


def _margin(board: Board, best: Row, second: Row) -> list[Answer]:
    compared, chance = board.compared(best, second), _against_majority(board, best)
    if compared is None:
        return [Answer("By how much?", "not comparable yet", f"{second.name} shares no clip with it so far.")]
    by = Answer(
        "By how much?",
        f"{signed(compared.difference)} UF1",
        f"Over {second.name}; 95\u00a0% interval {signed(compared.low)} .. {signed(compared.high)}.",
    )
    beaten = [row for row in board.rows[1:] if (each := board.compared(best, row)) and each.corrected < LEVEL]
    yes = compared.corrected < LEVEL and compared.difference > 0
    detail = f"p\u00a0{_equals(compared.corrected)} against {second.name}"
    if len(board.rows) > 2:
        detail += f"; ahead of {len(beaten)} of {len(board.rows) - 1} models beyond chance"
    headline = "Yes" if yes else _no(compared, "No: it may be chance")
    return [by, Answer("Is that more than chance?", headline, f"{detail}. {chance}")]


def _above_majority(board: Board, best: Row) -> Answer:
    compared = next((each for each in board.comparisons if each.first == best.name), None)
    yes = compared is not None and compared.corrected < LEVEL and compared.difference > 0
    headline = "Yes" if yes else _no(compared, "No")
    return Answer("Is it more than chance?", headline, _against_majority(board, best))


def _no(compared: Comparison | None, text: str) -> str:
    """What it means that nothing was shown: with n subjects no p-value is below 2 / 2^n."""
    return "Too few subjects to tell" if compared and 2 / 2**compared.subjects > LEVEL else text


def _against_majority(board: Board, best: Row) -> str:
    for each in board.comparisons:
        if (each.first, each.second) == (best.name, MAJORITY):
            return f"Above the majority class by {signed(each.difference)}: p\u00a0{_equals(each.corrected)} (Holm)."
    return ""


def _equals(value: float) -> str:
    shown = p_value(value)
    return shown.replace(" ", "\u00a0") if shown.startswith("≤") else f"=\u00a0{shown}"


def _where(board: Board, best: Row) -> Answer:
    f1 = {name: of["f1"]["mean"] for name, of in best.summary["classes"].items() if of["clips"]}
    easy, hard = max(f1, key=lambda name: f1[name]), min(f1, key=lambda name: f1[name])
    by_class = f"{easy} is its easiest class (F1 {number(f1[easy])}), {hard} its hardest ({number(f1[hard])})."
    parts = {name: of["honest"]["uf1"]["mean"] for name, of in best.summary["parts"].items()}
    if len(parts) < 2:
        return Answer("On which class?", f"{easy} most, {hard} least", by_class)
    high, low = max(parts, key=lambda name: parts[name]), min(parts, key=lambda name: parts[name])
    others = []
    for name, uf1 in parts.items():
        there = {row.name: row.summary["parts"][name]["honest"]["uf1"]["mean"] for row in board.rows
                 if row.complete and name in row.summary["parts"]}  # fmt: skip
        ahead = max(there, key=lambda row: there[row], default=best.name)
        if there.get(ahead, uf1) > uf1:
            others.append(f"on {name}, {ahead} is ahead ({number(there[ahead])})")
    detail = f"UF1 {number(parts[high])} and {number(parts[low])}. {by_class}"
    if others:
        detail += f" But {'; '.join(others)}."
    return Answer("On which database and class?", f"{high} most, {low} least", detail)


def _looks(best: Row, means: dict[str, Mean]) -> Answer:
    question = "Where does it look?"
    name = best.name if best.name in means else next(iter(means), "")
    if not name:
        return Answer(question, "not kept", "No model here has kept its attention.")
    shares = {one: thirds(share) for one, share in means[name].attention.items()}
    detail = f"Attention: {_parts(shares['all'])}"
    if means[name].motion:
        detail += f"; motion: {_parts(thirds(means[name].motion['all']))}"
    most = {one: _most(share) for one, share in shares.items()}
    by_class = [f"{one} {place}" for one, place in most.items() if one != "all" and place]
    if by_class:
        detail += f". By class: {', '.join(by_class)}"
    who = "" if name == best.name else f" ({name}; the best model shows no attention)"
    place = f"{most['all']} third of the face" if most["all"] else "it depends on the class" if by_class else "all over"
    return Answer(question, place.capitalize(), f"{detail}{who}.")


def _parts(shares: list[float]) -> str:
    return ", ".join(f"{share:.0%} {place}" for share, place in zip(shares, THIRDS, strict=True))


def _most(shares: list[float]) -> str:
    """The third that stands out; empty if none does."""
    most = max(shares)
    return THIRDS[shares.index(most)] if most - 1 / 3 > EVEN else ""

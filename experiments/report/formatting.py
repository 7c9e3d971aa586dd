"""How scores, intervals, p-values and names are written, everywhere alike."""

import unicodedata

STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's controls, marks of direction, half characters, line ends


def number(value: float | None) -> str:
    """A score with three decimals; empty if there is none."""
    return "" if value is None else f"{value:.3f}"


def spread(score: dict) -> str:
    """Mean, and the standard deviation where there are several seeds."""
    deviation = score["deviation"]
    return number(score["mean"]) + ("" if deviation is None else f" ± {number(deviation)}")


def interval(score: dict) -> str:
    """The two ends of an interval."""
    return f"{number(score['low'])} .. {number(score['high'])}"


def signed(value: float) -> str:
    """A difference of scores, with its sign."""
    return f"{value:+.3f}".replace("-", "−")


def p_value(value: float) -> str:
    """A p-value; none is below 0.0001, which is what 9,999 random exchanges and the observed one can show."""
    return "≤ 0.0001" if value <= 0.0001 else f"{value:.4f}" if value < 0.01 else number(value)


def printable(text: str) -> str:
    """A name for the eye: what would steer a terminal, turn the text round or not be encoded is given as its code."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in STEERING else char for char in text
    )

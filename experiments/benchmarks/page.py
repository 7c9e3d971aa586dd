"""Pages of ``docs/`` that benchmarks write into; the table and the plot of ``make bench``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_modules.cache.store import write_text

LEAST = 4  # folds; smaller stacks are filled up with copies
NOTE = (
    "An epoch is the 436 clips that a fold trains on, each once, and a test. MB: all tensors at the peak of a step, "
    "with weights and AdamW's moments, without the data. Floor: operations or bytes at the device's measured best. "
    "What would take minutes on a CPU is left out."
)
HEADER = (
    "| model | folds at once | s per fold and epoch | times as fast | floor, s | above the floor | s around it | MB |",
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
)


def fill(page: Path, command: str, block: str) -> str:
    """The text of a page with a new block between the marks of a command; at its end if it has no marks yet."""
    begin, end = f"<!-- written by {command} -->", "<!-- end -->"
    text = page.read_text() if page.exists() else ""
    if begin not in text:
        text += f"\n{begin}\n{end}\n"
    before, rest = text.split(begin)
    _, after = rest.split(end, 1)
    return f"{before}{begin}\n\n{block}\n\n{end}{after}"


@dataclass(frozen=True)
class Row:
    """What was measured of a model.

    Attributes:
        folds: Size of the stack; 0 for folds one by one.
        seconds: Per fold and epoch.
        around: Seconds per fold before its first and after its last epoch.
        memory: Bytes of the tensors of all folds at their peak, without the data.
        floor: Least seconds per fold and epoch on this device, see ``fold_speed.floor``.
    """

    model: str
    folds: int
    seconds: float
    around: float
    memory: int
    floor: float


def line(row: Row, alone: float) -> str:
    """A row of the table; ``alone`` is the seconds of the model's folds one by one."""
    cells = (
        row.model,
        str(row.folds) if row.folds else "one by one",
        f"{row.seconds:.4f}",
        f"{alone / row.seconds:.2f}",
        f"{row.floor:.5f}",
        f"{row.seconds / row.floor:.0f}",
        f"{row.around:.3f}",
        f"{row.memory / 2**20:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def memory(rows: Sequence[Row]) -> list[str]:
    """How the memory of a stack grows: a line per model with two stacks of at least ``LEAST`` folds."""
    lines = []
    for model in dict.fromkeys(row.model for row in rows):
        alone, *stacks = [row for row in rows if row.model == model and (not row.folds or row.folds >= LEAST)]
        if len(stacks) > 1:
            first, last = stacks[0], stacks[-1]
            slope = (last.memory - first.memory) / (last.folds - first.folds)
            lines.append(
                f"- Every fold more in a stack of {model} takes {slope / 2**20:.1f} MB (from {first.folds} to "
                f"{last.folds}), {slope / alone.memory:.2f} times the {alone.memory / 2**20:.1f} MB of one alone."
            )
    return lines


def write(docs: Path, measured: Mapping[str, Sequence[Row]], extras: Sequence[str]) -> None:
    """Write the tables and further lines into ``benchmarks.md`` and draw ``bench.svg``.

    Args:
        docs: Folder of both.
        measured: Rows by the name of the device.
        extras: Lines under the tables.
    """
    lines = ["## Many folds as one program", "", "![Seconds per fold and epoch](bench.svg)", "", NOTE, ""]
    for device, rows in measured.items():
        alone = {row.model: row.seconds for row in rows if not row.folds}
        lines += [f"{device}:", "", *HEADER, *(line(row, alone[row.model]) for row in rows), "", *memory(rows), ""]
    page = docs / "benchmarks.md"
    write_text(page, fill(page, "make bench", "\n".join([*lines, *extras])))
    _draw(docs / "bench.svg", measured)


def _draw(path: Path, measured: Mapping[str, Sequence[Row]]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(measured), 4.5), layout="constrained")
    for axes, (device, rows) in zip(figure.subplots(1, len(measured), squeeze=False)[0], measured.items(), strict=True):
        for number, model in enumerate(dict.fromkeys(row.model for row in rows)):
            own = [row for row in rows if row.model == model]
            stacked, color = [row for row in own if row.folds], f"C{number}"
            axes.plot([row.folds for row in stacked], [row.seconds for row in stacked], "o-", color=color, label=model)
            axes.axhline(own[0].seconds, color=color, linestyle="--", linewidth=1)
            axes.axhline(own[0].floor, color=color, linestyle=":", linewidth=1)
        axes.set(xscale="log", yscale="log", xlabel="folds at once", ylabel="s per fold and epoch")
        axes.set_title(f"{device}\ndashed: one by one; dotted: floor", fontsize=8)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(path)

"""How many folds are done: while a sweep runs, and where it ends before its time."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from data_modules.processes.verbosity import is_quiet, is_verbose
from data_modules.processes.whole_files import WriteError
from experiments.results import Cell, Fold
from mer.evaluation import scoring

EVERY = 20  # seconds between two lines of progress where there is no terminal


@contextmanager
def count_done(folds: Sequence[Fold]) -> Iterator[None]:
    """Add how many of the folds are done to the message of what ends the block before its time.

    Raises:
        WriteError: If a file cannot be written in the block.
        KeyboardInterrupt: If the block is interrupted.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_progress(folds)) from None
    except WriteError as error:
        raise WriteError(f"{error}. {_progress(folds)}; then run the same command again") from error


def _progress(folds: Sequence[Fold]) -> str:
    """Folds done and left, and the disk space that the latter will take."""
    done = [fold.file for fold in folds if fold.is_done]
    left = len(folds) - len(done)
    text = f"{len(done)} of {len(folds)} folds are done, {left} are left"
    if done:
        sizes = [part.stat().st_size for file in done for part in file.parent.glob(f"{file.stem}.*")]
        text += f" and need about {sum(sizes) / len(done) * left / 1e6:.1f} MB"
    return text


class Display:
    """Folds done, time left and running pooled UF1 of every cell and seed: bars on a terminal, lines elsewhere."""

    def __init__(self, console: Console, pending: Sequence[Fold]):
        self.console, self.total, self.ended = console, len(pending), 0
        self.left = Counter(fold.cell for fold in pending)
        self.timed, self.seconds = Counter(), Counter()  # folds that have ended, and their time, by cell
        self.last_end = self.last_line = time.monotonic()
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("folds, UF1 {task.fields[uf1]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
            disable=not console.is_terminal or is_quiet(),
        )
        self.tasks: dict[tuple[Cell, int], TaskID] = {}
        for cell, seed in dict.fromkeys((fold.cell, fold.seed) for fold in pending):
            name, done = f"{cell.dataset} {cell.model} seed {seed}", len(cell.done(seed))
            self.tasks[cell, seed] = self.bars.add_task(name, total=len(cell.folds), completed=done, uf1="", left="")

    def __enter__(self) -> "Display":
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def advance(self, folds: Sequence[Fold], failed: Sequence[bool]) -> None:
        """Count folds that have ended together, and whether each of them has failed."""
        first = not self.ended
        self.ended += len(folds)
        now = time.monotonic()
        cell = folds[0].cell  # what ends together is of one
        self.left[cell] -= len(folds)
        self.timed[cell] += len(folds)
        self.seconds[cell] += now - self.last_end
        self.last_end = now
        left = self.time_left()
        last = ""
        for fold, lost in zip(folds, failed, strict=True):
            uf1 = "" if lost else f"{pooled_uf1(fold.cell, fold.seed):.3f}"
            self.bars.update(self.tasks[fold.cell, fold.seed], advance=not lost, uf1=uf1, left=left)
            last = f"{fold.cell.model} seed {fold.seed} {fold.name}, " + ("failed" if lost else f"running UF1 {uf1}")
        is_due = first or now - self.last_line > EVERY or self.ended == self.total
        if is_verbose() or (is_due and not self.console.is_terminal and not is_quiet()):
            self.last_line = now
            self.console.print(f"{self.ended} of {self.total} folds, {left}; last: {last}")

    def time_left(self) -> str:
        """The time of the folds that are left, at the speed of those of their cell, and the models that have none."""
        timed = sum(self.seconds[cell] / self.timed[cell] * self.left[cell] for cell in self.timed)
        unknown = ", ".join(dict.fromkeys(cell.model for cell in self.left if cell not in self.timed))
        return f"{timed / 60:.1f} min left" + (f" and that of {unknown}, not timed yet" if unknown else "")


def pooled_uf1(cell: Cell, seed: int) -> float:
    """UF1 of the folds done so far, in which a class may have no clip yet."""
    return float(scoring.uf1(scoring.confusion(cell.pooled(seed), cell.classes)))

"""A progress bar of clips, with clips per second, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from data_modules.processes.verbosity import is_quiet


class _Speed(ProgressColumn):
    """Clips per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} clips/s" if speed else "")


@contextmanager
def clip_progress(description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while the block runs.

    Yields:
        A function to call with the number of clips done and of all clips.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Speed(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), disable=is_quiet())
    task = bar.add_task(description, total=None)

    def count(done: int, total: int) -> None:
        bar.start()  # with the first clip, so that no empty bar stands above an earlier error
        bar.update(task, completed=done, total=total)

    try:
        yield count
    finally:
        if bar.live.is_started:
            bar.stop()

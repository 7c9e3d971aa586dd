"""`mer predict`: what a model says of clips of one's own."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console

from data_modules.processes.progress import clip_progress
from experiments.prediction import page, table
from mer import InputError
from mer.prediction import Prediction
from mer.preprocessing.frame_files import IMAGE_SUFFIXES
from mer.preprocessing.video import open_clip
from mer.trained import Model

TABLES = {".csv", ".xlsx"}
PLACES = ("onset", "apex", "offset", "frames_per_second")


@dataclass(frozen=True)
class Wanted:
    """A clip to predict, and what is known of it; what is None is looked up or spotted.

    Attributes:
        clip: A video, a folder of frames, or ``onset.png:apex.png``.
        onset: Frame number, or seconds as ``0.4s``; likewise apex and offset.
    """

    clip: str
    onset: str | None = None
    apex: str | None = None
    offset: str | None = None
    frames_per_second: float | None = None


def predict(
    model: Model, clips: Sequence[Wanted], console: Console, out: Path | None, registered: bool, json: bool
) -> int:
    """Predict clips, print a table of them, and write pages, JSON and CSV.

    Args:
        model: A trained model.
        clips: What to predict.
        console: Where the table is printed.
        out: Folder of the pages, JSON and CSV; None to write none.
        registered: The frames are crops of registered faces.
        json: Print JSON in place of the table.

    Returns:
        Exit status: 0, or 1 if some clips could not be predicted.

    Raises:
        InputError: If none could be, with the reason of the first.
    """
    predictions: list[Prediction] = []
    failures: list[InputError] = []
    with clip_progress(model.name) as count:
        for done, wanted in enumerate(clips, start=1):
            try:
                predicted, left_out = _predict(model, wanted, registered)
                predictions, failures = predictions + predicted, failures + left_out
            except InputError as error:
                failures.append(error)
            if len(clips) > 1:
                count(done, len(clips))
    if not predictions and len(failures) >= len(clips):
        raise InputError("\nmer: ".join(map(str, failures)))
    if json:
        print(table.as_json(predictions), end="")
    elif predictions:
        table.show(predictions, console)
    if out is not None:
        print(f"written: {page.write(predictions, out, model.name)}", file=sys.stderr)
    for error in failures:
        print(f"mer: {error}", file=sys.stderr)
    return 1 if failures else 0


def _predict(model: Model, wanted: Wanted, registered: bool) -> tuple[list[Prediction], list[InputError]]:
    """The predictions of one clip: one, or one for each micro-expression in a long one; and why some of these fail."""
    clip = open_clip(wanted.clip, wanted.frames_per_second)
    if (wanted.onset, wanted.apex, wanted.offset) == (None, None, None) and clip.is_long():
        if registered:
            raise InputError(
                f"{clip.name}: is long, and nothing is spotted in crops of registered faces; name its onset and offset"
            )
        spotted, predictions, left_out = model.predict_long(clip)
        spots = len(predictions) + len(left_out)
        print(
            f"{clip.name}: {spots or 'no'} micro-expression{'s' * (spots != 1)} spotted, that is motion over "
            f"{spotted.threshold:.2f} px of a face of 128 that rises and falls within half a second",
            file=sys.stderr,
        )
        return predictions, left_out
    places = {"onset": wanted.onset, "apex": wanted.apex, "offset": wanted.offset}
    return [model.predict(clip, **places, registered=registered)], []


def list_clips(arguments: Sequence[str], shared: Wanted) -> list[Wanted]:
    """The clips that a command line names.

    Args:
        arguments: Each a clip, a folder of clips, or a table (.csv, .xlsx) with a column ``path``, relative to the
            table, and where there are any ``onset``, ``apex``, ``offset``, ``frames_per_second``.
        shared: What the command line says of all of them.

    Raises:
        InputError: If a folder or table has no clip.
    """
    clips: list[Wanted] = []
    for argument in arguments:
        path = Path(argument)
        if path.suffix.lower() in TABLES and os.path.isfile(path):
            clips += _of_table(path, shared)
        elif os.path.isdir(path):
            try:
                folders = [Wanted(str(folder), *_known(shared)) for folder in _below(path)]
            except OSError as error:
                raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error
            if not folders:
                raise InputError(f"{path}: holds no frames, no folder of frames and no video")
            clips += folders
        else:
            clips.append(Wanted(argument, *_known(shared)))
    return clips


def _known(wanted: Wanted) -> tuple:
    return wanted.onset, wanted.apex, wanted.offset, wanted.frames_per_second


def _below(folder: Path) -> Iterator[Path]:
    """The clips of a folder: itself if it holds images, else the clips of its folders, and its videos."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in entries):
        yield folder
        return
    for entry in entries:
        if entry.is_dir():
            yield from _below(entry)
        elif entry.suffix.lower() in VIDEOS:
            yield entry


VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".mts", ".3gp"}
"""Files of a folder that are taken for videos; one that is named itself may be called anything."""


def _of_table(path: Path, shared: Wanted) -> list[Wanted]:
    try:
        read = pd.read_csv if path.suffix.lower() == ".csv" else pd.read_excel
        rows = read(path, dtype=str, keep_default_na=False)
    except Exception as error:  # openpyxl has no error of its own for a broken workbook
        raise InputError(f"{path}: is no table that can be read ({' '.join(str(error).split())[:200]})") from error
    if "path" not in rows or rows.empty:
        raise InputError(f"{path}: has no column 'path' with clips; it has {', '.join(map(str, rows.columns))}")
    clips = []
    for line, row in enumerate(rows.to_dict("records"), start=2):
        if not str(row["path"]).strip():
            raise InputError(f"{path}, line {line}: names no clip in the column 'path'")
        # A whole number may stand there as 12.0, as pandas writes a column in which others are missing.
        texts = {name: re.sub(r"\.0+$", "", str(row.get(name, "")).strip()) for name in PLACES}
        given = {name: text or getattr(shared, name) for name, text in texts.items()}
        rate = _rate(given["frames_per_second"], f"{path}, line {line}")
        parts = [str(path.parent / part) for part in str(row["path"]).split(":")]
        clips.append(Wanted(":".join(parts), given["onset"], given["apex"], given["offset"], rate))
    return clips


def _rate(text: str | float | None, place: str) -> float | None:
    try:
        rate = None if text is None else float(text)
    except ValueError:
        rate = 0.0
    if rate is not None and not 0 < rate < 1e6:
        raise InputError(f"{place}: frames_per_second '{text}' is no number of frames per second")
    return rate

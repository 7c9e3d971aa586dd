"""Predictions on a terminal, as JSON and as CSV."""

import csv
import io
import json
from collections.abc import Sequence

from rich import box
from rich import table as rich_table
from rich.console import Console
from rich.markup import escape

from experiments.report.formatting import printable
from mer.prediction import Prediction

FRAMES = ("onset", "apex", "offset")


def show(predictions: Sequence[Prediction], console: Console) -> None:
    """Print a row per clip, in 80 columns if the names are short, and under them what makes a prediction doubtful."""
    printed = rich_table.Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    printed.add_column("clip", overflow="fold", min_width=14)
    printed.add_column("class", no_wrap=True)
    for name in ("probability", *FRAMES, "face", "warnings"):
        printed.add_column(name, justify="right", no_wrap=True)
    for prediction in predictions:
        frames = (_frame(prediction, getattr(prediction, name)) for name in FRAMES)
        face = "" if prediction.face_width is None else f"{prediction.face_width:.0f} px"
        names = (escape(printable(text)) for text in (prediction.clip, prediction.label))
        printed.add_row(*names, probability(prediction), *frames, face, str(len(prediction.warnings) or ""))
    console.print(printed)
    for prediction in predictions:
        for warning in prediction.warnings:
            line = printable(f"{prediction.clip}: {warning}")
            console.print(line, style="yellow", highlight=False, soft_wrap=True, markup=False)


def as_json(predictions: Sequence[Prediction]) -> str:
    """A list with an object per clip; seconds are counted from the first frame, as a player shows them."""
    return json.dumps([_record(prediction) for prediction in predictions], indent=2, allow_nan=False) + "\n"


def as_csv(predictions: Sequence[Prediction]) -> str:
    """A row per clip, of one model; what is unknown is empty."""
    classes = predictions[0].classes if predictions else ()
    header = ["clip", "prediction", *(f"{kind}_{name}" for kind in ("p", "sd") for name in classes)]
    header += [*FRAMES, *(f"{name}_seconds" for name in FRAMES), "face_width", "warnings"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for prediction in predictions:
        frames = [getattr(prediction, name) for name in FRAMES]
        values = [*map(_float, prediction.probabilities), *map(_float, prediction.spread), *frames]
        values += map(prediction.seconds, frames)
        warnings = "; ".join(prediction.warnings)
        writer.writerow([prediction.clip, prediction.label, *values, prediction.face_width, warnings])
    return text.getvalue()


def probability(prediction: Prediction, place: int | None = None) -> str:
    """That of the predicted class, or of another, with its spread where the seeds differ."""
    place = prediction.classes.index(prediction.label) if place is None else place
    spread = f" ± {prediction.spread[place]:.2f}" if prediction.spread.any() else ""
    return f"{prediction.probabilities[place]:.2f}{spread}"


def _record(prediction: Prediction) -> dict:
    chances = zip(prediction.classes, prediction.probabilities, prediction.spread, strict=True)
    return {
        "clip": prediction.clip,
        "prediction": prediction.label,
        "probabilities": {name: {"mean": _float(mean), "spread": _float(spread)} for name, mean, spread in chances},
        **{
            name: {"frame": int(frame), "seconds": prediction.seconds(frame)}
            for name, frame in ((name, getattr(prediction, name)) for name in FRAMES)
        },
        "frames_per_second": prediction.frames_per_second,
        "face_width": prediction.face_width,
        "warnings": list(prediction.warnings),
    }


def _frame(prediction: Prediction, frame: int) -> str:
    """The seconds are in a second line, which keeps the table narrow."""
    time = prediction.seconds(frame)
    return f"{frame}" if time is None else f"{frame}\n{time:.2f} s"


def _float(value) -> float:
    """A float32 as the shortest number that reads back as the same float32."""
    return float(str(value))

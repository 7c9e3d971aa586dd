"""A page per clip that needs nothing but a browser, a list of them, and the numbers as JSON and CSV."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_modules.cache.store import digest
from experiments.prediction import motion_chart, table
from experiments.prediction.table import FRAMES, probability
from experiments.report import html
from experiments.report.axes import Bar, Chart, Scale, axis, drawing, whisker
from experiments.report.drawing import data_address, draw_clip, draw_wheel, full_colour, peak
from experiments.report.formatting import printable
from mer.prediction import Prediction

PACKAGE = "experiments.prediction"
SIDE, SMALL = 256, 96  # pixels of a picture on the page of a clip, and in the list
# Motion in px of a face of 128, and strain, that have the full colour at least: about twice what camera noise alone
# gives on synthetic faces, or more, so that a still face looks still.
LEAST_MOTION, LEAST_STRAIN = 0.3, 0.1
NO_LIE_DETECTOR = (
    "This is no lie detector. It is the guess of a model that has learnt from a few people in a laboratory: it names "
    "the expression that the motion of a face looks like, and says nothing of what anybody feels, thinks or hides."
)


class Fact(NamedTuple):
    """What the head of the page says."""

    question: str
    answer: str
    detail: str


class Row(NamedTuple):
    """A clip in the list."""

    clip: str
    address: str
    pictures: list[tuple[str, str]]
    facts: list[Fact]
    warnings: list[str]


def page(prediction: Prediction, model: str) -> str:
    """The page of one clip.

    Args:
        prediction: What is shown.
        model: Name of the model, as in ``models/<name>``.
    """
    full, strongest = _scales([prediction])
    pictures = draw_clip(_source(prediction), full, strongest, SIDE)
    frames = {name: f"{name}, frame {getattr(prediction, name)}" for name in FRAMES}
    return html.render(
        "clip.html",
        PACKAGE,
        clip=printable(prediction.clip),
        model_name=printable(model),
        caution=NO_LIE_DETECTOR,
        facts=_facts(prediction),
        warnings=[printable(text) for text in prediction.warnings],
        pictures=[(frames.get(name, name), data_address(picture)) for name, picture in pictures.items()],
        wheel=data_address(draw_wheel(160), ".png"),
        full=full,
        strongest=strongest,
        size=prediction.flow.shape[1],
        attention=prediction.attention is not None,
        several_seeds=bool(prediction.spread.any()),
        chances=_chances(prediction),
        timed=bool(prediction.frames_per_second),
        motion=motion_chart.draw(prediction),
    )


def write(predictions: Sequence[Prediction], folder: Path, model: str) -> Path:
    """Write a page per clip, ``predictions.json``, ``predictions.csv`` and, for several clips, ``index.html``.

    Args:
        predictions: By one model, in the order of the list.
        folder: Made if it is missing; what is there of the same name is replaced.
        model: Name of the model.

    Returns:
        The page to open: the list, or the only clip; ``predictions.json`` if there is no clip.

    Raises:
        WriteError: As ``data_modules.cache.store.whole_file``.
    """
    names = file_names([prediction.clip for prediction in predictions])
    for name, prediction in zip(names, predictions, strict=True):
        html.write(folder / name, page(prediction, model))
    html.write(folder / "predictions.csv", table.as_csv(predictions))
    html.write(folder / "predictions.json", table.as_json(predictions))
    if len(predictions) < 2:
        return folder / (names[0] if names else "predictions.json")
    html.write(folder / "index.html", _list(predictions, names, model))
    return folder / "index.html"


def file_names(clips: Sequence[str]) -> list[str]:
    """A file name per clip: plain letters, no two alike also where a file system ignores case, never a path."""
    seen, names = Counter(), []
    for clip in clips:
        readable = re.sub(r"[^A-Za-z0-9_.]+", "_", clip)[-60:].strip("._") or "clip"
        name = f"{readable}-{digest({'clip': clip})}"
        seen[name] += 1
        names.append(f"{name}.html" if seen[name] == 1 else f"{name}-{seen[name]}.html")
    return names


def _list(predictions: Sequence[Prediction], names: Sequence[str], model: str) -> str:
    """The page that leads to the others; the colours mean the same in all its rows."""
    full, strongest = _scales(predictions)
    rows = []
    for name, prediction in zip(names, predictions, strict=True):
        pictures = draw_clip(_source(prediction), full, strongest, SMALL)
        shown = [(kind, data_address(pictures[kind])) for kind in ("apex", "flow")]
        warnings = [printable(text) for text in prediction.warnings]
        rows.append(Row(printable(prediction.clip), name, shown, _facts(prediction), warnings))
    return html.render(
        "clips.html",
        PACKAGE,
        model_name=printable(model),
        caution=NO_LIE_DETECTOR,
        rows=rows,
        doubts=any(row.warnings for row in rows),
        wheel=data_address(draw_wheel(160), ".png"),
        full=full,
        size=predictions[0].flow.shape[1],
    )


def _scales(predictions: Sequence[Prediction]) -> tuple[float, float]:
    """The motion in pixels of the crop, and the strain, that have the full colour."""
    least = LEAST_MOTION * predictions[0].flow.shape[1] / 128
    lengths = [max(peak(np.hypot(*prediction.flow[:2])), least) for prediction in predictions]
    return full_colour(lengths), full_colour(
        [max(peak(prediction.flow[2]), LEAST_STRAIN) for prediction in predictions]
    )


def _source(prediction: Prediction) -> dict:
    source = {"onset": prediction.onset_face, "apex": prediction.apex_face, "flow": prediction.flow}
    return source if prediction.attention is None else {**source, "attention": prediction.attention}


def _facts(prediction: Prediction) -> list[Fact]:
    """Prediction, onset, apex, offset and face."""
    rate, width = prediction.frames_per_second, prediction.face_width
    facts = [Fact("Prediction", printable(prediction.label), f"probability {probability(prediction)}")]
    for name in FRAMES:
        frame = int(getattr(prediction, name))
        time = prediction.seconds(frame)
        facts.append(Fact(name.capitalize(), f"frame {frame}", "" if time is None else f"{time:.3f} s"))
    face = "" if width is None else f"{width:.0f} px wide"
    speed = f"{rate:g} frames per second" if rate else "frame rate unknown"
    return [*facts, Fact("Face", face or "already registered", speed)]


def _chances(prediction: Prediction) -> Chart:
    """A bar per class, with the spread over the seeds as a whisker."""
    scale, bars = Scale(0, 1), []
    for place, name in enumerate(prediction.classes):
        mean, spread = float(prediction.probabilities[place]), float(prediction.spread[place])
        marks = [f'<rect class="share" y="-6" height="12" width="{scale.place(mean)}"/>']
        if spread:
            ends = {"low": max(mean - spread, 0), "high": min(mean + spread, 1)}
            marks.append(whisker(scale, ends, "whisker spread"))
        kind, value = "model" if name == prediction.label else "reference", probability(prediction, place)
        bars.append(Bar(kind, printable(name), value, drawing(scale, marks, f"{printable(name)}: {value}")))
    return Chart(bars, axis(scale))

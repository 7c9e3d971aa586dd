"""Small stand-ins for the frames of a real annotation sheet's clips: every clip there is, in seconds and megabytes."""

import csv
import shutil
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_modules.synthesis import relief
from data_modules.synthesis.action_units import Field, parse
from data_modules.synthesis.filming import encode
from data_modules.synthesis.layouts import LAYOUTS
from data_modules.synthesis.layouts.layout import Layout, Row, stream
from data_modules.synthesis.layouts.smic import SMICLayout
from data_modules.synthesis.portraits import Subject
from mer import InputError
from mer.preprocessing.faces import FaceFinder, alignment
from mer.preprocessing.opencv import cv2

PEOPLE = 8  # faces, who are shared out among the real subjects
LEVELS = 7  # strengths of an expression, of which a clip's frames are made
PEAK = 0.06  # largest displacement, in eye distances: strong, as the frames are small
SIZE = (320, 240)  # in which faces are drawn before they are made small

Rows = dict[str, tuple[Layout, Path, list[Row]]]


def read(sheets: Sequence[Path], layout: str) -> Rows:
    """Reads one sheet for each dataset of a layout.

    Args:
        sheets: Annotation sheets; for SMIC SMIC-E's, or a csv with ``dataset, subject, clip, emotion``.
        layout: A name of ``LAYOUTS``.

    Returns:
        Layout, sheet and clips by the folder that they go to.

    Raises:
        InputError: If a sheet does not open, or the sheets are not those of the layout's datasets, one each.
    """
    parts, read_rows = LAYOUTS[layout], {}
    for file in sheets:
        known, rows = _recognise(file, parts.values())
        place = next((place for place, part in parts.items() if type(part) is type(known)), None)
        if place is None:
            labels = " or ".join(part.label for part in parts.values())
            raise InputError(f"{file}: is a sheet of {known.label}; layout {layout} takes one of {labels}")
        if place in read_rows:
            raise InputError(f"{file}: {known.label} has a sheet already, {read_rows[place][1]}; name one of the two")
        read_rows[place] = parts[place], file, parts[place].read(rows, file)
    missing = [part.label for place, part in parts.items() if place not in read_rows]
    if missing:
        raise InputError(f"layout {layout} needs a sheet of {', '.join(missing)} too: name it with another --sheet")
    return {place: read_rows[place] for place in parts}


def write(root: Path, rows: Rows, seed: int) -> Iterator[None]:
    """Writes the frames of every clip, then a copy of its sheet; yields after each clip."""
    for place, (layout, file, clips) in rows.items():
        folder = root / place
        for i, row in enumerate(clips):
            clip = layout.stand_in(row)
            suffix = Path(layout.frame(clip, 0)).suffix
            grain = stream(seed, i, "grain", layout.label)  # no two clips have the same pixels
            frames, person = [], sum(row.subject.encode()) % PEOPLE
            for image in _faces(type(layout), seed, person, row.emotion):
                noisy = image + grain.normal(0, 1.0, image.shape)
                frames.append(encode(noisy.clip(0, 255).astype(np.uint8), suffix, layout.grey).tobytes())
            rise, fall = max(1, row.peak - row.first), max(1, row.last - row.peak)
            for number in range(row.first, row.last + 1):
                ahead = number - row.peak
                level = 1 - (-ahead / rise if ahead < 0 else ahead / fall)
                layout.add_frame(folder, clip, number, frames[round(level * (LEVELS - 1))])
                if layout.has_depth:
                    layout.add_depth(folder, clip, number, _depth(type(layout), seed, person))
            yield
        if layout.file:
            folder.mkdir(exist_ok=True)
            name = file.name if fnmatch(file.name.lower(), layout.sheet.file.lower()) else layout.file
            shutil.copyfile(file, folder / name)


def _recognise(file: Path, parts: Iterable[Layout]) -> tuple[Layout, list[dict[str, str]]]:
    """The dataset whose sheet a file is, and its rows.

    Raises:
        InputError: If it is none; what keeps it from being a sheet of ``parts`` if that can be said.
    """
    if not file.is_file():
        raise InputError(f"{file}: is no file; name an annotation sheet with --sheet")
    single = {type(layout): layout for layouts in LAYOUTS.values() for layout in layouts.values()}
    if file.suffix.lower() == ".csv":
        return single[SMICLayout], _listed(file)
    problems = {}
    for kind, layout in single.items():
        try:
            table = layout.sheet.read(file).rows
        except InputError as error:
            problems[kind] = str(error)
            continue
        rows = [{str(key): str(value) for key, value in row.items()} for row in table.to_dict("records")]
        rows = [{**row, "name": row.get("video", row.get("clip", ""))} for row in rows]
        rows = [row for row in rows if row["subject"] and row["name"]]
        if layout.knows(rows):
            return layout, rows
    wanted = {problems[type(part)] for part in parts if type(part) in problems}
    if len(wanted) == 1:
        raise InputError(wanted.pop())
    raise InputError(f"{file}: is no annotation sheet of {', '.join(layout.label for layout in single.values())}")


def _listed(file: Path) -> list[dict[str, str]]:
    """SMIC's rows in a list of clips."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: is not a csv that opens ({error})") from error
    if not rows or not {"dataset", "subject", "clip", "emotion"} <= set(rows[0]):
        raise InputError(f"{file}: is not a list of clips with the columns dataset, subject, clip, emotion")
    clips = [
        {"subject": row["subject"] or "", "name": row["clip"] or "", "emotion": row["emotion"] or ""}
        for row in rows
        if (row["dataset"] or "").lower().startswith("smic")
    ]
    if not clips:
        raise InputError(f"{file}: names no clip of SMIC")
    return clips


@cache
def _faces(kind: type[Layout], seed: int, person: int, emotion: str) -> list[NDArray[np.float32]]:
    """A face from calm to the height of an expression, small: ``LEVELS`` of (height, width, 3), 0 to 255."""
    neutral, landmarks = _portrait(seed, kind.people + person)
    codes = kind.emotions.get(emotion) or {"4": 1}
    field = Field([(side, unit, 1.0) for side, unit in parse(max(codes, key=lambda code: codes[code]))], landmarks)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]].astype(np.float32)
    dx, dy = field(x, y)
    gain = PEAK * field.eye_distance / float(np.hypot(dx, dy).max())
    levels = []
    for amount in np.linspace(0, gain, LEVELS, dtype=np.float32):
        image = cv2.remap(neutral, x - amount * dx, y - amount * dy, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        levels.append(cv2.resize(image, kind.small, interpolation=cv2.INTER_AREA).astype(np.float32))
    return levels


@cache
def _depth(kind: type[Layout], seed: int, person: int) -> bytes:
    """The depth frame of a calm face, small."""
    _, landmarks = _portrait(seed, kind.people + person)
    width, height = kind.small
    x, y = np.meshgrid(
        np.linspace(0, SIZE[0], width, dtype=np.float32), np.linspace(0, SIZE[1], height, dtype=np.float32)
    )
    return relief.encode(relief.relief(alignment(landmarks), x, y))


@cache
def _portrait(seed: int, person: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A calm face and its landmarks."""
    image = Subject(stream(seed, person, "person"), SIZE).neutral(stream(seed, person, "stand-in"))
    with FaceFinder() as finder:
        landmarks = finder.landmarks(image)
    if landmarks is None:
        raise InputError("MediaPipe sees no face in the synthetic frame; take another seed")
    return image, landmarks

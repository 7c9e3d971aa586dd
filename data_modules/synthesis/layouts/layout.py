"""How the folder of a dataset is written; the subclasses are in the files beside this one."""

import hashlib
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import openpyxl

from data_modules import data_module
from data_modules.release.sheets import Sheet
from mer import InputError

LONGEST = 800  # frames from a clip's middle number beyond which another of its numbers is an error
MARGIN = 80  # frames on either side that are written where a row contradicts itself
_WORD = re.compile(r"[\w()+-][\w()+.-]*", re.ASCII)


@dataclass(frozen=True)
class Clip:
    """One synthetic clip; frame numbers are those of the files.

    Attributes:
        person: Number of who is filmed, over all datasets; 0 if nobody is.
        subject: The subject's id as the sheet has it.
        name: As the sheet has it.
        onset: The calm face.
        apex: The strongest expression.
        offset: The last frame that is annotated.
        action_units: What moves, in a coder's words.
        emotion: In small letters.
        lead: Frames before the onset.
        tail: Frames after the offset.
        dropped: Frames that are not there.
    """

    person: int
    subject: str
    name: str
    onset: int
    apex: int
    offset: int
    action_units: str
    emotion: str
    lead: int = 0
    tail: int = 0
    dropped: tuple[int, ...] = ()


def stream(seed: int, subject: int, *use: str) -> np.random.Generator:
    """A random stream for one use of one subject, independent of all other streams."""
    # Hashed, because NumPy takes (1, 2) and (1, 2, 0) for the same seed.
    digest = hashlib.sha256(repr((seed, subject, use)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


@dataclass(frozen=True)
class Row:
    """A clip of a real sheet: its words as they stand there, and the frames to write."""

    subject: str
    name: str
    emotion: str
    first: int
    last: int
    peak: int


class Layout:
    """How one dataset lies on the disk.

    Attributes:
        dataset: Name of the dataset, see ``data_modules.DATASETS``.
        label: What it is called in messages.
        people: Added to a subject's number to know who is filmed, so that no two datasets share a face.
        file: Name of the annotation sheet; None if the release has none.
        row: Pattern of a real sheet's subject and name, with a space between them, by which it is known.
        emotions: Codes of action units by emotion, each with how often it is drawn.
        cycle: The emotions that are close to balanced; the others of ``emotions`` are rare.
        size: Width and height of the frames in pixels.
        small: The same for the stand-ins that ``--sheet`` writes.
        grey: Whether the frames are grey.
        has_depth: Whether each has a depth frame.
        length: Least and (one more than) most frames of a clip.
        onset: The same of the onset's number.
        subjects: Default number of subjects.
        clips: Default number of clips per subject.
    """

    dataset: ClassVar[str]
    label: ClassVar[str]
    people: ClassVar[int]
    file: ClassVar[str | None] = None
    row: ClassVar[str]
    emotions: ClassVar[Mapping[str, Mapping[str, int]]]
    cycle: ClassVar[tuple[str, ...]]
    size: ClassVar[tuple[int, int]] = (640, 480)
    small: ClassVar[tuple[int, int]] = (112, 84)
    grey: ClassVar[bool] = False
    length: ClassVar[tuple[int, int]] = (22, 36)
    onset: ClassVar[tuple[int, int]] = (4, 260)
    subjects: ClassVar[int] = 10
    clips: ClassVar[int] = 15
    has_depth: ClassVar[bool] = False
    suffix: ClassVar[str] = ""  # at the end of half of the clips' names

    @property
    def sheet(self) -> Sheet:
        """Where a real sheet has its columns: as the data module of the dataset declares it."""
        return data_module(self.dataset).variants[0].sheet  # imported here alone, as it brings torch along

    def subject(self, number: int) -> str:
        """A subject's id as the sheet has it."""
        raise NotImplementedError

    def names(self, generator: np.random.Generator, subject: str, clips: int) -> list[str]:
        """The names of a subject's clips, in the order of the sheet."""
        raise NotImplementedError

    def frame(self, clip: Clip, number: int) -> str:
        """Where a frame lies, below the root."""
        raise NotImplementedError

    def finish(self, root: Path, table: list[Clip]) -> None:
        """Write the sheet, and stray files as real folders hold them."""
        raise NotImplementedError

    def key(self, clip: Clip) -> str:
        """The part of a clip's name that is unique for its subject."""
        return clip.name

    def truth(self, clip: Clip) -> str:
        """Where the true flow lies, below the root."""
        return f"truth/{clip.subject}_{self.key(clip)}.safetensors"

    def add_frame(self, root: Path, clip: Clip, number: int, photograph: bytes) -> None:
        """Writes one frame of a clip."""
        path = root / self.frame(clip, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph)

    def add_depth(self, root: Path, clip: Clip, number: int, picture: bytes) -> None:
        """Writes the depth frame of a frame, a PNG."""
        raise NotImplementedError

    def plan(self, seed: int, number: int, clips: int) -> list[Clip]:
        """Draw the clips of a subject, with frame numbers, action units and emotions, in the order of the sheet."""
        person, subject = self.people + number, self.subject(number)
        generator = stream(seed, person, "plan")
        # Every class in turn, then a few clips change class: close to balanced, as little uniform as a real subject.
        emotions = [self.cycle[(number + i) % len(self.cycle)] for i in range(clips)]
        for i in np.flatnonzero(generator.random(clips) < 0.15):
            emotions[i] = list(self.emotions)[generator.integers(len(self.emotions))]
        rows = []
        names = self.names(generator, subject, clips)
        for name, emotion in zip(names, generator.permutation(emotions), strict=True):
            codes = self.emotions[str(emotion)]
            weights = np.array(list(codes.values()), dtype=np.float64)
            length = int(generator.integers(*self.length))
            onset = int(generator.integers(*self.onset))
            rows.append(
                Clip(
                    person=person,
                    subject=subject,
                    name=name + (self.suffix if generator.random() < 0.5 else ""),
                    onset=onset,
                    apex=onset + round(length * generator.uniform(0.3, 0.6)),
                    offset=onset + length - 1,
                    action_units=str(generator.choice(list(codes), p=weights / weights.sum())),
                    emotion=str(emotion),
                )
            )
        return self.arrange(rows, generator)

    def arrange(self, rows: list[Clip], generator: np.random.Generator) -> list[Clip]:
        """Change the clips of a subject as the layout needs it."""
        return rows

    def knows(self, rows: list[dict[str, str]]) -> bool:
        """Whether most of a sheet's rows are this dataset's."""
        fits = sum(bool(re.match(self.row, f"{row['subject']} {row['name']}", re.IGNORECASE)) for row in rows)
        return 2 * fits > len(rows)

    def read(self, rows: list[dict[str, str]], source: Path) -> list[Row]:
        """The clips of a real sheet, given as text by what its columns say.

        Raises:
            InputError: If a row cannot be written as frames.
        """
        clips = []
        for row in rows:
            subject, name = (_word(row[column], source) for column in ("subject", "name"))
            clips.append(Row(self.subject_of(subject), name, row["emotion"].lower(), *span(row, source)))
        return clips

    def subject_of(self, word: str) -> str:
        """A subject's id with the leading zeros that Excel may have removed."""
        return word

    def stand_in(self, row: Row) -> Clip:
        """A real sheet's clip as one that frames can be written for."""
        return Clip(0, row.subject, row.name, row.first, row.peak, row.last, "", row.emotion)


def span(row: dict[str, str], source: Path) -> tuple[int, int, int]:
    """First and last frame to write, and the apex between them.

    Real sheets hold onsets after the apex and offsets of 0. A number that is far from the others is ignored then, and
    ``MARGIN`` more frames are written on both sides, so that the frames of the corrected numbers exist.

    Raises:
        InputError: If onset or offset is no number.
    """
    onset, offset = (whole(row[name]) for name in ("onset", "offset"))
    apex = whole(row.get("apex", ""))
    if onset is None or offset is None:
        where = f"{row['subject']} {row['name']}"
        raise InputError(
            f"{source}: {where}: onset '{row['onset']}' and offset '{row['offset']}' are not both numbers; mend a copy"
        )
    numbers = [number for number in (onset, apex, offset) if number is not None]
    middle = sorted(numbers)[1]
    kept = [number for number in numbers if abs(number - middle) <= LONGEST]
    margin = 0 if numbers == sorted(kept) else MARGIN
    first, last = max(1, min(kept) - margin), max(kept) + margin
    return first, last, apex if apex is not None and first < apex < last else (first + last) // 2


def drop(clip: Clip, first: int, generator: np.random.Generator) -> Clip:
    """Remove one to three consecutive frames of a clip from ``first`` on, but not its last."""
    last = min(first + int(generator.integers(3)), clip.offset - 1)
    return replace(clip, dropped=tuple(range(first, last + 1)))


def stray(folder: Path, *names: str) -> None:
    """Write files that are no images."""
    for name in names:
        (folder / name).write_bytes(b"left behind by a file manager\n")


def write_workbook(file: Path, sheets: Mapping[str, Sequence[Sequence]]) -> None:
    """Write an Excel workbook, rows by the title of their sheet; the same rows give the same bytes."""
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    stream = io.BytesIO()
    book.save(stream)
    # openpyxl writes the hour into the archive; the bytes must not depend on it.
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            content = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"2014-05-08T00:00:00Z", source.read(name))
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def _word(text: str, source: Path) -> str:
    """A word that is safe as part of a path.

    Raises:
        InputError: If it is none.
    """
    if not _WORD.fullmatch(text):
        raise InputError(f"{source}: '{text}' is not a plain name of letters, digits and . _ - + ( ); mend a copy")
    return text


def whole(text: str) -> int | None:
    """The whole number that a cell holds; None if it holds none."""
    return int(float(text)) if re.fullmatch(r"\d{1,9}(\.0*)?", text) else None

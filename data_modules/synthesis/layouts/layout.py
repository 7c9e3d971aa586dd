"""What a dataset's folder looks like from the side of who writes it; see the subclasses beside this file."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from data_modules.release.sheets import Sheet
from mer import InputError

LONGEST = 800  # frames from a clip's middle number beyond which another of its numbers is a slip of the pen
MARGIN = 80  # frames on either side that are written where a row contradicts itself
_WORD = re.compile(r"[\w()+-][\w()+.-]*", re.ASCII)


@dataclass(frozen=True)
class Clip:
    """What one subject shows once; frame numbers are those of the files.

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
    """The random numbers that one use of one subject draws from, apart from all others."""
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
        label: What the dataset is called in messages.
        people: Added to a subject's number to know who is filmed, so that no two datasets share a face.
        file: Name of the annotation sheet; None if the release has none.
        sheet: Where a real sheet has subject, name, onset, offset, emotion and, if it has it, apex.
        row: Pattern of a real sheet's subject and name, with a space between them, by which it is known.
        emotions: Codes of action units by emotion, each with how often it is drawn.
        cycle: The emotions that are close to balanced; the others of ``emotions`` are rare.
        size: Width and height of the frames in pixels.
        small: The same for the stand-ins that ``--sheet`` writes.
        grey: Whether the frames are grey.
        length: Least and (one more than) most frames of a clip.
        onset: The same of the onset's number.
        subjects: How many to film if nobody says.
        clips: How many of each.
    """

    label: ClassVar[str]
    people: ClassVar[int]
    file: ClassVar[str | None] = None
    sheet: ClassVar[Sheet]
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
    suffix: ClassVar[str] = ""  # at the end of half of the clips' names

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
        """Writes what there is beside the frames: the sheet, and what should not lie there but does."""
        raise NotImplementedError

    def key(self, clip: Clip) -> str:
        """What tells a clip from the subject's others."""
        return clip.name

    def truth(self, clip: Clip) -> str:
        """Where the true flow lies, below the root."""
        return f"truth/{clip.subject}_{self.key(clip)}.safetensors"

    def add_frame(self, root: Path, clip: Clip, number: int, photograph: bytes) -> None:
        """Writes one frame of a clip."""
        path = root / self.frame(clip, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph)

    def plan(self, seed: int, number: int, clips: int) -> list[Clip]:
        """Decides what a subject shows: names, frame numbers, action units, emotions; in the order of the sheet."""
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
        """Last changes to a subject's plan."""
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
        """A subject's id, should the sheet have lost its zeros."""
        return word

    def stand_in(self, row: Row) -> Clip:
        """A real sheet's clip as one that frames can be written for."""
        return Clip(0, row.subject, row.name, row.first, row.peak, row.last, "", row.emotion)


def span(row: dict[str, str], source: Path) -> tuple[int, int, int]:
    """First and last frame to write and the strongest between them, also where the numbers contradict each other.

    The real sheets hold onsets after the apex and offsets of 0. What is far off is passed over then, and some frames
    more are written on both sides, so that those of the corrected numbers are there.

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
    """Loses one to three frames of a clip in a row from ``first`` on, but not its last."""
    last = min(first + int(generator.integers(3)), clip.offset - 1)
    return replace(clip, dropped=tuple(range(first, last + 1)))


def stray(folder: Path, *names: str) -> None:
    """Leaves files about that are no images."""
    for name in names:
        (folder / name).write_bytes(b"left behind by a file manager\n")


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

"""SMIC, pre-segmented: no sheet and no apex, the class is the name of a folder, frames are bitmaps."""

import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import ClassVar

import numpy as np

from data_modules import smic
from data_modules.release.sheets import Sheet
from data_modules.synthesis import action_units
from data_modules.synthesis.layouts.layout import LONGEST, Clip, Layout, Row, stray, whole
from mer import InputError

CODES = {"negative": "ne", "positive": "po", "surprise": "sur"}
CLASSES = {code: emotion for emotion, code in CODES.items()}
LENGTH = 30  # frames of a clip of which nothing but the name is known
# SMIC-E has 157 of the 164 clips of SMIC-HS. Six are gaps in its numbering, this one comes after its last.
AFTER = {"s2_sur_04": "s2_sur_05"}


class SMICLayout(Layout):
    """SMIC-HS (Li et al., FG 2013), 100 frames per second.

    root/SMIC_all_raw/HS/s1/micro/negative/s1_ne_01/image559740.bmp     onset..offset
    root/SMIC_all_raw/HS/s1/non_micro/s1_non_01/image559000.bmp         to be passed over
    root/truth/s1_s1_ne_01.safetensors
    """

    dataset: ClassVar[str] = "smic"
    label: ClassVar[str] = "SMIC"
    people: ClassVar[int] = 200
    row: ClassVar[str] = r"s?\d+ s\d+_(ne|po|sur)_"
    emotions: ClassVar[Mapping[str, Mapping[str, int]]] = action_units.SMIC_EMOTIONS
    cycle: ClassVar[tuple[str, ...]] = tuple(CODES)
    small: ClassVar[tuple[int, int]] = (96, 72)
    length: ClassVar[tuple[int, int]] = (9, 13)  # bitmaps of 0.9 MB each
    onset: ClassVar[tuple[int, int]] = (100_000, 20_000_000)
    subjects: ClassVar[int] = 8
    clips: ClassVar[int] = 9

    @property
    def sheet(self) -> Sheet:
        """SMIC-E's, with lengths in place of offsets, which are formulas that only Excel works out."""
        columns = {name: field for name, field in smic.COLUMNS.items() if field != "offset"}
        return Sheet("SMIC-HS-E_annotation*.xlsx", {**columns, "TotalMF1": "length"}, worksheet="HS")

    def subject(self, number: int) -> str:
        return f"s{number}"

    def names(self, generator: np.random.Generator, subject: str, clips: int) -> list[str]:
        return [subject] * clips

    def arrange(self, rows: list[Clip], generator: np.random.Generator) -> list[Clip]:
        numbers = {emotion: count(1) for emotion in CODES}
        rows = sorted(rows, key=lambda clip: list(CODES).index(clip.emotion))
        return [
            replace(clip, name=f"{clip.subject}_{CODES[clip.emotion]}_{next(numbers[clip.emotion]):02d}")
            for clip in rows
        ]

    def frame(self, clip: Clip, number: int) -> str:
        return f"SMIC_all_raw/HS/{clip.subject}/micro/{clip.emotion}/{clip.name}/image{number}.bmp"

    def finish(self, root: Path, table: list[Clip]) -> None:
        first = table[0]
        other = root / "SMIC_all_raw" / "HS" / first.subject / "non_micro" / f"{first.subject}_non_01"
        other.mkdir(parents=True)
        for number in (first.onset, first.onset + 1):
            shutil.copyfile(root / self.frame(first, number), other / f"image{number - 5000}.bmp")
        stray((root / self.frame(first, 0)).parent, "Thumbs.db")
        stray(root / "SMIC_all_raw", ".DS_Store")

    def read(self, rows: list[dict[str, str]], source: Path) -> list[Row]:
        """The clips of SMIC-HS from SMIC-E's sheet, or from a list of clips without frame numbers.

        Names decide the class: SMIC-E's column contradicts one of them.
        """
        clips: dict[str, tuple[int, int, int] | None] = {}
        for row in rows:
            match = re.fullmatch(r"s0*(\d{1,3})_(ne|po|sur)_(\d{1,4})", row["name"].lower())
            if not match:
                raise InputError(f"{source}: clip '{row['name']}' is not called like s1_ne_01; mend a copy")
            name = f"s{match[1]}_{match[2]}_{int(match[3]):02d}"
            clips[name] = None
            if "onset" in row:
                onset, length = whole(row["onset"]), whole(row["length"])
                if onset is None or length is None or not 0 < length <= LONGEST:
                    raise InputError(
                        f"{source}: {name}: onset '{row['onset']}' and number of frames '{row['length']}' are not both "
                        "plain numbers; mend a copy"
                    )
                clips[name] = (onset, onset + length - 1, onset + length // 2)
        if any(clips.values()):
            for name in list(clips):
                stem, number = name.rsplit("_", 1)
                for missing in range(1, int(number)):
                    clips.setdefault(f"{stem}_{missing:02d}", None)
                if name in AFTER:
                    clips.setdefault(AFTER[name], None)
        written = []
        for i, (name, frames) in enumerate(sorted(clips.items())):
            subject, code, _ = name.split("_")
            start = 100_000 + 1000 * i
            first, last, peak = frames or (start, start + LENGTH - 1, start + LENGTH // 2)
            written.append(Row(subject, name, CLASSES[code], first, last, peak))
        return written

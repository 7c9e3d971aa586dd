"""A database as its authors distribute it: which release lies in the folder, its sheet, its clips."""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pandas as pd

from data_modules.release import detect, sheets
from data_modules.release.audit import Audit, Auditor, ClipFrames
from data_modules.release.clip_table import Erratum, Problem, complain, rows
from data_modules.release.detect import Release, Variant
from data_modules.release.sheets import Sheet
from data_modules.videos import VideoDataModule
from mer import InputError


class ReleasedDataModule(VideoDataModule):
    """Clips as folders of frames, with a sheet that labels them; a dataset declares what its releases look like."""

    title: ClassVar[str]
    licence: ClassVar[str]
    frames_per_second: ClassVar[int]
    emotions: ClassVar[tuple[str, ...]]
    subjects: ClassVar[str]  # pattern of a subject's folder
    variants: ClassVar[tuple[Variant, ...]]
    objective_classes: ClassVar[Sheet | None] = None  # where they have a sheet of their own
    errata: ClassVar[tuple[Erratum, ...]] = ()

    @classmethod
    def subject_name(cls, text: str) -> str:
        """A subject's name in the clip table, from a sheet or a folder; what is no subject stays as it is."""
        return text

    @classmethod
    def clip_name(cls, values: Mapping[str, str]) -> str:
        """A clip's name in the clip table, from the fields of a sheet or a folder."""
        return values["clip"]

    # The folder and its clips

    @cached_property
    def release(self) -> Release:
        """The release that is used.

        Raises:
            InputError: If the folder is missing or holds none that is known.
        """
        if not self.root.is_dir():
            raise InputError(f"{self.root}: there is no such folder. {self._expected}")
        releases = detect.find_releases(self.root, self.variants, self.subjects)
        if not releases:
            raise InputError(f"{self.root}: holds no {self.title} as it is distributed. {self._expected}")
        return releases[0]

    @property
    def layout(self) -> str:
        """Which release of the dataset is used."""
        return self.release.layout

    @property
    def frames_are_registered(self) -> bool:
        return self.release.registered

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with clips, and what was done about it."""
        return self.audit.problems

    def read_clips(self) -> pd.DataFrame:
        return self.audit.clips

    @cached_property
    def audit(self) -> Audit:
        """The clips that can be used, their frames, and the problems of the others.

        Raises:
            InputError: If the folder or its sheet cannot be used as a whole.
        """
        folders, doubled = {}, []
        for path, values in self.release.clips(self.subjects):
            key = detect.key(self.release.variant, self._named(values))
            if key in folders:
                what = f"{path} is a second folder of it"
                doubled.append(Problem(self.name, key[0], "_".join(key[1:]), what, f"{folders[key]} is used", True))
            folders.setdefault(key, path)
        lines = list(self._rows())
        outside = [
            f"row {row['row']}: {name} '{row[name][:80]}' leads to another folder"
            for row in lines
            for name in ("subject", "clip", "video")
            if re.search(r"[/\\\0]|^\.+$", row.get(name, ""))
        ]
        complain(self.root, outside, "A sheet as distributed names no folders: take the original.")
        auditor = Auditor(self.name, self.release, folders, self.emotions, self.errata, doubled)
        audit = auditor.audit(lines, self.frames_per_second)
        if audit.clips.empty:
            listed = "".join(f"\n  {problem}" for problem in audit.problems[:10])
            raise InputError(f"{self.root}: not one clip can be used:{listed}\n{self._expected}")
        return audit

    def source_files(self, clips: pd.DataFrame) -> dict[str, int]:
        return {
            str(frame.path.relative_to(self.release.folder)): frame.size
            for row in rows(clips)
            for frame in self.clip_frames(row).frames
        }

    def clip_frames(self, row) -> ClipFrames:
        """The frames of a row of the clip table."""
        return self.audit.frames[row.subject, row.clip]

    def _rows(self) -> Iterator[dict[str, str]]:
        """Rows of the sheet, or of the folders where they say all, with the names of the clip table."""
        sheet = self.release.variant.sheet
        if sheet is None:
            blank = dict.fromkeys(("onset", "apex", "offset", "objective_class", "action_units"), "")
            for path, values in self.release.clips(self.subjects):
                named = self._named({"row": str(path.relative_to(self.release.folder)), **blank, **values})
                yield {**named, "emotion": named["emotion"].lower()}
            return
        table = self._read(sheet)
        if self.objective_classes is not None and self._find(self.objective_classes):
            others = [self._named(row) for row in self._read(self.objective_classes).to_dict("records")]
            classes = {(row["subject"], row["clip"]): row["objective_class"] for row in others}
        else:
            classes = {}
        blank = dict.fromkeys(("apex", "objective_class", "action_units"), "")
        for row in table.astype(str).to_dict("records"):
            named = self._named({**blank, **row})
            named["objective_class"] = classes.get((named["subject"], named["clip"]), named["objective_class"])
            yield {**named, "emotion": named["emotion"].lower()}

    def _named(self, values: Mapping[str, str]) -> dict[str, str]:
        """The fields of a sheet or a folder, with subject and clip as in the clip table."""
        named = {**values, "subject": self.subject_name(values["subject"])}
        return {**named, "clip": self.clip_name(named)}

    def _find(self, sheet: Sheet) -> Path | None:
        return sheets.find(sheet.file, detect.sheet_folders(self.release, self.root, self.subjects))

    def _read(self, sheet: Sheet) -> pd.DataFrame:
        path = self._find(sheet)
        if path is None:
            raise InputError(f"{self.root}: holds no {sheet.file} beside {self.release.folder}. {self._expected}")
        return sheet.read(path)

    @property
    def _expected(self) -> str:
        layouts = "; ".join(dict.fromkeys("/".join((*v.inside[:1], v.frames)) for v in self.variants))
        written = dict.fromkeys(variant.sheet.file for variant in self.variants if variant.sheet)
        return (
            f"{self.title} has frames in {layouts}"
            + (f" and the sheet {' or '.join(written)}" if written else "")
            + f". {self.licence} Name the folder with DATA=... or --root."
        )

"""A database as its authors distribute it: which release lies in the folder, its sheet, its clips."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pandas as pd

from data_modules.release import detect, sheets
from data_modules.release.audit import Audit, Auditor, ClipFrames
from data_modules.release.clip_table import Erratum, Problem, complain, rows
from data_modules.release.detect import Release, Variant
from data_modules.release.sheets import Reading, Sheet
from data_modules.release.workbook import SUFFIXES
from data_modules.videos import VideoDataModule
from mer import InputError

APEXES = Sheet("", {"Subject": "subject", "Filename": "clip", "Apex": "apex"})
"""What a sheet adds to a release that has none: its folders say the rest."""


class ReleasedDataModule(VideoDataModule):
    """Clips as folders of frames, with a sheet that labels them; a dataset declares what its releases look like.

    Args:
        sheet: The sheet to read, ``FILE`` or ``FILE:WORKSHEET``, where looking for its usual name is not enough; for a
            release without a sheet one with the columns Subject, Filename and Apex.
        registered: Whether the frames are crops that have been aligned already: no face is looked for then. By default
            the names of files and folders say it.
        kwargs: As in ``VideoDataModule``.
    """

    # The last two are in the digest by what they lead to: the clip table and the layout.
    path_arguments: ClassVar[tuple[str, ...]] = (*VideoDataModule.path_arguments, "sheet", "registered")

    title: ClassVar[str]
    licence: ClassVar[str]
    frames_per_second: ClassVar[int]
    emotions: ClassVar[tuple[str, ...]]
    subjects: ClassVar[str]  # pattern of a subject's folder
    variants: ClassVar[tuple[Variant, ...]]
    objective_classes: ClassVar[Sheet | None] = None  # where they have a sheet of their own
    errata: ClassVar[tuple[Erratum, ...]] = ()

    def __init__(self, sheet: str = "", registered: bool | None = None, **kwargs):
        super().__init__(**kwargs)
        self.sheet, self.registered = sheet, registered

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
        releases, given_up = detect.find_releases(self.root, self.variants, self.subjects)
        if not releases:
            where = f" in the first {detect.MOST_FOLDERS} folders, and more were not looked into" if given_up else ""
            raise InputError(f"{self.root}: holds no {self.title} as it is distributed{where}. {self._expected}")
        if self.registered is None:
            return releases[0]
        as_given = (release for release in releases if release.registered == self.registered)
        return next(as_given, replace(releases[0], registered=self.registered))

    @property
    def layout(self) -> str:
        """Which release of the dataset is used."""
        return self.release.layout

    @property
    def frames_are_registered(self) -> bool:
        return self.release.registered

    @property
    def sources(self) -> list[str]:
        """Where the frames lie, and which sheets and worksheets are read; those that would fit, too, are named."""
        read = [pair for pair in (self._labels, self._classes) if pair]
        lines = [f"frames in {self.release.folder}"]
        for paths, reading in read:
            worksheet = f", worksheet '{reading.worksheet}'" if reading.worksheet else ""
            others = [f"worksheet '{title}'" for title in reading.others] + [str(self._as_given(p)) for p in paths[1:]]
            unread = f"; not read: {', '.join(others)}" if others else ""
            lines.append(f"sheet {self._as_given(paths[0])}{worksheet}{unread}")
        return lines

    def _as_given(self, path: Path) -> Path:
        """A path below the root as the user writes it."""
        root = self.root.resolve()
        return self.root / path.relative_to(root) if path.is_relative_to(root) else path

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
        problems = doubled + self._unused_apexes
        auditor = Auditor(self.name, self.release, folders, self.emotions, self._names_apex, self.errata, problems)
        audit = auditor.audit(lines, self.frames_per_second)
        if audit.clips.empty:
            listed = "".join(f"\n  {problem}" for problem in audit.problems[:10])
            raise InputError(f"{self.root}: not one clip can be used:{listed}\n{self._expected}")
        return audit

    def source_files(self, clips: pd.DataFrame) -> dict[str, int]:
        sizes = {
            str(frame.path.relative_to(self.release.folder)): frame.size
            for row in rows(clips)
            for frame in self.clip_frames(row).frames
        }
        for row in rows(clips) if "depth" in self.inputs else ():
            files = (file for file in self.depth_files(row) if file)
            sizes |= {f"depth {row.subject} {row.clip} {file.name}": file.stat().st_size for file in files}
        return sizes

    def clip_frames(self, row) -> ClipFrames:
        """The frames of a row of the clip table."""
        return self.audit.frames[row.subject, row.clip]

    def _rows(self) -> Iterator[dict[str, str]]:
        """Rows of the sheet, or of the folders where they say all, with the names of the clip table."""
        blank = dict.fromkeys(("onset", "apex", "offset", "objective_class", "action_units"), "")
        if self.release.variant.sheet is None or self._labels is None:
            for path, values in self.release.clips(self.subjects):
                named = self._named({"row": str(path.relative_to(self.release.folder)), **blank, **values})
                named["apex"] = self._apexes.get((named["subject"], named["clip"]), "")
                yield {**named, "emotion": named["emotion"].lower()}
            return
        classes = {}
        if self._classes:
            others = [self._named(row) for row in self._classes[1].rows.to_dict("records")]
            classes = {(row["subject"], row["clip"]): row["objective_class"] for row in others}
        for row in self._labels[1].rows.astype(str).to_dict("records"):
            named = self._named({**blank, **row})
            named["objective_class"] = classes.get((named["subject"], named["clip"]), named["objective_class"])
            yield {**named, "emotion": named["emotion"].lower()}

    def _named(self, values: Mapping[str, str]) -> dict[str, str]:
        """The fields of a sheet or a folder, with subject and clip as in the clip table."""
        named = {**values, "subject": self.subject_name(values["subject"])}
        return {**named, "clip": self.clip_name(named)}

    # Its sheets

    @cached_property
    def _labels(self) -> tuple[list[Path], Reading] | None:
        """Paths of the sheets that label the clips, the first of which is read; None where folders say all."""
        sheet = self.release.variant.sheet
        if self.sheet:
            path, worksheet = self._given
            return [path], (sheet or APEXES).read(path, worksheet)
        if sheet is None:
            return None
        paths = self._find(sheet)
        if not paths:
            raise InputError(
                f"{self.root}: holds no {sheet.file} (or {', '.join(SUFFIXES[1:])}) beside {self.release.folder}; name "
                f"one elsewhere with --data.sheet=FILE. {self._expected}"
            )
        return paths, sheet.read(paths[0])

    @cached_property
    def _classes(self) -> tuple[list[Path], Reading] | None:
        """The same of the sheet of objective classes; None where there is none."""
        paths = self._find(self.objective_classes) if self.objective_classes and self.release.variant.sheet else []
        return (paths, self.objective_classes.read(paths[0])) if self.objective_classes and paths else None

    @property
    def _given(self) -> tuple[Path, str]:
        """The file and the worksheet that the user has named, below the current folder or the root."""
        file, _, worksheet = self.sheet.rpartition(":")
        for name, title in ((self.sheet, ""), (file, worksheet)):
            for path in (Path(name), self.root / name):
                if name and path.is_file():
                    return path, title
        raise InputError(
            f"{self.sheet}: there is no such sheet; write --data.sheet=FILE or --data.sheet=FILE:WORKSHEET"
        )

    @property
    def _names_apex(self) -> bool:
        return self._labels is not None and "apex" not in self._labels[1].lacking and "apex" in self._labels[1].rows

    @cached_property
    def _apexes(self) -> dict[tuple[str, str], str]:
        """Apexes of a release without a sheet, by subject and clip."""
        if self.release.variant.sheet or not self._labels:
            return {}
        named = [self._named(row) for row in self._labels[1].rows.astype(str).to_dict("records")]
        return {(row["subject"], row["clip"]): row["apex"] for row in reversed(named)}

    @property
    def _unused_apexes(self) -> list[Problem]:
        there = {(row["subject"], row["clip"]) for row in self._rows()} if self._apexes else set()
        what, action = f"stands in {self.sheet} and has no folder of frames", "not used"
        return [Problem(self.name, *key, what, action, False) for key in self._apexes if key not in there]

    def _find(self, sheet: Sheet) -> list[Path]:
        return sheets.find(sheet.file, detect.sheet_folders(self.release, self.root, self.subjects))

    @property
    def _expected(self) -> str:
        layouts = "; ".join(dict.fromkeys("/".join((*v.inside[:1], v.frames)) for v in self.variants))
        written = dict.fromkeys(variant.sheet.file for variant in self.variants if variant.sheet)
        return (
            f"{self.title} has frames in {layouts}"
            + (f" and the sheet {' or '.join(written)}" if written else "")
            + f". {self.licence} Name the folder with DATA=... or --root."
        )

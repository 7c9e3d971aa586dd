"""What the datasets of video clips share: clips are checked, faces aligned, flow is computed once and cached."""

import multiprocessing
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import cache as once
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
import torch
import yaml

from data_modules import cache, folders, frames, protocols, sheets
from data_modules.base import Batch, FlowDataModule, resize
from data_modules.clips import Erratum, Problem, complain, rows
from data_modules.curation import Curated, Curator, Footage
from data_modules.folders import Found, Variant
from data_modules.frames import Preparation
from data_modules.progress import counting
from data_modules.sheets import Sheet
from mer import InputError, flow


class VideoDataModule(FlowDataModule):
    """Clips as folders of frames, as their authors distribute them.

    Args:
        cache: Folder of the cache.
        workers: Processes that fill it.
        crop: Side in pixels of the aligned face that flow is computed on and stored at.
        method: Optical flow, see ``mer.flow``.
        apex: ``sheet`` takes the annotated apex and spots it where there is none; ``spotted`` spots it in every clip.
        head_motion: ``removed`` takes the rigid motion of the head out of the flow.
        kwargs: As in ``FlowDataModule``.
    """

    places: ClassVar[tuple[str, ...]] = ("root", "cache", "workers")
    revision: ClassVar[tuple[int, ...]] = (flow.REVISION, frames.REVISION)

    # What a dataset declares
    title: ClassVar[str]
    licence: ClassVar[str]
    frames_per_second: ClassVar[int]
    emotions: ClassVar[tuple[str, ...]]
    subjects: ClassVar[str]  # pattern of a subject's folder
    variants: ClassVar[tuple[Variant, ...]]
    objective_classes: ClassVar[Sheet | None] = None  # where they have a sheet of their own
    errata: ClassVar[tuple[Erratum, ...]] = ()

    def __init__(
        self,
        cache: str = "cache",
        workers: int = 1,
        crop: int = 128,
        method: Literal["tvl1", "farneback", "dis"] = "tvl1",
        apex: Literal["sheet", "spotted"] = "sheet",
        head_motion: Literal["kept", "removed"] = "kept",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.cache, self.workers, self.crop = Path(cache), workers, crop
        self.method: Literal["tvl1", "farneback", "dis"] = method
        self.apex, self.head_motion = apex, head_motion

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
    def found(self) -> Found:
        """The release that is used.

        Raises:
            InputError: If the folder is missing or holds none that is known.
        """
        if not self.root.is_dir():
            raise InputError(f"{self.root}: there is no such folder. {self._expected}")
        releases = folders.look(self.root, self.variants, self.subjects)
        if not releases:
            raise InputError(f"{self.root}: holds no {self.title} as it is distributed. {self._expected}")
        return releases[0]

    @property
    def layout(self) -> str:
        """Which release of the dataset is used."""
        return self.found.layout

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with clips, and what was done about it."""
        return self.curated.problems

    def read_clips(self) -> pd.DataFrame:
        return self.curated.clips

    @cached_property
    def curated(self) -> Curated:
        """The clips that can be used, their frames, and the problems of the others.

        Raises:
            InputError: If the folder or its sheet cannot be used as a whole.
        """
        places, doubled = {}, []
        for path, values in self.found.clips(self.subjects):
            key = folders.key(self.found.variant, self._named(values))
            if key in places:
                what = f"{path} is a second folder of it"
                doubled.append(Problem(self.name, key[0], "_".join(key[1:]), what, f"{places[key]} is used", True))
            places.setdefault(key, path)
        lines = list(self._rows())
        outside = [
            f"row {row['row']}: {name} '{row[name][:80]}' leads to another folder"
            for row in lines
            for name in ("subject", "clip", "video")
            if re.search(r"[/\\\0]|^\.+$", row.get(name, ""))
        ]
        complain(self.root, outside, "A sheet as distributed names no folders: take the original.")
        curator = Curator(self.name, self.found, places, self.emotions, self.errata, doubled)
        curated = curator.run(lines, self.frames_per_second)
        if curated.clips.empty:
            listed = "".join(f"\n  {problem}" for problem in curated.problems[:10])
            raise InputError(f"{self.root}: not one clip can be used:{listed}\n{self._expected}")
        return curated

    def source_files(self, clips: pd.DataFrame) -> dict[str, int]:
        return {
            str(frame.path.relative_to(self.found.folder)): frame.size
            for row in rows(clips)
            for frame in self.footage(row).frames
        }

    def footage(self, row) -> Footage:
        """The frames of a row of the clip table."""
        return self.curated.footage[row.subject, row.clip]

    def _rows(self) -> Iterator[dict[str, str]]:
        """Rows of the sheet, or of the folders where they say all, with the names of the clip table."""
        sheet = self.found.variant.sheet
        if sheet is None:
            blank = dict.fromkeys(("onset", "apex", "offset", "objective_class", "action_units"), "")
            for path, values in self.found.clips(self.subjects):
                named = self._named({"row": str(path.relative_to(self.found.folder)), **blank, **values})
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
        named = {**values, "subject": self.subject_name(values["subject"])}
        return {**named, "clip": self.clip_name(named)}

    def _find(self, sheet: Sheet) -> Path | None:
        return sheets.find(sheet.file, folders.around(self.found, self.root, self.subjects))

    def _read(self, sheet: Sheet) -> pd.DataFrame:
        path = self._find(sheet)
        if path is None:
            raise InputError(f"{self.root}: holds no {sheet.file} beside {self.found.folder}. {self._expected}")
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

    # The cache

    @cached_property
    def folder(self) -> Path:
        """The cache of this recipe and these data."""
        return self.cache / self.name / f"{self.method}-{self.crop}-{cache.digest(self._recipe)}"

    @property
    def _recipe(self) -> dict:
        return {
            "dataset": self.name,
            "layout": self.layout,
            "crop": self.crop,
            "method": self.method,
            "apex": self.apex,
            "head_motion": self.head_motion,
            "revision": list(self.revision),
            "data": self.fingerprint,
        }

    @cached_property
    def clips(self) -> pd.DataFrame:
        """The clips of the protocol less those that ``prepare_data`` could not use."""
        clips = self.label(self.all_clips)
        usable = [not self._reason(row).exists() for row in rows(clips)]
        if not any(usable):
            raise InputError(f"{self.root}: not one clip can be prepared; {self.folder}/*.left_out have the reasons")
        return protocols.without_outer(clips.loc[usable].reset_index(drop=True), self.split)

    def prepare_data(self) -> None:
        """Fill the cache with the clips of the protocol that are not in it; name those that cannot be used."""
        clips = list(rows(self.label(self.all_clips)))
        pending = [row for row in clips if not self._file(row).exists() and not self._reason(row).exists()]
        if pending:
            cache.write_text(self.folder / "recipe.yaml", yaml.safe_dump(self._recipe))
            outcomes = frames.run([self._preparation(row) for row in pending], self.workers)
            with counting(self.name) as count:
                for done, (row, reason) in enumerate(zip(pending, outcomes, strict=True), start=1):
                    if reason:
                        cache.write_text(self._reason(row), reason)
                    count(done, len(pending))
            for name in ("clips", "folds"):
                self.__dict__.pop(name, None)
        lost = [problem for problem in self.problems if not problem.used]
        lost += [
            Problem(self.name, row.subject, row.clip, self._reason(row).read_text(), "left out", False)
            for row in clips
            if self._reason(row).exists()
        ]
        corrected = sum(problem.used for problem in self.problems)
        if self.problems or lost:
            _say(
                f"{self.name}: {len(lost)} left out, {corrected} corrected; `mer inspect {self.name}` lists all"
                + "".join(f"\n  {problem}" for problem in lost[:20])
                + (f"\n  ... and {len(lost) - 20} more" if len(lost) > 20 else "")
            )

    def load(self, clips: pd.DataFrame) -> Batch:
        return {
            "flow": torch.cat([resize(self.read(row)["flow"][None], self.size) for row in rows(clips)]),
        }

    def read(self, row) -> Batch:
        """What is cached of a clip: ``flow`` (3, crop, crop) and ``apex``, its frame. A damaged file is made again."""
        path = self._file(row)
        tensors = cache.read(path)
        if tensors is None:
            warnings.warn(f"{path}: missing or damaged, made again", stacklevel=2)
            reason = self._preparation(row).run()
            tensors = cache.read(path)
            if tensors is None:
                raise InputError(f"{row.subject} {row.clip}: {reason}")
        return {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}

    def _file(self, row) -> Path:
        return cache.clip_file(self.folder, row.subject, row.clip)

    def _reason(self, row) -> Path:
        """File that stands in the cache for a clip that cannot be used; it holds the reason."""
        return self._file(row).with_suffix(".left_out")

    def _preparation(self, row) -> Preparation:
        footage = self.footage(row)
        return Preparation(
            frames=tuple((frame.number, frame.path) for frame in footage.frames),
            apex=footage.apex if self.apex == "sheet" else None,
            target=self._file(row),
            size=self.crop,
            method=self.method,
            registered=self.found.registered,
            remove_head_motion=self.head_motion == "removed",
        )


@once
def _say(text: str) -> None:
    """Print on standard error, once: every model of a sweep prepares the same clips, and every worker looks again."""
    if multiprocessing.parent_process() is None:
        print(text, file=sys.stderr)

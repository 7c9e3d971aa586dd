"""Anybody's clips, from a table: a row for each, with its folder of frames or its video."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache as once
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pandas as pd

from data_modules import own_tables, protocols
from data_modules.cache import store
from data_modules.own_tables import Labels, Row
from data_modules.protocols import OWN, PROTOCOLS
from data_modules.release.audit import Audit, Auditor, ClipFrames
from data_modules.release.clip_table import COLUMNS, Problem, complain, rows
from data_modules.release.detect import Release, Variant
from data_modules.videos import VideoDataModule
from mer import InputError
from mer.preprocessing.frame_files import Frame, list_frames
from mer.preprocessing.video import Clip, FrameOfVideo, Video, open_clip


@dataclass(frozen=True)
class Table:
    """The clips that can be used, their frames by (dataset, subject, clip), and what is wrong with the others."""

    clips: pd.DataFrame
    frames: Mapping[tuple[str, str, str], ClipFrames]
    problems: list[Problem]


class Clips(VideoDataModule):
    """A folder with ``clips.csv`` or ``clips.xlsx``, see ``docs/clips.md``.

        clips.csv           subject,clip,path,emotion and, where there are any, dataset,onset,apex,offset,
                            frames_per_second,action_units,objective_class
        protocol.yaml       where labels are to be joined: classes: {negative: [disgust, fear], positive: [happiness]}
        ...                 folders of frames, and videos

    ``path`` lies below the folder as written; links in it are followed. Frames of a folder have the number at the end
    of their names, those of a video are counted from 0. Without onset and offset a clip is all of its folder or video,
    without apex it is spotted.

    Args:
        registered: The frames are crops of registered faces: no face is looked for, the middle square is used.
        kwargs: As in ``PreparedDataModule``. The protocol ``own`` has the labels of the table for classes, or those of
            ``protocol.yaml``; under another one, emotions are words that it knows.
    """

    name: ClassVar[str] = "clips"
    title: ClassVar[str] = "Clips from a table"
    licence: ClassVar[str] = "Who filmed them, and who is in them, say what may be done with clips and models."
    default_protocol: ClassVar[str] = OWN

    def __init__(self, registered: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.registered = registered

    @classmethod
    def protocol_name(cls, name: str, root: str) -> str:
        """That of ``own`` has the classes of the table in it.

        Raises:
            InputError: If there is no table, or the name is that of other classes.
        """
        if name in PROTOCOLS:
            return name
        own = own_tables.labels(Path(root or f"data/{cls.name}")).protocol
        if name not in ("", OWN, own) and protocols.is_protocol(name):
            raise InputError(f"protocol '{name}' is not that of the table any more, which is '{own}'")
        return own if name in ("", OWN, own) else name

    # The table and its clips

    @property
    def layout(self) -> str:
        return "table" + (" cropped" if self.registered else "")

    @property
    def frames_are_registered(self) -> bool:
        return self.registered

    @property
    def problems(self) -> list[Problem]:
        return self.table.problems

    @property
    def sources(self) -> list[str]:
        """The table that is read."""
        return [f"table {own_tables.read(self.root)[0]}"]

    def read_clips(self) -> pd.DataFrame:
        return self.table.clips

    @cached_property
    def labels(self) -> Labels:
        """What the emotions stand for under the protocol ``own``."""
        return own_tables.labels(self.root)

    @cached_property
    def table(self) -> Table:
        """The clips that can be used.

        Raises:
            InputError: If there is no table, or a row is wrong in itself; all such rows are listed.
        """
        file, lines = own_tables.read(self.root)
        labels = self.labels
        known = {word for rules in PROTOCOLS.values() for words in rules.emotions.values() for word in words}
        allowed = known if self.protocol in PROTOCOLS else {*labels.emotions}
        faults = own_tables.faults(self.root, lines, allowed | labels.left_out, _first_and_last)
        complain(file, faults, f"Mend {file.name} and run again; docs/clips.md says what each column holds.")
        tables, frames, problems = [], {}, []
        for dataset in dict.fromkeys(row["dataset"] for row in lines):
            of_one = [row for row in lines if row["dataset"] == dataset]
            audit = self._audit(dataset, of_one)
            tables.append(audit.clips)
            frames |= {(dataset, *key): clip for key, clip in audit.frames.items()}
            problems += audit.problems
        clips = pd.concat(tables, ignore_index=True)
        if clips.empty:
            listed = "".join(f"\n  {problem}" for problem in problems[:10])
            raise InputError(f"{file}: not one clip can be used:{listed}")
        rates = {(row["dataset"], row["subject"], row["clip"]): self._rate(row) for row in lines}
        clips["frames_per_second"] = [rates[row.dataset, row.subject, row.clip] for row in rows(clips)]
        return Table(clips[list(COLUMNS)], frames, problems)

    def _audit(self, dataset: str, lines: list[Row]) -> Audit:
        """The clips of one database whose frames can be used."""
        names_apex = any(row["apex"] for row in lines)
        folders = {(row["row"],): self.root / row["path"] for row in lines}
        emotions = {row["emotion"] for row in lines}
        auditor = _Auditor(
            dataset, Release(Variant("table", "{row}"), self.root, self.registered), folders, emotions, names_apex
        )
        return auditor.audit(lines, frames_per_second=0)

    def _rate(self, row: Row) -> float | int:
        """Frames per second, as the table says it, else the video; 0 where nobody does."""
        path = self.root / row["path"]
        rate = float(row["frames_per_second"] or 0)
        if not rate and os.path.isfile(path):
            try:
                rate = round(_opened(path).frames_per_second or 0, 3)
            except InputError:
                rate = 0.0  # it is left out already
        return int(rate) if rate == int(rate) else rate

    def source_files(self, clips: pd.DataFrame) -> dict[str, int]:
        return {
            str(frame.path.relative_to(self.root)): frame.size
            for row in rows(clips)
            for frame in self.clip_frames(row).frames
        }

    def clip_frames(self, row) -> ClipFrames:
        return self.table.frames[row.dataset, row.subject, row.clip]

    def _place(self, folder: Path, row) -> Path:
        return store.clip_file(folder, f"{row.dataset}/{row.subject}", row.clip)

    # Its labels

    def label(self, clips: pd.DataFrame, protocol: str = "") -> pd.DataFrame:
        name = protocol or self.protocol
        clips = clips.loc[~clips["emotion"].isin(self.labels.left_out)]
        if name in PROTOCOLS:
            return super().label(clips, name)
        return clips.assign(target=clips["emotion"].map(self.labels.emotions)).reset_index(drop=True)

    def known_protocols(self) -> list[str]:
        """Its own, and those of which it has every class."""
        labelled = set(zip(self.all_clips["dataset"], self.all_clips["emotion"], strict=True))
        present = {
            name: {rules.words(dataset).get(emotion) for dataset, emotion in labelled}
            for name, rules in PROTOCOLS.items()
        }
        own = [self.labels.protocol] if len(self.labels.classes) > 1 else []
        return own + [name for name in PROTOCOLS if {*PROTOCOLS[name].classes} <= present[name]]


class _Auditor(Auditor):
    """Checks clips whose frames may be those of a video."""

    def __post_init__(self):
        super().__post_init__()
        of_file = self._damage
        self._list = once(_frames)
        self._damage = lambda frame: "" if isinstance(frame, FrameOfVideo) else of_file(frame)


def _frames(path: Path) -> list[Frame]:
    """The frames of a folder or a video.

    Raises:
        OSError: If they cannot be listed.
    """
    if os.path.isdir(path):
        return list_frames(path)
    try:
        clip = _opened(path)
    except InputError as error:
        raise OSError(0, str(error).removeprefix(f"{path}: ")) from error
    size = path.stat().st_size
    return [FrameOfVideo(number, path, size) for number in range(clip.first, clip.last + 1)]


def _first_and_last(path: Path) -> tuple[int, int]:
    """Numbers of these frames of a folder or a video; -1 where there are none."""
    try:
        frames = _frames(path)
    except OSError:
        frames = []
    return (frames[0].number, frames[-1].number) if frames else (-1, -1)


def _opened(path: Path) -> Clip:
    """A video whose header has been read; once, as long as the file is the same."""
    state = path.stat()
    return _open(path, state.st_mtime_ns, state.st_size)


@once
def _open(path: Path, *_state: int) -> Clip:
    clip = open_clip(path)
    if not isinstance(clip, Video):
        raise InputError(f"{path}: is no video")
    return clip

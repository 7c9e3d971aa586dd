"""Flow maps that someone else has extracted, as laboratories hand them on when they may not hand on videos."""

import multiprocessing
import os
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_modules.base import FlowDataModule
from data_modules.cache.store import is_below
from data_modules.map_files import is_picture, read_map
from data_modules.protocols import protocol
from data_modules.release.clip_table import ONE_NAME, Problem, complain, rows, split_people, unsafe_names
from mer import InputError
from mer.preprocessing.motion import CHANNELS

if TYPE_CHECKING:
    from mer.models import Batch

COLUMNS = ("dataset", "subject", "clip", "emotion", "file")
LARGEST = 10 << 20
"""Bytes of a ``clips.csv`` that are read at most: a clip takes about 100."""
REMEDY = "Copy these maps again, or take their rows out of clips.csv."


class FlowMaps(FlowDataModule):
    """A folder of flow maps and a ``clips.csv``.

    Layout: ``clips.csv`` with the columns ``dataset, subject, clip, emotion, file``, ``file`` relative to the folder.
    It has to lie below it as written; links in the folder are followed. ``action_units``, as coded, is optional.
    Pictures: red = u (right), green = v (down), blue = strain; 0..255 stands for -1..1 of u and v, and for 0..1 of the
    strain. Other formats: see ``map_files.read_map``. ``emotion`` is the class of the protocol. Maps of several sizes
    are resampled to one.

    Args:
        root: The folder.
        motion: ``apex`` reads the map from onset to apex, ``both`` also that from apex to offset, of another column,
            ``file_return``: three more channels.
        kwargs: As in ``FlowDataModule``.
    """

    name: ClassVar[str] = "flow_maps"
    default_protocol: ClassVar[str] = "megc2019"

    def __init__(self, root: str = "", motion: Literal["apex", "both"] = "apex", **kwargs):
        super().__init__(root, **kwargs)
        self.motion, self.flow_channels = motion, CHANNELS[motion]
        self.files = ("file", "file_return") if motion == "both" else ("file",)  # columns

    def read_clips(self) -> pd.DataFrame:
        sheet = self.root / "clips.csv"
        if not sheet.is_file():
            raise InputError(
                f"{sheet}: there is no such file. A folder of flow maps holds images (red u, green v, blue strain), "
                f".npy or .flo, and clips.csv with the columns {', '.join(COLUMNS)}; name it with DATA=... or --root."
            )
        try:
            if sheet.stat().st_size > LARGEST:
                raise ValueError(f"it has over {LARGEST >> 20} MB")
            clips = pd.read_csv(sheet, dtype=str, keep_default_na=False, index_col=False).fillna("")
        except (OSError, ValueError) as error:
            raise InputError(f"{sheet}: is not a table of comma-separated values ({error})") from error
        needed = dict.fromkeys((*COLUMNS, *self.files))
        missing = [column for column in needed if column not in clips]
        if missing:
            raise InputError(
                f"{sheet}: lacks the column(s) {', '.join(missing)}; it has {', '.join(clips.columns)}. "
                f"Needed are {', '.join(needed)}."
            )
        for column in ("dataset", "subject", "clip", "emotion"):
            clips[column] = clips[column].str.strip()
        complain(sheet, split_people(clips, lambda number: f"line {number + 2}"), ONE_NAME)
        known = protocol(self.protocol).classes
        problems, line_of = unsafe_names(clips), {}
        for line, row in enumerate(rows(clips), start=2):
            if row.emotion not in known:
                problems.append(
                    f"line {line}: emotion '{row.emotion}' is no class of '{self.protocol}': {', '.join(known)}"
                )
            for file in self._files_of(row):
                if not is_below(file):
                    problems.append(f"line {line}: file '{file}' leads out of the folder")
                elif not os.path.isfile(self.root / file):
                    problems.append(f"line {line}: file '{file}' does not exist")
                else:
                    state = os.stat(self.root / file)  # links and other ways to write it lead to one file, too
                    place = state.st_dev, state.st_ino
                    if place in line_of:
                        problems.append(f"line {line}: file '{file}' is that of line {line_of[place]}")
                    line_of.setdefault(place, line)
        complain(sheet, problems, "Mend clips.csv and run again.")
        if clips.empty:
            raise InputError(f"{sheet}: holds no clip")
        return clips

    def _files_of(self, row) -> list[str]:
        """The maps of a row of the clip table."""
        return [getattr(row, column) for column in self.files]

    def label(self, clips: pd.DataFrame, protocol: str = "") -> pd.DataFrame:
        return clips.assign(target=clips["emotion"])

    def known_protocols(self) -> list[str]:
        return [self.protocol]

    @cached_property
    def problems(self) -> list[Problem]:
        """Maps that do not open, and those that look wrong; every map is opened."""
        problems, swapped = [], 0
        for row in rows(self.all_clips):
            clip = row.dataset, row.subject, row.clip
            for file in self._files_of(row):
                try:
                    flow = read_map(self.root / file)
                except InputError as error:
                    problems.append(Problem(*clip, str(error), "no model is trained before it is mended", False))
                    continue
                if (flow == flow[:, :1, :1]).all():
                    colour = "is all black" if (flow == [[[-1]], [[-1]], [[0]]]).all() else "has one value everywhere"
                    problems.append(Problem(*clip, f"{file} {colour} and shows no motion", "used as it is", True))
                else:
                    swapped += _looks_swapped(flow, is_picture(self.root / file))
        maps = len(self.all_clips) * len(self.files)
        if swapped * 2 > maps:
            what = "strain should be dark where the face rests: red is u, green is v, blue is strain; are they swapped?"
            some = f"{swapped} of {maps} maps"
            problems.append(Problem(self.name, "", some, what, "used as they are", True))
        return problems

    def prepare_data(self) -> None:
        """Open every map, so that one that does not open is named before anything is trained.

        Raises:
            InputError: If there are such.
        """
        damaged = [problem.what for problem in self.problems if not problem.used]
        complain(self.root, damaged, REMEDY)
        odd = [str(problem) for problem in self.problems]
        if odd and multiprocessing.parent_process() is None:  # every worker looks again
            more = f"\n  ... and {len(odd) - 20} more" if len(odd) > 20 else ""
            warnings.warn("".join(f"\n  {problem}" for problem in odd[:20]) + more, stacklevel=2)

    def source_files(self, clips: pd.DataFrame) -> dict[str, int]:
        return {file: (self.root / file).stat().st_size for column in self.files for file in clips[column]}

    def load(self, clips: pd.DataFrame) -> "Batch":
        import torch

        from mer.transforms import resize

        problems, maps = [], []
        for row in rows(clips):
            for file in self._files_of(row):
                try:
                    maps.append(resize(torch.from_numpy(read_map(self.root / file)), self.input_size))
                except InputError as error:
                    problems.append(str(error))
        complain(self.root, problems, REMEDY)
        return {"flow": torch.stack(maps).unflatten(0, (-1, len(self.files))).flatten(1, 2)}


def _looks_swapped(flow: NDArray[np.float32], picture: bool) -> bool:
    """Whether the third channel cannot be the strain, which is 0 at rest and never negative.

    In every one of 309 real maps of CASME II and SMIC the median of blue is below those of red and green.
    """
    if not picture:
        return bool(flow[2].min() < 0)
    red, green, blue = np.median(flow.reshape(3, -1), axis=1)
    return bool(2 * blue - 1 > min(red, green))

"""Flow maps that someone else has extracted, as laboratories hand them on when they may not hand on videos."""

import os
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from data_modules.base import Batch, FlowDataModule
from data_modules.cache.store import is_below
from data_modules.protocols import protocol
from data_modules.release.clip_table import complain, unsafe_names
from mer import InputError
from mer.preprocessing.frame_files import read_image
from mer.transforms import resize

COLUMNS = ("dataset", "subject", "clip", "emotion", "file")
LARGEST = 10 << 20
"""Bytes of a ``clips.csv`` that are read at most: a clip takes about 100."""


class FlowMaps(FlowDataModule):
    """A folder of images and a ``clips.csv``.

    Layout: ``clips.csv`` with the columns ``dataset, subject, clip, emotion, file``, ``file`` relative to the folder.
    It has to lie below it as written; links in the folder are followed.
    Pictures: red = u (right), green = v (down), blue = strain; 0..255 stands for -1..1 of u and v, and for 0..1 of the
    strain. ``emotion`` is the class of the protocol. Pictures of several sizes are resampled to one.
    """

    name: ClassVar[str] = "flow_maps"
    default_protocol: ClassVar[str] = "megc2019"

    def read_clips(self) -> pd.DataFrame:
        sheet = self.root / "clips.csv"
        if not sheet.is_file():
            raise InputError(
                f"{sheet}: there is no such file. A folder of flow maps holds images (red u, green v, blue strain) and "
                f"clips.csv with the columns {', '.join(COLUMNS)}; name the folder with DATA=... or --root."
            )
        try:
            if sheet.stat().st_size > LARGEST:
                raise ValueError(f"it has over {LARGEST >> 20} MB")
            clips = pd.read_csv(sheet, dtype=str, keep_default_na=False, index_col=False).fillna("")
        except (OSError, ValueError) as error:
            raise InputError(f"{sheet}: is not a table of comma-separated values ({error})") from error
        missing = [column for column in COLUMNS if column not in clips]
        if missing:
            raise InputError(
                f"{sheet}: lacks the column(s) {', '.join(missing)}; it has {', '.join(clips.columns)}. "
                f"Needed are {', '.join(COLUMNS)}."
            )
        known = protocol(self.protocol).classes
        problems = unsafe_names(clips)
        for line, (emotion, file) in enumerate(zip(clips["emotion"], clips["file"], strict=True), start=2):
            if emotion not in known:
                problems.append(
                    f"line {line}: emotion '{emotion}' is no class of '{self.protocol}': {', '.join(known)}"
                )
            if not is_below(file):
                problems.append(f"line {line}: file '{file}' leads out of the folder")
            elif not os.path.isfile(self.root / file):
                problems.append(f"line {line}: file '{file}' does not exist")
        complain(sheet, problems, "Mend clips.csv and run again.")
        if clips.empty:
            raise InputError(f"{sheet}: holds no clip")
        return clips

    def label(self, clips: pd.DataFrame, protocol: str = "") -> pd.DataFrame:
        return clips.assign(target=clips["emotion"])

    def known_protocols(self) -> list[str]:
        return [self.protocol]

    def prepare_data(self) -> None:
        """Open every picture, so that one that does not open is named before anything is trained."""
        self.load(self.clips)

    def source_files(self, clips: pd.DataFrame) -> dict[str, int]:
        return {file: (self.root / file).stat().st_size for file in clips["file"]}

    def load(self, clips: pd.DataFrame) -> Batch:
        problems, maps = [], []
        for file in clips["file"]:
            try:
                maps.append(read_image(self.root / file))
            except InputError as error:
                problems.append(str(error))
        complain(self.root, problems, "Copy these pictures again, or take their rows out of clips.csv.")
        return {"flow": torch.cat([resize(_flow(picture), self.input_size) for picture in maps])}


def _flow(picture: np.ndarray) -> Tensor:
    """Flow map (1, 3, H, W) of a picture (H, W, 3)."""
    red_green_blue = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    return torch.cat([red_green_blue[:, :2] * 2 - 1, red_green_blue[:, 2:]], dim=1)

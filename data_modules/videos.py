"""What the datasets of video clips share: faces are aligned, flow is computed once and cached."""

import json
import sys
import warnings
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
import torch
import yaml

from data_modules import cache, frames
from data_modules.base import Batch, FlowDataModule, resize
from data_modules.clips import frames as frames_of
from data_modules.frames import Preparation
from data_modules.progress import counting
from mer import flow


class VideoDataModule(FlowDataModule):
    """Clips as folders of frames.

    Args:
        cache: Folder of the cache.
        workers: Processes that fill it.
        crop: Side in pixels of the aligned face that flow is computed on and stored at.
        method: Optical flow, see ``mer.flow``.
        kwargs: As in ``FlowDataModule``.
    """

    places: ClassVar[tuple[str, ...]] = ("root", "cache", "workers")

    def __init__(
        self,
        cache: str = "cache",
        workers: int = 1,
        crop: int = 128,
        method: Literal["tvl1", "farneback", "dis"] = "tvl1",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.cache, self.workers, self.crop, self.method = Path(cache), workers, crop, method

    @cached_property
    def folder(self) -> Path:
        """The cache of this recipe and these data."""
        revisions = {"flow": flow.REVISION, "frames": frames.REVISION}
        key = {"crop": self.crop, "method": self.method, "revisions": revisions, "data": self.fingerprint}
        return self.cache / self.name / f"{self.method}-{self.crop}-{cache.digest(key)}"

    @cached_property
    def clips(self) -> pd.DataFrame:
        """The clips of the protocol less those that ``prepare_data`` could not use."""
        clips = self.label(self.all_clips)
        left_out = self._left_out()
        usable = [self._file(row).name not in left_out for row in clips.itertuples()]
        return clips[usable].reset_index(drop=True)

    def source_files(self, clips: pd.DataFrame) -> dict[str, int]:
        sizes = {}
        for row in clips.itertuples():
            for path in _between(row).values():
                sizes[str(path.relative_to(self.root))] = path.stat().st_size
        return sizes

    def prepare_data(self) -> None:
        """Fill the cache with the clips of the protocol that are not in it; name those that cannot be used."""
        clips = self.label(self.all_clips)
        pending = [row for row in clips.itertuples() if not self._file(row).exists()]
        if not pending:
            return
        cache.write_text(self.folder / "recipe.yaml", self._describe())
        outcomes = frames.run([self._preparation(row) for row in pending], self.workers)
        left_out = {}
        with counting(self.name) as count:
            for done, (row, problem) in enumerate(zip(pending, outcomes, strict=True), start=1):
                count(done, len(pending))
                if problem:
                    left_out[self._file(row).name] = problem
                    print(f"{row.subject} {row.clip} is left out: {problem}", file=sys.stderr)
        cache.write_text(self.folder / "left_out.json", json.dumps(left_out, indent=1))
        self.__dict__.pop("clips", None)

    def load(self, clips: pd.DataFrame) -> Batch:
        return {"flow": torch.cat([resize(self._flow(row)[None], self.size) for row in clips.itertuples()])}

    def _flow(self, row) -> torch.Tensor:
        """The cached flow map of a clip; a damaged file is made again."""
        path = self._file(row)
        tensors = cache.read(path)
        if tensors is None:
            warnings.warn(f"{path}: missing or damaged, made again", stacklevel=2)
            self._preparation(row).run()
            tensors = cache.read(path)
        return torch.from_numpy(tensors["flow"])

    def _file(self, row) -> Path:
        return cache.clip_file(self.folder, row.subject, row.clip)

    def _preparation(self, row) -> Preparation:
        files = _between(row)
        onset, apex = (min(files, key=lambda number: abs(number - wanted)) for wanted in (row.onset, row.apex))
        return Preparation(files[onset], files[apex], self._file(row), self.crop, self.method)

    def _left_out(self) -> set[str]:
        path = self.folder / "left_out.json"
        return set(json.loads(path.read_text())) if path.exists() else set()

    def _describe(self) -> str:
        return yaml.safe_dump(
            {"dataset": self.name, "crop": self.crop, "method": self.method, "data": self.fingerprint}
        )


def _between(row) -> dict[int, Path]:
    """Files of a clip's frames from onset to offset, by number."""
    return {number: path for number, path in frames_of(Path(row.folder)).items() if row.onset <= number <= row.offset}

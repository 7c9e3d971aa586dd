"""Clips with frames: what is cached of every clip, and how the cache is filled and read."""

import multiprocessing
import sys
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache as once
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import yaml

from data_modules.base import Selection
from data_modules.cache import extract, store
from data_modules.cache.extract import Entry
from data_modules.preparation import PreparedDataModule
from data_modules.processes.progress import clip_progress
from data_modules.release.audit import ClipFrames
from data_modules.release.clip_table import Problem, rows
from mer import InputError, flow
from mer.preprocessing.clip import REVISION, FlowPreparation, FramesPreparation, Source
from mer.preprocessing.depth import DepthPreparation, find_depth
from mer.preprocessing.video import FrameOfVideo

if TYPE_CHECKING:
    from torch import Tensor

    from mer.models import Batch


class VideoDataModule(PreparedDataModule):
    """Clips with frames, image files or videos, and a cache of flow and pictures.

    Args:
        kwargs: As in ``PreparedDataModule``.
    """

    # What a dataset declares besides its clips

    def clip_frames(self, row) -> ClipFrames:
        """The frames of a row of the clip table."""
        raise NotImplementedError

    @property
    def frames_are_registered(self) -> bool:
        """Whether the frames are crops of registered faces, in which no face is looked for."""
        return False

    def frame_sources(self, row) -> tuple[tuple[int, Source], ...]:
        """Number and source of every frame of a row of the clip table, in order; the first is the onset."""
        frames = self.clip_frames(row).frames
        return tuple((frame.number, frame if isinstance(frame, FrameOfVideo) else frame.path) for frame in frames)

    def depth_files(self, row) -> list[Path | None]:
        """The depth frame beside every frame of a row of the clip table; None where there is none."""
        return [find_depth(frame.path) for frame in self.clip_frames(row).frames]

    # The cache

    @property
    def folder(self) -> Path:
        """The cache of flow, onset and apex, for this recipe and these data."""
        return self._folders[0]

    @property
    def frames_folder(self) -> Path:
        """The cache of the input ``frames``."""
        return self._folders[1]

    @property
    def depth_folder(self) -> Path:
        """The cache of the input ``depth``, where that is read."""
        return self._folders[2]

    @cached_property
    def _folders(self) -> list[Path]:
        return list(self._recipes)

    @cached_property
    def _recipes(self) -> dict[Path, dict]:
        """The settings that each folder depends on."""
        flows = {"method": self.method, "backend": self.backend, "apex": self.apex, "flow_revision": flow.REVISION}
        flows |= {} if self.motion == "apex" else {"motion": self.motion}
        recipes = {
            f"{self.method}-{self.crop_size}": {**self._recipe, **flows},
            f"frames{self.num_frames}-{self.crop_size}": {**self._recipe, "num_frames": self.num_frames},
        }
        if "depth" in self.inputs:
            recipes[f"depth-{self.crop_size}"] = {**self._recipe, "apex": self.apex}
        folder = self.cache / self.name
        return {folder / f"{name}-{store.digest(recipe)}": recipe for name, recipe in recipes.items()}

    @property
    def _recipe(self) -> dict:
        """The settings that all folders depend on."""
        return {
            "dataset": self.name,
            "layout": self.layout,
            "crop_size": self.crop_size,
            "head_motion": self.head_motion,
            "revision": REVISION,
            "data": self.fingerprint,
        }

    def usable_clips(self) -> pd.DataFrame:
        """The clips of the protocol less those that ``prepare_data`` could not use.

        The column ``cached`` is a clip's file below the cache.
        """
        clips = self.label(self.all_clips)
        usable = [not any(reason(entry).exists() for entry in self._entries(row)) for row in rows(clips)]
        if not any(usable):
            why = next(file for row in rows(clips) for file in map(reason, self._entries(row)) if file.exists())
            raise InputError(
                f"{self.root}: not one clip can be prepared; {why.parent}/*.left_out have the reasons, as "
                f"{why.read_text()}"
            )
        clips = clips.loc[usable].reset_index(drop=True)
        return clips.assign(cached=[self._file(row).relative_to(self.cache).as_posix() for row in rows(clips)])

    def prepare_data(self) -> None:
        """Fill the cache with the clips of the protocol that are not in it; name those that cannot be used."""
        clips = list(rows(self.label(self.all_clips)))
        _say("\n  ".join((f"{self.name}: {self.layout}", *self.sources)))
        wanted = [entry for row in clips for entry in self._entries(row) if not reason(entry).exists()]
        with ThreadPoolExecutor(self.workers) as pool:
            whole = list(pool.map(_is_whole, [entry.target for entry in wanted]))
        pending = [entry for entry, is_whole in zip(wanted, whole, strict=True) if not is_whole]
        damaged = [entry.target for entry in pending if entry.target.exists()]
        if damaged:
            more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
            names = ", ".join(map(str, damaged[:3]))
            warnings.warn(f"{names}{more}: damaged, made again", stacklevel=2)
        if pending:
            self._fill(pending)
        self._report(clips)
        self.selection = Selection(self)

    def _fill(self, pending: Sequence[Entry]) -> None:
        """Write a file into the cache for each of these, or the reason why there is none."""
        for folder in dict.fromkeys(entry.target.parent for entry in pending):
            store.write_text(folder / "recipe.yaml", yaml.safe_dump(self._recipes[folder]))
        if self.backend == "torch":
            from data_modules.cache import extract_on_gpu

            fill = extract_on_gpu.run
        else:
            fill = extract.run
        with clip_progress(self.name) as count:
            for done, (entry, why) in enumerate(zip(pending, fill(pending, self.workers)), start=1):
                if why:
                    store.write_text(reason(entry), why)
                count(done, len(pending))

    def _report(self, clips: Sequence) -> None:
        """Say which clips, rows of the clip table, are left out, and how many are corrected."""
        lost = [problem for problem in self.problems if not problem.used]
        for row in clips:
            reasons = [reason(entry).read_text() for entry in self._entries(row) if reason(entry).exists()]
            lost += [Problem(row.dataset, row.subject, row.clip, why, "left out", False) for why in reasons[:1]]
        corrected = sum(problem.used for problem in self.problems)
        if self.problems or lost:
            _say(
                f"{self.name}: {len(lost)} left out, {corrected} corrected; "
                f"`mer inspect {self.name} --root {self.root}` lists all"
                + "".join(f"\n  {problem}" for problem in lost[:20])
                + (f"\n  ... and {len(lost) - 20} more" if len(lost) > 20 else "")
            )

    def load(self, clips: pd.DataFrame) -> "Batch":
        import torch

        from mer.transforms import resize

        loaded: dict[str, list[Tensor]] = {name: [] for name in self.inputs}
        for row in rows(clips):
            for entry in self._entries(row):
                tensors = self._cached(entry, row)
                for name in loaded.keys() & tensors.keys():
                    loaded[name].append(resize(tensors[name], self.input_size))
        return {name: torch.stack(tensors) for name, tensors in loaded.items()}

    def read(self, row) -> "Batch":
        """What is cached of a clip, see ``FlowPreparation``. A damaged file is made again."""
        return self._cached(self._flow_entry(row), row)

    def _cached(self, entry: Entry, row) -> "Batch":
        import torch

        tensors = store.read(entry.target)
        if tensors is None:
            computed = entry.tensors()
            tensors = store.read(entry.target)  # another worker that needs it may have been faster
        if tensors is None:
            from data_modules.cache import extract_on_gpu

            warnings.warn(f"{entry.target}: missing or damaged, made again", stacklevel=2)
            (why,) = extract_on_gpu.finish([(entry, computed)], extract_on_gpu.devices()[0])
            tensors = store.read(entry.target)
            if tensors is None:
                raise InputError(f"{row.subject} {row.clip}: {why}")
        return {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}

    def _file(self, row) -> Path:
        return self._place(self.folder, row)

    def _place(self, folder: Path, row) -> Path:
        """The file of a clip in a folder of the cache."""
        return store.clip_file(folder, row.subject, row.clip)

    def _entries(self, row) -> Iterator[Entry]:
        """What has to be cached of a clip."""
        if not {"flow", "onset", "apex"}.isdisjoint(self.inputs):
            yield self._flow_entry(row)
        if "frames" in self.inputs:
            frames = FramesPreparation(**self._from(row), count=self.num_frames)
            yield Entry(frames, self._place(self.frames_folder, row))
        if "depth" in self.inputs:
            depth = DepthPreparation(**self._from(row), apex=self._apex(row))
            yield Entry(depth, self._place(self.depth_folder, row))

    def _flow_entry(self, row) -> Entry:
        method = self.method if self.backend == "opencv" else None
        preparation = FlowPreparation(**self._from(row), apex=self._apex(row), method=method, motion=self.motion)
        return Entry(preparation, self._file(row))

    def _apex(self, row) -> int | None:
        return self.clip_frames(row).apex if self.apex == "sheet" else None

    def _from(self, row) -> dict:
        """How the frames of a clip are read and aligned."""
        return {
            "frames": self.frame_sources(row),
            "size": self.crop_size,
            "registered": self.frames_are_registered,
            "remove_head_motion": self.head_motion == "removed",
        }


def reason(entry: Entry) -> Path:
    """The file in the cache that says why a clip cannot be used; it exists only then."""
    return entry.target.with_suffix(".left_out")


def _is_whole(path: Path) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    return _opens(path, state.st_mtime_ns, state.st_size)


@once
def _opens(path: Path, *_state: int) -> bool:
    """Whether a cached file is not damaged; every model of a sweep prepares the same clips, and one look is enough."""
    return store.read(path) is not None


@once
def _say(text: str) -> None:
    """Print on standard error, once: every model of a sweep prepares the same clips, and every worker looks again."""
    if multiprocessing.parent_process() is None:
        print(text, file=sys.stderr)

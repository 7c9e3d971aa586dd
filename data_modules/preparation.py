"""How clips become flow and pictures: the options that all data modules with frames have in common."""

import inspect
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from data_modules.base import FlowDataModule
from mer import InputError, flow
from mer.preprocessing import clip
from mer.preprocessing.motion import CHANNELS, Motion

if TYPE_CHECKING:
    import torch

    from data_modules.batches import Batches


def resolve(
    backend: Literal["auto", "opencv", "torch"], method: Literal["tvl1", "farneback", "dis"], gpu: bool
) -> Literal["opencv", "torch"]:
    """What ``auto`` means, with or without a GPU."""
    if backend != "auto":
        return backend
    return "torch" if gpu and method == "tvl1" else "opencv"


class PreparedDataModule(FlowDataModule):
    """Clips as folders of frames, whose flow is computed once and cached.

    Besides ``flow`` a batch can hold pictures of the aligned face, uint8 RGB: ``onset`` and ``apex``, (B, 3, S, S), and
    ``frames``, (B, num_frames, 3, S, S), with S the ``input_size``.

    Args:
        cache: Folder of the cache.
        workers: Processes that fill it.
        crop_size: Side in pixels of the aligned face that flow is computed on; flow and pictures are stored at it.
        num_frames: Pictures of a clip that make the input ``frames``, spread evenly from onset to offset.
        method: Optical flow, see ``mer.flow``.
        backend: What computes it: ``opencv`` in processes on the CPU, ``torch`` in batches on all GPUs (TV-L1 alone);
            ``auto`` takes ``torch`` for TV-L1 where there is a GPU.
        apex: ``sheet`` takes the annotated apex and spots it where there is none; ``spotted`` spots it in every clip.
        head_motion: ``removed`` takes the rigid motion of the head out of the flow.
        motion: ``apex`` is the flow from onset to apex; ``both`` adds that from apex to offset, three more channels;
            ``pairs`` trains on the flow between the frames beside onset and apex, too, one map of a clip at a time.
        kwargs: As in ``FlowDataModule``.
    """

    available_inputs: ClassVar[tuple[str, ...]] = ("flow", "onset", "apex", "frames")
    path_arguments: ClassVar[tuple[str, ...]] = ("root", "cache", "workers")

    def __init__(
        self,
        cache: str = "cache",
        workers: int = 1,
        crop_size: int = 128,
        num_frames: int = 6,
        method: Literal["tvl1", "farneback", "dis"] = "tvl1",
        backend: Literal["auto", "opencv", "torch"] = "auto",
        apex: Literal["sheet", "spotted"] = "sheet",
        head_motion: Literal["kept", "removed"] = "kept",
        motion: Motion = "apex",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if backend == "torch" and method != "tvl1":
            raise InputError(f"backend torch has no flow '{method}'; take --data.backend=opencv or --data.method=tvl1")
        if num_frames < 2 or num_frames % 2 or crop_size < flow.SMALLEST:
            raise InputError(
                f"num_frames {num_frames} must be even, as frames are read in pairs, and 2 or more; crop_size "
                f"{crop_size} must be {flow.SMALLEST} or more, the least that flow is computed on"
            )
        self.cache, self.workers, self.crop_size, self.num_frames = Path(cache), workers, crop_size, num_frames
        self.method: Literal["tvl1", "farneback", "dis"] = method
        self.asked_backend: Literal["auto", "opencv", "torch"] = backend
        self.apex, self.head_motion = apex, head_motion
        self.motion: Motion = motion
        self.flow_channels = CHANNELS[motion]

    @cached_property
    def backend(self) -> Literal["opencv", "torch"]:
        """What computes flow; torch, which knows whether there is a GPU, takes seconds to import."""
        import torch

        return resolve(self.asked_backend, self.method, torch.cuda.is_available())

    def setup(self, device: "torch.device | str" = "cpu") -> None:
        """Put the tensors of all clips on the device, once."""
        from data_modules.batches import spread_maps

        is_new = not self.store
        super().setup(device)
        if is_new and self.motion == "pairs" and "flow" in self.inputs:
            self.store = spread_maps(self.store)

    def train_dataloader(self, part: tuple[int, int] = (0, 1)) -> "Batches":
        """As in ``FlowDataModule``; of each clip any one of its rows, if it has a row for each of its maps."""
        batches = super().train_dataloader(part)
        batches.rows_of_clip = len(self.store["clip"]) // len(self.clips)
        return batches

    @property
    def revision(self) -> tuple[int, ...]:
        """Revisions of all code that makes tensors of the same files."""
        return (*super().revision, flow.REVISION, clip.REVISION)

    @property
    def preparation(self) -> dict:
        """The values of the options of this class, by name."""
        names = inspect.signature(PreparedDataModule.__init__).parameters
        options = {name: getattr(self, name) for name in names if name not in ("self", "kwargs", "backend")}
        return {**options, "backend": self.asked_backend}

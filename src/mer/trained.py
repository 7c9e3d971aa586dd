"""A trained model from its folder: the frames of a clip in, probabilities and pictures out.

    model = mer.load("models/casme3-ahmsa_net")
    result = model.predict("clip.mp4")

The folder is written by ``mer fit``: ``model.safetensors``, the weights of every seed; ``config.yaml``, the network and
how its input is made; ``README.md``, the model's card.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mer import InputError, model_folder
from mer.flow import SMALLEST, with_strain
from mer.flow.tvl1 import tvl1
from mer.model_folder import read_config, revisions
from mer.models import Network
from mer.prediction import Prediction
from mer.preprocessing import apex as apexes
from mer.preprocessing import quality
from mer.preprocessing.clip import FlowPreparation, FramesPreparation, VideoFrame, finder, read_frame
from mer.preprocessing.depth import DepthPreparation
from mer.preprocessing.motion import CHANNELS, MAPS, Motion
from mer.preprocessing.spotting import Spotted, spot_intervals
from mer.preprocessing.video import Clip, open_clip
from mer.training.task import Task
from mer.transforms import normalise_flow, resize

WATCHED = 64
"""Frames of a clip in which the movement is measured, where the apex is given."""


class Model:
    """A trained recipe: a task for each of its seeds, whose probabilities are averaged.

    Args:
        folder: As written by ``mer fit``.
        device: As torch names it; by default the first GPU, or the CPU where there is none.
        allow: Packages whose classes the model may consist of, besides ``mer``.

    Attributes:
        classes: Names of the classes, in order.
        config: What ``config.yaml`` says.

    Raises:
        InputError: If this is no model's folder, or it is damaged, or was written for other code.
    """

    def __init__(self, folder: str | Path, device: str | None = None, allow: Sequence[str] = ()):
        self.folder = Path(folder)
        self.device = _device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.config = read_config(self.folder / "config.yaml")
        self.classes: tuple[str, ...] = tuple(self.config["classes"])
        self.input: Mapping[str, Any] = self.config["input"]
        self.motion: Motion = "both" if self.input.get("motion") == "both" else "apex"
        try:
            self.tasks = self._tasks(("mer", *allow))
        except InputError:
            raise
        except Exception as error:  # a network may raise anything where its arguments are odd
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{self.folder}: is damaged, or was written for other code: {type(error).__name__}, {reason}; copy the "
                "model again, or fit it anew"
            ) from error

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    def _tasks(self, packages: Sequence[str]) -> list[Task]:
        """The tasks with their weights, at test time."""
        weights = model_folder.read_weights(self.folder / "model.safetensors", self.config["sha256"], str(self.device))
        tasks = [task.to(self.device).eval() for task in model_folder.tasks(self.config, weights, packages)]
        self._check_revisions(tasks[0].network)
        self._check_shapes(tasks[0])
        return tasks

    def _check_shapes(self, task: Task) -> None:
        """Have a task predict a clip without motion, so that a wrong configuration is found before a clip is read."""
        size = (self.input["input_size"],) * 2
        shapes = {"frames": (1, self.input.get("num_frames", 2), 3, *size), "flow": (1, CHANNELS[self.motion], *size)}
        clip = {name: torch.zeros(shapes.get(name, (1, 3, *size)), device=self.device) for name in self.input["inputs"]}
        with torch.inference_mode():
            found = tuple(task.predict_step(clip).shape)
        if found != (1, len(self.classes)):
            raise ValueError(f"the network has {found[-1]} classes, and {len(self.classes)} are named")

    def _check_revisions(self, network: Network) -> None:
        now, then = revisions(network), self.config["revisions"]
        changed = [name for name in now if now[name] != then.get(name)]
        if changed:
            raise InputError(
                f"{self.folder}: was trained with mer {self.config['mer']}, whose {' and '.join(changed)} gave other "
                "tensors than this one's; install that version, or fit the model again"
            )

    def predict(
        self,
        clip: str | Path | Clip,
        *,
        onset: int | str | None = None,
        apex: int | str | None = None,
        offset: int | str | None = None,
        frames_per_second: float | None = None,
        registered: bool = False,
    ) -> Prediction:
        """Classify a short clip.

        Args:
            clip: A video file, a folder of frames, or ``onset.png:apex.png``.
            onset: Frame number, or seconds from the first frame as ``0.4s``; the first frame by default.
            apex: Likewise; spotted by default.
            offset: Likewise; the last frame by default.
            frames_per_second: In place of what the file says.
            registered: The frames are crops of registered faces: no face is looked for.

        Raises:
            InputError: If it is no such clip, has no face or two, or is long, see ``Clip.is_long``.
        """
        clip = clip if isinstance(clip, Clip) else open_clip(clip, frames_per_second)
        first = clip.first if onset is None else clip.number(onset)
        last = clip.last if offset is None else clip.number(offset)
        wanted = None if apex is None else clip.number(apex)
        if not first < (last if wanted is None else wanted) <= last:
            raise InputError(f"{clip.name}: onset {first}, apex {wanted}, offset {last} are not in this order")
        if clip.is_long(first, last):
            raise InputError(
                f"{clip.name}: has {last - first + 1} frames, which is no micro-expression; spot it first, as "
                "mer predict does, or name its onset and offset"
            )
        name = clip.name if (first, last) == (clip.first, clip.last) else f"{clip.name}, frames {first} to {last}"
        predicted = self._predict(name, clip.frames_per_second, tuple(clip.frames(first, last)), wanted, registered)
        return replace(predicted, start=clip.first)

    def predict_long(
        self, clip: str | Path | Clip, *, frames_per_second: float | None = None
    ) -> tuple[Spotted, list[Prediction], list[InputError]]:
        """Spot the micro-expressions of a long clip, and classify each.

        Args:
            clip: A video file or a folder of frames.
            frames_per_second: In place of what the file says.

        Returns:
            What was spotted and can be predicted, a prediction for each of its intervals, and why others have none.

        Raises:
            InputError: If it is no such clip, has no face, or nobody knows its frame rate.
        """
        clip = clip if isinstance(clip, Clip) else open_clip(clip, frames_per_second)
        if clip.frames_per_second is None:
            raise InputError(
                f"{clip.name}: nothing says its frame rate, without which nothing is spotted; give --frames-per-second"
            )
        numbers: list[int] = []

        def images() -> Iterator[NDArray[np.uint8]]:
            for number, source in clip.frames():
                numbers.append(number)
                yield read_frame(source)

        spotted = spot_intervals(images(), clip.frames_per_second)
        kept, predictions, left_out = [], [], []
        for interval in spotted.intervals:
            onset, apex, offset = (numbers[index] for index in (interval.onset, interval.apex, interval.offset))
            try:
                predictions.append(self.predict(clip, onset=onset, apex=apex, offset=offset))
                kept.append(interval)
            except InputError as error:
                left_out.append(InputError(f"{clip.name}, frames {onset} to {offset}: left out, as {error}"))
        return replace(spotted, intervals=tuple(kept)), predictions, left_out

    def _predict(
        self,
        name: str,
        frames_per_second: float | None,
        frames: tuple[tuple[int, Path | VideoFrame], ...],
        apex: int | None,
        registered: bool,
    ) -> Prediction:
        how = {key: self.input.get(key) for key in ("crop_size", "method", "backend", "head_motion", "num_frames")}
        if how["method"] is None:
            raise InputError(f"{self.folder}: was trained on flow that others have computed, and so predicts no clips")
        if len(frames) <= MAPS[self.motion]:
            raise InputError(f"{name}: frames from onset to offset: {len(frames)}; flow needs {MAPS[self.motion] + 1}")
        common = {
            "size": how["crop_size"],
            "registered": registered,
            "remove_head_motion": how["head_motion"] == "removed",
        }
        method = how["method"] if how["backend"] == "opencv" else None
        work = FlowPreparation(frames=frames, **common, apex=apex, method=method, motion=self.motion)
        onset = read_frame(frames[0][1])
        if min(onset.shape[:2]) < SMALLEST:
            raise InputError(f"{name}: has {onset.shape[1]} x {onset.shape[0]} px; {SMALLEST} px is the least")
        if not registered and quality.count_faces(onset) > 1:
            raise InputError(f"{name}: there are two faces in frame {frames[0][0]}; cut the video to one of them")
        landmarks = None if registered else work.landmarks(onset)
        numbers, movement, crops = work.watch(onset, landmarks, None if apex is None else WATCHED)
        if apex is None:
            work = replace(work, apex=numbers[apexes.spot(movement)])
        tensors = work.compute(onset, landmarks)
        if "frames" in self.input["inputs"]:
            tensors |= FramesPreparation(frames=frames, **common, count=how["num_frames"]).compute(onset, landmarks)
        if "depth" in self.input["inputs"]:
            tensors |= DepthPreparation(frames=frames, **common, apex=work.apex).compute(onset, landmarks)
        if "pairs" in tensors:
            starts, ends = torch.from_numpy(tensors.pop("pairs")).to(self.device).split(1, dim=1)
            tensors["flow"] = np.concatenate([with_strain(flow) for flow in tvl1(starts, ends).cpu().numpy()])
        used = int(tensors["apex_frame"][0])
        probabilities, attention = self.classify(
            {name: torch.from_numpy(tensors[name]) for name in self.input["inputs"]}
        )
        image = read_frame(dict(frames)[used])
        doubts = quality.doubts(
            frames_per_second=frames_per_second,
            onset_landmarks=landmarks,
            apex_landmarks=None if registered else finder().landmarks(image),
            flow=tensors["flow"][:3],
            movement=movement[: 1 + int(np.searchsorted(numbers, used))],
            crops=crops,
        )
        return Prediction(
            clip=name,
            classes=self.classes,
            probabilities=probabilities.mean(0),
            spread=probabilities.std(0),
            onset=frames[0][0],
            apex=used,
            offset=frames[-1][0],
            frames_per_second=frames_per_second,
            face_width=None if landmarks is None else quality.face_width(landmarks),
            warnings=tuple(doubts),
            flow=tensors["flow"][:3],
            onset_face=tensors["onset"].transpose(1, 2, 0),
            apex_face=tensors["apex"].transpose(1, 2, 0),
            attention=attention,
            frame_numbers=np.array(numbers),
            movement=movement,
        )

    def classify(self, tensors: Mapping[str, Tensor]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Classify what was prepared of one clip.

        Args:
            tensors: The model's inputs, as a cache has them: ``flow`` (C, H, W) in pixels, pictures uint8.

        Returns:
            Probabilities of each seed, (seeds, K), and the attention map (S, S) or None.
        """
        batch = {
            name: resize(tensor, self.input["input_size"])[None].to(self.device) for name, tensor in tensors.items()
        }
        if "flow" in batch:
            batch["flow"] = normalise_flow(batch["flow"])
        with torch.inference_mode(), _one_thread():
            probabilities = torch.cat([task.predict_step(batch) for task in self.tasks])
            if not self.tasks[0].network.shows_attention:
                return probabilities.cpu().numpy(), None
            maps = torch.cat([task.attention(batch) for task in self.tasks])
        return probabilities.cpu().numpy(), maps.mean(0).cpu().numpy()


def load(folder: str | Path, device: str | None = None, allow: Sequence[str] = ()) -> Model:
    """The model of a folder, see ``Model``."""
    return Model(folder, device, allow)


def _device(name: str) -> torch.device:
    """A device that can be used here.

    Raises:
        InputError: If there is none of this name.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the second where torch was built without it
        reason = str(error).partition("\n")[0][:200]
        raise InputError(f"device '{name}' cannot be used here ({reason}); name another, or take cpu") from error


@contextmanager
def _one_thread() -> Iterator[None]:
    """Inside the block torch uses one thread, as a worker of a sweep does: sums are rounded as there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

"""A table of clips as anybody may write one: half of the clips are folders of frames, half are videos."""

import csv
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from data_modules.release.sheets import Sheet
from data_modules.synthesis import action_units
from data_modules.synthesis.layouts.layout import Clip, Layout
from mer.preprocessing.opencv import cv2

RATE = 60  # frames per second


class ClipsLayout(Layout):
    """The folder that ``--dataset clips`` reads.

    root/clips.csv
    root/frames/p01/c01/0.jpg         odd clips
    root/videos/p01_c02.avi           even clips, MJPG
    root/truth/p01_c01.safetensors

    Films go on before the onset and after the offset. One clip in five has no apex in the table; one in five is
    nothing but the expression, without a number in the table.
    """

    dataset: ClassVar[str] = "clips"
    label: ClassVar[str] = "a table of clips"
    people: ClassVar[int] = 400
    row: ClassVar[str] = r"(?!)"  # there is no real sheet
    emotions: ClassVar[Mapping[str, Mapping[str, int]]] = {
        name: action_units.SAMM_EMOTIONS[name] for name in ("happiness", "surprise", "disgust", "anger")
    }
    cycle: ClassVar[tuple[str, ...]] = ("happiness", "surprise", "disgust", "anger")
    length: ClassVar[tuple[int, int]] = (12, 20)
    onset: ClassVar[tuple[int, int]] = (3, 9)
    subjects: ClassVar[int] = 6
    clips: ClassVar[int] = 9

    @property
    def sheet(self) -> Sheet:
        return Sheet("clips.xlsx", {name: name for name in ("subject", "clip", "path", "emotion")})

    def subject(self, number: int) -> str:
        return f"p{number:02d}"

    def names(self, generator: np.random.Generator, subject: str, clips: int) -> list[str]:
        return [f"c{number:02d}" for number in range(1, clips + 1)]

    def arrange(self, rows: list[Clip], generator: np.random.Generator) -> list[Clip]:
        return [replace(clip, lead=clip.onset, tail=5) if _has_numbers(clip) else _from_zero(clip) for clip in rows]

    def frame(self, clip: Clip, number: int) -> str:
        return f"frames/{clip.subject}/{clip.name}/{number}.jpg"

    def add_frame(self, root: Path, clip: Clip, number: int, photograph: bytes) -> None:
        super().add_frame(root, clip, number, photograph)
        if _is_video(clip) and number == clip.offset + clip.tail:
            folder = (root / self.frame(clip, number)).parent
            _write_video(root / _path(clip), [folder / f"{number}.jpg" for number in range(number + 1)])
            shutil.rmtree(folder)

    def finish(self, root: Path, table: list[Clip]) -> None:
        with (root / "clips.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(
                ("subject", "clip", "path", "emotion", "onset", "apex", "offset", "frames_per_second", "action_units")
            )
            for clip in table:
                numbers = (clip.onset, "" if _number(clip) % 5 == 3 else clip.apex, clip.offset)
                writer.writerow(
                    (clip.subject, clip.name, _path(clip), clip.emotion, *(numbers if _has_numbers(clip) else [""] * 3),
                     "" if _is_video(clip) else RATE, clip.action_units)
                )  # fmt: skip


def _number(clip: Clip) -> int:
    return int(clip.name.removeprefix("c"))


def _is_video(clip: Clip) -> bool:
    return _number(clip) % 2 == 0


def _has_numbers(clip: Clip) -> bool:
    return _number(clip) % 5 != 4


def _from_zero(clip: Clip) -> Clip:
    return replace(clip, onset=0, apex=clip.apex - clip.onset, offset=clip.offset - clip.onset)


def _path(clip: Clip) -> str:
    return f"videos/{clip.subject}_{clip.name}.avi" if _is_video(clip) else f"frames/{clip.subject}/{clip.name}"


def _write_video(path: Path, frames: list[Path]) -> None:
    """MJPG at its best quality: the same frames give the same bytes."""
    path.parent.mkdir(exist_ok=True)
    images = [cv2.imread(str(frame)) for frame in frames]
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, code, RATE, images[0].shape[1::-1])
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, 98)
    for image in images:
        writer.write(image)
    writer.release()

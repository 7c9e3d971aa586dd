"""Clips as people have them: a video file, a folder of frames, or two pictures, onset and apex."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, local

import numpy as np
from numpy.typing import NDArray

from mer import InputError
from mer.preprocessing.clip import VideoFrame
from mer.preprocessing.faces import silence
from mer.preprocessing.frame_files import IMAGE_SUFFIXES, Frame, list_frames
from mer.preprocessing.opencv import cv2

LOST = 0.02
"""Part of the frames that a video's header may promise and its stream not hold: headers of some containers estimate."""

# How videos start. FFmpeg reads playlists too, which are text and name other files of the machine.
_STARTS = re.compile(
    rb"RIFF....AVI |....(ftyp|moov|mdat|wide|free|skip)|\x1aE\xdf\xa3|\x30\x26\xb2\x75|FLV|OggS|GIF8"
    rb"|\x00\x00\x01[\xba\xb3]|G.{187}G",
    re.DOTALL,
)

LONGEST = 2.0
"""Seconds of a clip in which nothing has to be spotted."""

MOST_FRAMES = 600
"""As ``LONGEST``, where nobody knows the frame rate: CAS(ME)^3 has clips of over 400 frames."""


@dataclass(frozen=True)
class Clip:
    """Frames that belong together, read when they are asked for.

    Attributes:
        name: As it was given.
        frames_per_second: None if nothing says it.
        first: Number of the first frame.
        last: Number of the last frame; of a video as its header says, which may be a little more than there is.
    """

    name: str
    frames_per_second: float | None
    first: int
    last: int

    def frames(self, first: int | None = None, last: int | None = None) -> Iterator[tuple[int, Path | VideoFrame]]:
        """Number and source of the frames from ``first`` to ``last``, both included; all by default.

        Raises:
            InputError: If they cannot be read.
        """
        raise NotImplementedError

    def is_long(self, first: int | None = None, last: int | None = None) -> bool:
        """Whether it, or a part of it, is so long that micro-expressions have to be spotted in it first."""
        length = (self.last if last is None else last) - (self.first if first is None else first)
        return length > (LONGEST * self.frames_per_second if self.frames_per_second else MOST_FRAMES)

    def number(self, place: int | str) -> int:
        """The frame at a place: its number, or a time in seconds from the first frame, ``0.4s``.

        Raises:
            InputError: If it is neither, or a time where nobody knows the frame rate, or lies outside the clip.
        """
        text = str(place).strip()
        try:
            if text.endswith("s"):
                if self.frames_per_second is None:
                    raise InputError(
                        f"{self.name}: {place} is a time, but nothing says how many frames a second has; give it with "
                        "--frames-per-second, or name the frame by its number"
                    )
                number = self.first + round(float(text[:-1]) * self.frames_per_second)
            else:
                number = int(text)
        except (ValueError, OverflowError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.name}: '{place}' is no frame: give its number, or seconds as 0.4s") from error
        if not self.first <= number <= self.last:
            raise InputError(
                f"{self.name}: frame {number} lies outside the clip, which has {self.first} to {self.last}"
            )
        return number


@dataclass(frozen=True)
class Pictures(Clip):
    """Image files.

    Attributes:
        files: Number and path of each, in order.
    """

    files: tuple[tuple[int, Path], ...]

    def frames(self, first: int | None = None, last: int | None = None) -> Iterator[tuple[int, Path | VideoFrame]]:
        lowest, highest = self.first if first is None else first, self.last if last is None else last
        yield from ((number, path) for number, path in self.files if lowest <= number <= highest)


@dataclass(frozen=True)
class Video(Clip):
    """A video file; frames are numbered from 0, and turned as its header says.

    Attributes:
        path: The file.
    """

    path: Path

    def frames(self, first: int | None = None, last: int | None = None) -> Iterator[tuple[int, Path | VideoFrame]]:
        lowest, highest = first or 0, self.last if last is None else last
        with silence():
            capture = _open(self.path)
        number = -1
        try:
            for number in range(highest + 1):
                with silence():
                    there, image = capture.read() if number >= lowest else (capture.grab(), None)
                if not there:
                    break
                if image is not None:
                    yield number, VideoFrame(self.path, number, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            else:
                return
        finally:
            capture.release()
        if highest - number > LOST * self.last:
            raise InputError(
                f"{self.path}: breaks off after {number} of {self.last + 1} frames; copy it again from where it comes"
            )


KEPT = 128 << 20
"""Bytes of decoded frames that a thread keeps, so that a step back does not cost decoding from the start."""


@dataclass(frozen=True)
class FrameOfVideo(Frame):
    """A frame of a video that is decoded when it is asked for, by whatever process asks; ``path`` is the video.

    Every video is decoded from its start, as no seeking is exact in all formats; frames that are asked for in their
    order cost one pass over it.
    """

    def __str__(self) -> str:
        return f"{self.path}, frame {self.number}"

    @property
    def image(self) -> NDArray[np.uint8]:
        """RGB, shape (H, W, 3).

        Raises:
            InputError: If the video does not open, or has no such frame.
        """
        return _reader().read(self.path, self.number)


class _Reader:
    """Decodes frames of one video after another."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.capture: cv2.VideoCapture | None = None
        self.following = 0  # the frame that is decoded next
        self.kept: dict[int, NDArray[np.uint8]] = {}

    def read(self, path: Path, number: int) -> NDArray[np.uint8]:
        if path != self.path:
            self.path, self.capture, self.kept = path, None, {}
        if number not in self.kept:
            with _SILENT, silence():
                image = self._decode(path, number)
            self.kept[number] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            while len(self.kept) > 1 and sum(image.nbytes for image in self.kept.values()) > KEPT:
                del self.kept[next(iter(self.kept))]
        return self.kept[number]

    def _decode(self, path: Path, number: int) -> NDArray[np.uint8]:
        if self.capture is None or number < self.following:
            self.capture, self.following = _open(path), 0
        while self.following <= number:
            there, image = self.capture.read() if self.following == number else (self.capture.grab(), None)
            if not there:
                break
            self.following += 1
            if image is not None:
                return image
        raise InputError(f"{path}: frame {number} cannot be decoded; it breaks off after {self.following} frames")


_SILENT = Lock()  # where standard error goes is the process's, not the thread's
_READERS = local()


def _reader() -> _Reader:
    """The reader of this thread."""
    if not hasattr(_READERS, "reader"):
        _READERS.reader = _Reader()
    return _READERS.reader


def open_clip(name: str | Path, frames_per_second: float | None = None) -> Clip:
    """Open a clip.

    Args:
        name: A video file, a folder of image files with a number at the end of each name, or ``onset.png:apex.png``.
        frames_per_second: In place of what the file says.

    Raises:
        InputError: If it is none of these.
    """
    text = str(name)
    pair = _pair(text)
    if pair:
        return Pictures(text, frames_per_second, 0, 1, ((0, pair[0]), (1, pair[1])))
    path = Path(name)
    if os.path.isdir(path):  # unlike a path's own method it says no to a name that is too long
        try:
            files = tuple((frame.number, frame.path) for frame in list_frames(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        if not files:
            raise InputError(f"{path}: holds no frames, that is no images with a number in their names")
        return Pictures(text, frames_per_second, files[0][0], files[-1][0], files)
    if not os.path.isfile(path):
        raise InputError(
            f"{path}: there is no such file or folder; a clip is a video, a folder of frames or ONSET:APEX"
        )
    if path.suffix.lower() in IMAGE_SUFFIXES:
        raise InputError(f"{path}: is one picture; a clip has two or more: a video, a folder of frames or ONSET:APEX")
    with silence():
        capture = _open(path)
        there, _ = capture.read()
        rate, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.release()
    if not there:
        raise InputError(f"{path}: holds no picture that can be decoded; is it a video?")
    if not np.isfinite(count) or count < 1:
        count = _count(path)
    known = rate if np.isfinite(rate) and 0.1 <= rate <= 100_000 else None
    return Video(text, frames_per_second or known, 0, int(count) - 1, path)


def _count(path: Path) -> int:
    """Frames of a video whose header does not say how many there are."""
    count = 0
    with silence():
        capture = _open(path)
        while capture.grab():
            count += 1
        capture.release()
    return count


def _pair(text: str) -> tuple[Path, Path] | None:
    """Onset and apex of ``onset.png:apex.png``; None if the text names no two pictures."""
    onset, colon, apex = text.rpartition(":")
    suffixes = {Path(part).suffix.lower() for part in (onset, apex)}
    return (Path(onset), Path(apex)) if colon and onset and suffixes <= IMAGE_SUFFIXES else None


def _open(path: Path) -> cv2.VideoCapture:
    """A decoder of OpenCV's FFmpeg: no pattern of file names, no camera, no address.

    Raises:
        InputError: If it is no video.
    """
    try:
        with path.open("rb") as file:
            known = _STARTS.match(file.read(189))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG) if known else None
    if capture is None or not capture.isOpened():
        raise InputError(
            f"{path}: is no video that opens (AVI, MP4, MOV, MKV, WebM, WMV, FLV, OGG, MPEG, GIF do); a clip may also "
            "be a folder of frames or ONSET:APEX"
        )
    return capture

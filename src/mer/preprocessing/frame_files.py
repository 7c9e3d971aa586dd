"""The image files of a clip: how they are listed, looked at from outside, and read."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mer import InputError
from mer.preprocessing.opencv import cv2

LARGEST = 64 << 20
"""Bytes of an image that are read at most: a frame of CAS(ME)^3 has 3 MB before it is packed."""
_SUFFIXES = (".jpg", ".jpeg", ".bmp", ".png", ".tif", ".tiff")  # those that hold photographs first
IMAGE_SUFFIXES = set(_SUFFIXES)
MOST_DIGITS = 15  # of a frame number
_NUMBER = re.compile(r"(\d+)(?!.*\d)")  # the last one in a name


@dataclass(frozen=True)
class Frame:
    """An image file of a clip.

    Attributes:
        number: The last integer in its name.
        path: Where it lies.
        size: In bytes.
        others: Names of files with the same number that are not used.
    """

    number: int
    path: Path
    size: int
    others: tuple[str, ...] = ()


def list_frames(folder: Path) -> list[Frame]:
    """Image files of a folder, sorted by number; padding may vary, and files that are no images are passed over.

    Files whose names differ in nothing but the number are a series. Where two have numbers in common, as ``355.png`` of
    a depth camera beside ``355.jpg``, one is used whole and the other not at all.

    Raises:
        OSError: If the folder cannot be read.
    """
    series: dict[tuple[str, str], dict[int, os.DirEntry]] = {}
    others: dict[int, list[str]] = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            number = _NUMBER.search(os.path.splitext(entry.name)[0])
            if number and len(number[1]) <= MOST_DIGITS and is_image(entry.name) and entry.is_file():
                around = entry.name[: number.start()].lower(), entry.name[number.end() :].lower()
                members = series.setdefault(around, {})
                if int(number[1]) in members:  # img046.jpg and img46.jpg
                    others.setdefault(int(number[1]), []).append(members[int(number[1])].name)
                members[int(number[1])] = entry
    frames: dict[int, os.DirEntry] = {}
    most = max(map(len, series.values()), default=0)
    for around in sorted(series, key=lambda around: _rank(*around, len(series[around]), most)):
        members = series[around]
        if frames.keys().isdisjoint(members):
            frames |= members
        else:
            for number in frames.keys() & members.keys():
                others.setdefault(number, []).append(members[number].name)
    return [
        Frame(number, folder / entry.name, entry.stat().st_size, tuple(others.get(number, ())))
        for number, entry in sorted(frames.items())
    ]


def is_image(name: str) -> bool:
    """Whether a file is an image by its name; macOS leaves ``._img1.jpg`` beside ``img1.jpg``, which is none."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def _rank(before: str, after: str, length: int, most: int) -> tuple:
    """Which of two series is used: no stray few, raw before registered, photographs before what may be depth."""
    suffix = os.path.splitext(after)[1] or after
    return 2 * length < most, before.startswith("reg_"), _SUFFIXES.index(suffix), -length, before, after


def damage(frame: Frame) -> str:
    """What is wrong with an image file as far as its two ends show, without decoding it; empty if nothing is."""
    if frame.size == 0:
        return "is empty"
    try:
        with frame.path.open("rb", buffering=0) as file:
            start = file.read(8)
            file.seek(max(0, frame.size - 1024))
            end = file.read(1024)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if start[:2] == b"\xff\xd8":
        return "" if b"\xff\xd9" in end or _ends(frame.path, _jpeg_end) else "is cut off"
    if start == b"\x89PNG\r\n\x1a\n":
        return "" if b"IEND" in end or _ends(frame.path, lambda content: b"IEND" in content) else "is cut off"
    if start[:2] == b"BM":
        return "is cut off" if int.from_bytes(start[2:6], "little") > frame.size else ""
    return "" if start[:4] in (b"II*\0", b"MM\0*") else "is no image"


def _ends(path: Path, holds_end: Callable[[bytes], bool]) -> bool:
    """Whether an image has an end that something else follows, as the zeros with which a disk fills a block."""
    try:
        return path.stat().st_size <= LARGEST and holds_end(path.read_bytes())
    except OSError:
        return False


def _jpeg_end(content: bytes) -> bool:
    """Whether a JPEG's picture ends; its header may hold a small picture, with an end of its own."""
    place = 2
    while content[place : place + 1] == b"\xff" and content[place + 1 : place + 2] != b"\xda":
        place += 2 + max(2, int.from_bytes(content[place + 2 : place + 4], "big"))
    return content.find(b"\xff\xd9", place) >= 0


def read_image(path: Path) -> np.ndarray:
    """Read an image as uint8 RGB, shape (H, W, 3).

    Raises:
        InputError: If the file is missing, is not a whole image, is much larger than any frame, or has more bits than
            eight and leaves the highest of them empty.
    """
    content = _content(path)
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if content.size else None
        if image is not None and image.dtype != np.uint8:
            _check_range(path, image)
            image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error:  # it claims to have more pixels than memory should be given for
        image = None
    if image is None:
        raise InputError(f"{path}: is not an image that opens; copy it again from the original archive")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_depth(path: Path) -> np.ndarray:
    """Read a depth frame as uint16, shape (H, W), in the camera's unit; 0 where nothing was measured.

    Raises:
        InputError: If the file is missing, or is not a whole picture of one channel of 16 bits.
    """
    content = _content(path)
    try:
        image = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
    except cv2.error:
        image = None
    if image is None or image.dtype != np.uint16 or image.ndim != 2:
        raise InputError(f"{path}: is no depth frame that opens, which is one channel of 16 bits")
    return image


def _content(path: Path) -> np.ndarray:
    """The bytes of a file that may be a frame."""
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: has over {LARGEST >> 20} MB, as no frame has; it is not read")
        return np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _check_range(path: Path, image: np.ndarray) -> None:
    """Refuse cameras' 10 or 12 bits in pictures of 16, of which eight would be next to black.

    One frame does not tell how many bits the others of its clip have, so that they are not scaled here.
    """
    full = np.iinfo(image.dtype).max if image.dtype.kind in "iu" else 255
    highest = float(image.max())
    if not 4 * highest > full:
        bits = f"{image.dtype.itemsize * 8} bits a value"
        raise InputError(
            f"{path}: has {bits}, {full} is white, and its highest value is {highest:g}: it holds data of fewer bits "
            "and would be read as black; save the frames with 8 bits"
        )

"""The image files of a clip: how they are listed, looked at from outside, and read."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mer import InputError
from mer.preprocessing.opencv import cv2

LARGEST = 64 << 20
"""Bytes of an image that are read at most: a frame of CAS(ME)^3 has 3 MB before it is packed."""
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
MOST_DIGITS = 15  # of a frame number
_NUMBER = re.compile(r"(\d+)(?!.*\d)")  # the last one in a name


@dataclass(frozen=True)
class Frame:
    """An image file of a clip: its number, which is the last integer in its name, and its size in bytes."""

    number: int
    path: Path
    size: int


def list_frames(folder: Path) -> list[Frame]:
    """Image files of a folder, sorted by number; padding may vary, and files that are no images are passed over.

    Raises:
        OSError: If the folder cannot be read.
    """
    frames = {}
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            stem, suffix = os.path.splitext(entry.name)
            number = _NUMBER.search(stem)
            if (
                number
                and len(number[1]) <= MOST_DIGITS
                and suffix.lower() in IMAGE_SUFFIXES
                and not stem.startswith(".")
                and entry.is_file()
            ):
                frames[int(number[1])] = Frame(int(number[1]), folder / entry.name, entry.stat().st_size)
    return [frames[number] for number in sorted(frames)]


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
        return "" if b"\xff\xd9" in end else "is cut off"
    if start == b"\x89PNG\r\n\x1a\n":
        return "" if b"IEND" in end else "is cut off"
    if start[:2] == b"BM":
        return "is cut off" if int.from_bytes(start[2:6], "little") > frame.size else ""
    return "" if start[:4] in (b"II*\0", b"MM\0*") else "is no image"


def read_image(path: Path) -> np.ndarray:
    """Read an image as uint8 RGB, shape (H, W, 3).

    Raises:
        InputError: If the file is missing, is not a whole image, or is much larger than any frame.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: has over {LARGEST >> 20} MB, as no frame has; it is not read")
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    except cv2.error:  # it claims to have more pixels than memory should be given for
        image = None
    if image is None:
        raise InputError(f"{path}: is not an image that opens; copy it again from the original archive")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

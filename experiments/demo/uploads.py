"""Uploaded files as a clip in a folder, under names of our own."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from experiments.report.formatting import printable
from mer import InputError
from mer.preprocessing.frame_files import IMAGE_SUFFIXES, MOST_DIGITS

WANTED = "give one video, or two or more pictures"


class Upload(NamedTuple):
    """A file that a user sent: what it is called there, and what it holds."""

    name: str
    content: BinaryIO


class StoredClip:
    """A clip on the disk.

    Args:
        files: One video, or pictures.
        folder: Empty; the clip is written there.

    Attributes:
        path: The video, or the folder of frames.

    Raises:
        InputError: If they are no clip.
    """

    def __init__(self, files: Sequence[Upload], folder: Path):
        suffixes = {Path(file.name).suffix.lower() for file in files}
        self._names: dict[str, str] = {}
        if len(files) > 1 and suffixes <= IMAGE_SUFFIXES:
            for file, number in zip(files, _numbers([file.name for file in files]), strict=True):
                self._store(file, folder / f"{number}{Path(file.name).suffix.lower()}")
            self.path = folder
            self._names[str(folder)] = f"{len(files)} pictures"
        elif len(files) == 1 and not suffixes <= IMAGE_SUFFIXES:
            self.path = folder / "clip"
            self._store(files[0], self.path)
        elif len(files) > 1:
            raise InputError(f"{WANTED}; there are {len(files)} files, not all of which are pictures")
        else:
            raise InputError(f"{WANTED}; there is {'one picture' if files else 'no file'}")

    def _store(self, file: Upload, path: Path) -> None:
        file.content.seek(0)
        with path.open("xb") as copy:
            shutil.copyfileobj(file.content, copy, 1 << 20)
        self._names[str(path)] = printable(file.name)

    def in_words(self, text: str) -> str:
        """A text with the names that the user knows in place of paths."""
        for path, name in self._names.items():
            text = text.replace(path, name)
        return text


def _numbers(names: Sequence[str]) -> list[int]:
    """Frame numbers of pictures: of two, 0 and 1.

    Raises:
        InputError: If their order is unknown.
    """
    stems = [Path(name).stem.lower() for name in names]
    called = [tuple(word for word in ("onset", "apex") if word in stem) for stem in stems]
    if sorted(called) == [("apex",), ("onset",)]:
        return [int(word == "apex") for (word,) in called]
    numbers = []
    for name, stem in zip(names, stems, strict=True):
        digits = re.findall(r"[0-9]+", stem)
        if not digits or len(digits[-1]) > MOST_DIGITS:
            raise InputError(
                f"{printable(name)}: has no number in its name; number the pictures in their order, or call two of "
                "them onset and apex"
            )
        numbers.append(int(digits[-1]))
    if len(set(numbers)) < len(numbers):
        number = next(number for number in numbers if numbers.count(number) > 1)
        raise InputError(f"two pictures have the number {number}; give every one its own, in their order")
    return [int(number == max(numbers)) for number in numbers] if len(numbers) == 2 else numbers

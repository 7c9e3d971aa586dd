"""The clip table, and how a clip's frames are found and read."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from mer import InputError
from mer.opencv import cv2

COLUMNS = (
    "dataset", "subject", "clip", "onset", "apex", "offset", "emotion", "objective_class", "action_units",
    "frames_per_second", "folder",
)  # fmt: skip
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
_NAME = re.compile(r"[\w()+.-]+")  # a word that is safe as part of a file name
_NUMBER = re.compile(r"(\d+)(?!.*\d)")


def complain(where: Path | str, problems: list[str], remedy: str, most: int = 20) -> None:
    """Raise one error that lists every problem found, if there is any.

    Raises:
        InputError: If ``problems`` is not empty.
    """
    if problems:
        more = f"\n  ... and {len(problems) - most} more" if len(problems) > most else ""
        listed = "".join(f"\n  {problem}" for problem in problems[:most])
        raise InputError(f"{where}: {len(problems)} problem(s):{listed}{more}\n{remedy}")


def unsafe_names(clips: pd.DataFrame) -> list[str]:
    """What is wrong with the words that name a clip: empty, not a plain word, or given twice."""
    problems = []
    for column in ("dataset", "subject", "clip"):
        for value in sorted({str(value) for value in clips[column]}):
            if not _NAME.fullmatch(value) or set(value) == {"."}:
                problems.append(f"{column} '{value}' is not a plain name of letters, digits and . _ - + ( )")
    for key, times in clips.groupby(["dataset", "subject", "clip"]).size().items():
        if times > 1:
            problems.append(f"clip {' '.join(map(str, key))} stands {times} times")
    return problems


def frames(folder: Path) -> dict[int, Path]:
    """Image files of a folder by frame number, which is the last integer in the name.

    Files that are no images are passed over. Padding may vary: ``img9.jpg`` comes before ``img10.jpg``.
    """
    found = {}
    for path in sorted(folder.iterdir()):
        number = _NUMBER.search(path.stem)
        if number and path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            found[int(number.group(1))] = path
    return dict(sorted(found.items()))


def read_image(path: Path) -> np.ndarray:
    """Read an image as uint8 RGB, shape (H, W, 3).

    Raises:
        InputError: If the file is missing or is not a whole image.
    """
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if image is None:
        raise InputError(f"{path}: is not an image that opens; copy it again from the original archive")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)

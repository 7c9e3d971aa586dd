"""The cache: one safetensors file per clip, in a folder named by the digest of all that shapes its content.

A file is written under a temporary name beside its place and then renamed, so that one which exists is whole, however
many processes fill the folder and whenever they are killed. A checksum finds what a disk has damaged since.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from safetensors.numpy import save

from data_modules.processes.whole_files import temporary, writing


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Write a file so that it is there whole or not at all.

        with whole_file(path) as temporary:
            table.to_csv(temporary)

    The folder is made if it is missing. The body writes to ``temporary`` in the same folder, which replaces ``path``
    when the body ends and is removed when anything is raised. Its name ends in ``.tmp``, so no ``*.csv`` finds what a
    killed process has left; a writer that goes by the extension has to be told the format.

    Args:
        path: Where the file will be. A file that is there is replaced.

    Yields:
        The temporary path; the body has to create it.

    Raises:
        WriteError: If the disk is full or ``path`` cannot be written; the message has the path and the remedy.
    """
    path = Path(path)
    unfinished = temporary(path)
    try:
        with writing(path, unfinished):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield unfinished
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())  # else a power cut can leave an empty file under the final name
            os.replace(unfinished, path)
    finally:
        with suppress(OSError):  # most often it is not there any more
            unfinished.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole.

    Raises:
        WriteError: As ``whole_file``.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text)


def write(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write the tensors of one clip, with their checksum.

    Args:
        path: The file, see ``clip_file``.
        tensors: Arrays by name, of any shape.

    Raises:
        WriteError: As ``whole_file``.
    """
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    content = save(arrays, metadata={"sha256": checksum(arrays)})
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def read(path: str | Path) -> dict[str, np.ndarray] | None:
    """The tensors of one clip, or None if the file is missing, does not open or does not match its checksum."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            expected = (file.metadata() or {}).get("sha256")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, safetensors.SafetensorError):
        return None
    return tensors if checksum(tensors) == expected else None


def read_named(folder: str | Path, name: str) -> dict[str, np.ndarray] | None:
    """As ``read``, for a name that stands in a table: None, too, if it is empty or leads out of ``folder``."""
    return read(Path(folder) / name) if is_below(name) else None


def is_below(name: str) -> bool:
    """Whether a path in a table stays in the folder that it is relative to.

    What counts is how it is written. A link in the folder may lead elsewhere: who keeps data on another disk has put it
    there.
    """
    first, *others = re.split(r"[/\\]", name)
    return bool(first) and first[1:2] != ":" and "\0" not in name and ".." not in (first, *others)


def checksum(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes of the arrays, whatever their order."""
    total = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        total.update(json.dumps([name, tensor.dtype.str, tensor.shape]).encode())
        total.update(tensor.tobytes())
    return total.hexdigest()


def digest(settings: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits that name these settings, from the SHA-256 of their sorted JSON.

    Args:
        settings: Mappings, lists, texts, numbers, booleans and None. A path has no place in it.

    Raises:
        TypeError: If a value is anything else.
        ValueError: If a number is not finite.
    """
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def clip_file(folder: str | Path, subject: str, clip: str) -> Path:
    """Where the tensors of a clip are cached.

    Two clips never share a file, also where a file system ignores case; no name leads out of ``folder``.

    Args:
        folder: The cache folder of one dataset and recipe.
        subject: Subject as in the clip table.
        clip: Clip as in the clip table; any text.
    """
    readable = "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", part)[:60] for part in (subject, clip))
    return Path(folder) / f"{readable.lstrip('.')}-{digest({'subject': subject, 'clip': clip})}.safetensors"

"""The cache: one safetensors file per clip, in a folder named by the digest of all that shapes its content.

A file is written under a temporary name beside its place and then renamed, so that one which exists is whole, however
many processes fill the folder and whenever they are killed. A checksum finds what a disk has damaged since.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import safetensors
from safetensors.numpy import save

from mer import InputError

REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space, or choose another folder",
    errno.EDQUOT: "your disk quota is used up; free some space, or choose another folder",
    errno.EACCES: "you may not write there; change its permissions, or choose another folder",
    errno.EPERM: "you may not write there; change its permissions, or choose another folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EEXIST: "a file stands where a folder should be; choose another folder",
    errno.ENOTDIR: "a file stands where a folder should be; choose another folder",
    errno.EISDIR: "a folder stands where the file should be; remove it, or choose another folder",
}


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
        InputError: If the disk is full or ``path`` cannot be written; the message has the path and the remedy.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # else a power cut can leave an empty file under the final name
        os.replace(temporary, path)
    except OSError as error:
        # The body may have failed over a file of its own, of which nothing here is true.
        ours = error.filename is None or Path(error.filename) in (path, temporary, *path.parents)
        if ours and error.errno in REMEDIES:
            raise InputError(f"{path} cannot be written: {REMEDIES[error.errno]}") from error
        raise
    finally:
        with suppress(OSError):  # most often it is not there any more
            temporary.unlink()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole.

    Raises:
        InputError: As ``whole_file``.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text)


def write(path: str | Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write the tensors of one clip, with their checksum.

    Args:
        path: The file, see ``clip_file``.
        tensors: Arrays by name, of any shape.

    Raises:
        InputError: As ``whole_file``.
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

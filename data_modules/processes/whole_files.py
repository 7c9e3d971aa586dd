"""What disks do: they are full, or refuse; and what killed processes leave on them, half-written."""

import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

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
FULL = (errno.ENOSPC, errno.EDQUOT)

ABANDONED = 24 * 3600  # seconds after which nobody goes on with a file
TEMPORARY = re.compile(r"\.(?P<of>.+)\.(?P<machine>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.tmp")


class WriteError(InputError):
    """A file cannot be written. What comes after it could not be written either."""


@contextmanager
def writing(path: Path, unfinished: Path | None = None) -> Iterator[None]:
    """Have a full disk and the like named with the remedy.

    Args:
        path: What the block writes, a file or a folder.
        unfinished: Where the block writes it first.

    Raises:
        WriteError: In place of an ``OSError`` over these, what is in them, or a folder that they are in.
    """
    places = [path] if unfinished is None else [path, unfinished]
    try:
        yield
    except OSError as error:
        # The block may have failed over a file of its own, of which nothing here is true.
        failed = None if error.filename is None else Path(error.filename)
        ours = failed is None or any(failed in one.parents or failed.is_relative_to(one) for one in places)
        if not ours or error.errno not in REMEDIES:
            raise
        raise WriteError(f"{path} cannot be written: {REMEDIES[error.errno]}") from error


def temporary(path: Path) -> Path:
    """A new name beside a path for what is not finished; it tells which process of which machine writes it."""
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}-{uuid4().hex[:8]}.tmp")


def remove_abandoned(folder: Path, of: str = "", below: bool = False) -> None:
    """Remove what killed processes have left unfinished, and nothing that any process may still be writing.

    A process of this machine is gone when its number is. Of other machines, which may share the folder, nothing is
    known; what they have not touched for a day is abandoned.

    Args:
        folder: Where to look.
        of: Only what was to become a file or folder of this name.
        below: Look in the folders below, too.
    """
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            match = TEMPORARY.fullmatch(name)
            path = Path(place, name)
            if match and of in ("", match["of"]) and _is_abandoned(path, match):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with suppress(OSError):  # another process removes it, too
                        path.unlink()
        folders[:] = [name for name in folders if below and not TEMPORARY.fullmatch(name)]


@contextmanager
def tidied(*folders: Path) -> Iterator[None]:
    """Remove what killed processes leave unfinished in the folders, before the block and after it."""

    def tidy() -> None:
        for folder in folders:
            remove_abandoned(folder, below=True)

    tidy()
    try:
        yield
    finally:
        tidy()


def _is_abandoned(path: Path, name: re.Match[str]) -> bool:
    if name["machine"] == _machine():
        try:
            os.kill(int(name["process"]), 0)
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:
            pass  # somebody else's, alive
    try:
        touched = max(one.stat().st_mtime for one in (path, *path.rglob("*")))
    except OSError:
        return False  # it has just been finished
    return time.time() - touched > ABANDONED


@functools.cache
def _machine() -> str:
    """Eight digits for what process numbers hold in: a machine since it was started, or a container on it."""
    known = [platform.node()]
    with suppress(OSError):
        known += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256(repr(known).encode()).hexdigest()[:8]

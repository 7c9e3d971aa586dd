"""Files that appear whole: temporary names, what killed processes leave, and clear messages about full disks."""

import atexit
import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import tempfile
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
UNRENAMED = (errno.EACCES, errno.EPERM, errno.EXDEV, errno.EBUSY, errno.ENOSYS, errno.EOPNOTSUPP)
"""What network drives and joined folders say to a rename in a folder where files can be made."""
FULL = (errno.ENOSPC, errno.EDQUOT)

LONGEST = 32  # characters of a folder for temporary files: a socket is made far below it, whose path may have 107
ABANDONED = 24 * 3600  # seconds without a change after which no process is writing a file any more
TEMPORARY = re.compile(r"\.(?P<of>.+)\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.tmp")


class WriteError(InputError):
    """A file cannot be written, and the next one could not be written either."""


@contextmanager
def writing(path: Path, unfinished: Path | None = None) -> Iterator[None]:
    """Turn errors of the disk into a message with a remedy.

    Args:
        path: The file or folder that the block writes.
        unfinished: The temporary path where the block writes it first.

    Raises:
        WriteError: Instead of an ``OSError`` about these paths, anything in them, or a folder above them. Where the
            file was written and only its renaming was refused, as on some network drives, it names the file system.
    """
    paths = [path] if unfinished is None else [path, unfinished]
    try:
        yield
    except OSError as error:
        # The block may have failed to read another file, about which the message would be wrong.
        failed = None if error.filename is None else Path(error.filename)
        ours = failed is None or any(failed in own.parents or failed.is_relative_to(own) for own in paths)
        if ours and error.filename2 is not None and error.errno in UNRENAMED:
            raise WriteError(
                f"{path} cannot be written: {_file_system(path.parent)} refuses to rename a finished file "
                f"({error.strerror}), and without that a killed run leaves halves; choose a folder on another disk"
            ) from error
        if not ours or error.errno not in REMEDIES:
            raise
        raise WriteError(f"{path} cannot be written: {REMEDIES[error.errno]}") from error


def temporary(path: Path) -> Path:
    """A new name beside a path for the unfinished file or folder, with the host and process that write it."""
    return path.with_name(f".{path.name}.{_host()}-{os.getpid()}-{uuid4().hex[:8]}.tmp")


def remove_abandoned(folder: Path, of: str = "", below: bool = False) -> None:
    """Remove unfinished files and folders of processes that have ended.

    On this host those of a process that does not live are removed. Other hosts may share the folder and their processes
    cannot be seen: only what has not changed for a day is removed.

    Args:
        folder: Folder to look in.
        of: Only temporary names of this file or folder; all by default.
        below: Whether to look in its subfolders, too.
    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            match = TEMPORARY.fullmatch(name)
            path = Path(parent, name)
            if match and of in ("", match["of"]) and _is_abandoned(path, match):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with suppress(OSError):  # another process has removed it
                        path.unlink()
        folders[:] = [name for name in folders if below and not TEMPORARY.fullmatch(name)]


@contextmanager
def tidied(*folders: Path) -> Iterator[None]:
    """Remove what killed processes leave unfinished in and below the folders, before the block and after it."""

    def tidy() -> None:
        for folder in folders:
            remove_abandoned(folder, below=True)

    tidy()
    try:
        yield
    finally:
        tidy()


def use_own_temporary_folder() -> None:
    """Give this program a folder of its own for temporary files, removed at its end; a kill leaves it to the next."""
    place = tempfile.gettempdir()
    own = temporary(Path(place if len(place) < LONGEST else "/tmp", "mer"))
    remove_abandoned(own.parent, of="mer")
    with suppress(OSError):  # then it has none of its own
        own.mkdir()
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(own)


def _is_abandoned(path: Path, name: re.Match[str]) -> bool:
    if name["host"] == _host():
        try:
            os.kill(int(name["process"]), 0)  # sends nothing, only asks whether the process lives
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:
            pass  # it lives and belongs to another user
    try:
        changed = max(part.stat().st_mtime for part in (path, *path.rglob("*")))
    except OSError:
        return False  # it has just been finished
    return time.time() - changed > ABANDONED


def _file_system(folder: Path) -> str:
    """The file system that a folder is on, for a message; Linux lists them."""
    place, kind = Path("/"), ""
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text(errors="replace").splitlines():
            mount, name = (word.replace("\\040", " ") for word in line.split()[1:3])
            if Path(mount) == place or (folder.resolve().is_relative_to(mount) and Path(mount).is_relative_to(place)):
                place, kind = Path(mount), name
    return f"the file system ({kind}, at {place})" if kind else "its file system"


@functools.cache
def _host() -> str:
    """Eight digits for this host, on Linux for the container that numbers the processes; paths of sockets are short."""
    names = [platform.node()]
    with suppress(OSError):
        names.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256(repr(names).encode()).hexdigest()[:8]

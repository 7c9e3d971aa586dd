"""Moving faces with a known flow, written in the real layout of CASME II.

Every frame shows scikit-image's ``astronaut`` portrait (Eileen Collins; NASA, public domain), turned into as many
subjects as are asked for: other proportions, mirrored, other hair, skin and light. The faces move by the action units
of ``data_modules.action_units`` while the head sways a little. See ``synthesize``.
"""

import io
import multiprocessing
import os
import re
import shutil
import signal
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

import numpy as np
import openpyxl

from data_modules.action_units import EMOTIONS
from data_modules.filming import Clip, film, stream
from mer import InputError
from mer.opencv import cv2

SHEET = "CASME2-coding-20140508.xlsx"
COLUMNS = (
    *("Subject", "Filename", None, "OnsetFrame", "ApexFrame", "OffsetFrame"),
    *(None, "Action Units", "Estimated Emotion"),
)

Progress = Callable[[int, int], None]


def synthesize(
    root: str | Path,
    *,
    subjects: int = 10,
    clips: int = 15,
    seed: int = 0,
    size: tuple[int, int] = (640, 480),
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes a small dataset of synthetic micro-expressions as CASME II is distributed, at 200 frames per second.

        root/CASME2_RAW_selected/sub01/EP02_01f/img46.jpg    onset..offset only
        root/CASME2-coding-20140508.xlsx                     one row per clip
        root/truth/sub01_EP02_01f.safetensors                the flow that was put in; readers of CASME II never look

    A truth file holds ``flow`` and ``expression``, float16 (2, 128, 128): where each pixel of the aligned onset crop
    has gone at the apex, u (right) and v (down) in pixels of the crop, with and without the motion of the head; and
    ``transform``, float64 (2, 3), the alignment on the onset frame. The same arguments give the same bytes, whatever
    the number of workers. Emotions are close to balanced; the largest expression of a clip is 0.3 to 2 px.

    The folder appears whole or not at all. With more than one worker, a script that calls this needs the usual
    ``if __name__ == "__main__":``, as processes are started afresh.

    Args:
        root: Folder to create; it may exist if it is empty.
        subjects: Number of subjects, 1 to 99.
        clips: Clips per subject, 1 to 999.
        seed: Any whole number from 0; another one gives other people.
        size: Width and height of the frames in pixels, at least 320 x 240.
        workers: Processes; None for one per core that this process may use.
        progress: Called with the clips done and their total, in this process.

    Returns:
        ``root``.

    Raises:
        InputError: If a number is out of range, or ``root`` exists and is not an empty folder.
    """
    _check(subjects=(subjects, 1, 99), clips=(clips, 1, 999), seed=(seed, 0, 2**63))
    _check(width=(size[0], 320, 4096), height=(size[1], 240, 4096), workers=(1 if workers is None else workers, 1, 999))
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists and is not an empty folder: name another one, or remove it first")
    target = root.resolve()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise InputError(f"cannot write in {target.parent}: {error.strerror}; name another folder") from error
    try:
        table = [clip for subject in range(1, subjects + 1) for clip in plan(seed, subject, clips)]
        work = partial(film, unfinished, seed, size)
        count = min(workers or _cores(), len(table))
        for done, _ in enumerate(_spread(work, table, count), start=1):
            if progress is not None:
                progress(done, len(table))
        _write_sheet(unfinished / SHEET, table)
        unfinished.chmod(0o777 & ~_umask())
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def plan(seed: int, subject: int, clips: int) -> list[Clip]:
    """Decides what a subject shows: names, frame numbers, action units, emotions; in the order of the sheet."""
    generator = stream(seed, subject, "plan")
    # Every class in turn, then a few clips change class: close to balanced, as little uniform as a real subject.
    emotions = [list(EMOTIONS)[(subject + i) % len(EMOTIONS)] for i in range(clips)]
    for i in np.flatnonzero(generator.random(clips) < 0.15):
        emotions[i] = list(EMOTIONS)[generator.integers(len(EMOTIONS))]
    takes = max(9, clips // 8)
    pool = [f"EP{episode:02d}_{take:02d}" for episode in range(1, 20) for take in range(1, takes + 1)]
    names = sorted(str(name) for name in generator.choice(pool, clips, replace=False))
    rows = []
    for name, emotion in zip(names, generator.permutation(emotions), strict=True):
        codes = EMOTIONS[str(emotion)]
        weights = np.array(list(codes.values()), dtype=np.float64)
        length = int(generator.integers(22, 36))
        onset = int(generator.integers(4, 260))
        rows.append(
            Clip(
                subject=subject,
                name=name + ("f" if generator.random() < 0.5 else ""),
                onset=onset,
                apex=onset + round(length * generator.uniform(0.3, 0.6)),
                offset=onset + length - 1,
                action_units=str(generator.choice(list(codes), p=weights / weights.sum())),
                emotion=str(emotion),
            )
        )
    return rows


def _begin() -> None:
    """Readies a worker: one thread, and Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _spread(work: Callable[[Clip], None], table: list[Clip], workers: int) -> Iterable[None]:
    """Films every clip, in this process or in others; yields after each."""
    if workers == 1:
        yield from map(work, table)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        for future in as_completed([pool.submit(work, clip) for clip in table]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write_sheet(file: Path, table: list[Clip]) -> None:
    """Writes the coding sheet: subject as text, action units as a number where there is only one."""
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.title = "Sheet1"
    sheet.append(COLUMNS)
    for clip in table:
        units = int(clip.action_units) if clip.action_units.isdigit() else clip.action_units
        sheet.append(
            [f"{clip.subject:02d}", clip.name, None, clip.onset, clip.apex, clip.offset, None, units, clip.emotion]
        )
    stream = io.BytesIO()
    book.save(stream)
    # openpyxl writes the hour into the archive; the same arguments shall give the same bytes.
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in source.namelist():
            content = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"2014-05-08T00:00:00Z", source.read(name))
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def _check(**numbers: tuple[int, int, int]) -> None:
    for name, (value, low, high) in numbers.items():
        if not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"synthesize: {name} is {value!r}; it must be a whole number from {low} to {high}")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

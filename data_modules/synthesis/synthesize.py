"""Moving faces with a known flow, written in the real layouts of the datasets.

Every frame shows scikit-image's ``astronaut`` portrait (Eileen Collins; NASA, public domain), turned into as many
subjects as are asked for: other proportions, mirrored, other hair, skin and light. The faces move by the action units
of ``data_modules.synthesis.action_units`` while the head sways a little. See ``synthesize``.
"""

import errno
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from data_modules.processes import pool as processes
from data_modules.processes import whole_files
from data_modules.processes.pool import Failure, cores
from data_modules.synthesis import layouts
from data_modules.synthesis.filming import film
from data_modules.synthesis.layouts import Layout, stand_ins
from data_modules.synthesis.layouts.layout import Clip
from mer import InputError
from mer.preprocessing.opencv import cv2

Progress = Callable[[int, int], None]
Take = tuple[Path, Layout, Clip]  # a clip, how it is stored and below which folder


def synthesize(
    root: str | Path,
    *,
    layout: str = "casme2",
    subjects: int | None = None,
    clips: int | None = None,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    sheets: Sequence[str | Path] = (),
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a small dataset of synthetic micro-expressions as a real one is distributed.

    The classes of ``data_modules.synthesis.layouts`` say which file lies where. ``truth/<clip>.safetensors``, which
    data modules do not read, holds the true flow: ``flow`` and ``expression``, float16 (2, 128, 128), are the motion
    of each pixel of the aligned onset crop from onset to apex, u (right) and v (down) in pixels of the crop, with and
    without the motion of the head; ``transform``, float64 (2, 3), is the alignment of the onset frame. The same
    arguments give the same bytes, whatever the number of workers. Emotions are close to balanced; the largest
    expression of a clip is 0.3 to 2 px.

    Given real annotation sheets, it writes a small still of a face in place of every frame that they name, and a copy
    of the sheets: all clips, with no need for a licence of the videos.

    The folder appears whole or not at all. With more than one worker, a script that calls this needs
    ``if __name__ == "__main__":``.

    Args:
        root: Folder to create; it may exist if it is empty.
        layout: ``casme2``, ``samm``, ``smic``, ``casme3``, ``clips`` (a table of folders and videos), or ``megc2019``
            for the first three, each in its own folder.
        subjects: Number of subjects (in each of them), 1 to 99; None for as many as suit the layout.
        clips: Clips per subject, 1 to 999; None likewise.
        seed: Any whole number from 0; another one gives other people.
        size: Width and height of the frames in pixels, at least 320 x 240; None for the real ones.
        sheets: Real annotation sheets, one for each dataset of the layout; then nobody is filmed. For SMIC it is
            SMIC-E's or a csv that lists clips, with ``dataset, subject, clip, emotion``.
        workers: Processes; None for one per core that this process may use.
        progress: Called with the clips done and their total, in this process.

    Returns:
        ``root``.

    Raises:
        InputError: If there is no such layout, a number is out of range, a sheet cannot be used, or ``root`` exists
            and is not an empty folder.
    """
    parts = layouts.find(layout)
    default = next(iter(parts.values())) if len(parts) == 1 else None
    if sheets and (subjects, clips, size) != (None, None, None):
        raise InputError("synthesize: the sheets say who is there; leave out the numbers of subjects and of clips")
    subjects = (default.subjects if default else 6) if subjects is None else subjects
    clips = (default.clips if default else 9) if clips is None else clips
    _check(subjects=(subjects, 1, 99), clips=(clips, 1, 999), seed=(seed, 0, 2**63))
    _check(workers=(1 if workers is None else workers, 1, 999))
    if size:
        _check(width=(size[0], 320, 4096), height=(size[1], 240, 4096))
    rows = stand_ins.read([Path(sheet) for sheet in sheets], layout) if sheets else {}
    with _whole(Path(root)) as unfinished:
        if rows:
            steps, total = stand_ins.write(unfinished, rows, seed), sum(len(clips) for *_, clips in rows.values())
        else:
            table = {
                place: [clip for number in range(1, subjects + 1) for clip in part.plan(seed, number, clips)]
                for place, part in parts.items()
            }
            takes = [(unfinished / place, parts[place], clip) for place in parts for clip in table[place]]
            steps, total = _spread(partial(_film, seed, size), takes, min(workers or cores(), len(takes))), len(takes)
        for done, _ in enumerate(steps, start=1):
            if progress is not None:
                progress(done, total)
        if not rows:
            for place, part in parts.items():
                part.finish(unfinished / place, table[place])
    return Path(root)


@contextmanager
def _whole(root: Path) -> Iterator[Path]:
    """A temporary folder beside ``root``, renamed to it at the end of the block and removed after an error."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} exists and is not an empty folder: name another one, or remove it first")
    target = root.resolve()
    unfinished = whole_files.temporary(target)
    with whole_files.writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        whole_files.remove_abandoned(target.parent, of=target.name)
        unfinished.mkdir()
    try:
        with whole_files.writing(target):
            yield unfinished
        with whole_files.writing(target, unfinished):
            unfinished.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise InputError(f"{root} was made by another process meanwhile: name another folder, or use it") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _film(seed: int, size: tuple[int, int] | None, take: Take) -> None:
    folder, layout, clip = take
    with whole_files.writing(folder):
        folder.mkdir(exist_ok=True)
        film(folder, seed, size, layout, clip)


def _begin() -> None:
    cv2.setNumThreads(1)


def _spread(work: Callable[[Take], None], takes: list[Take], workers: int) -> Iterable[None]:
    """Films every clip, in this process or in others; yields after each."""
    if workers == 1:
        yield from map(work, takes)
        return
    with closing(processes.run(work, [(take,) for take in takes], [(_begin, ())] * workers)) as ended:
        for _, outcome in ended:
            if isinstance(outcome, Failure):
                raise outcome.error()
            yield


def _check(**numbers: tuple[int, int, int]) -> None:
    for name, (value, low, high) in numbers.items():
        if not isinstance(value, int) or not low <= value <= high:
            raise InputError(f"synthesize: {name} is {value!r}; it must be a whole number from {low} to {high}")

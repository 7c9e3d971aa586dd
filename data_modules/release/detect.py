"""Which release of a dataset lies in a folder, and where the frames of each clip are."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_modules.release.sheets import Sheet
from mer.preprocessing.frame_files import IMAGE_SUFFIXES

_MOST_FOLDERS, _DEEPEST = 3000, 5  # looked into before the search is given up
_WORDS = {"clip": r".+", "video": r"[^_]+", "onset": r"\d+", "emotion": r".+"}


@dataclass(frozen=True)
class Variant:
    """One release of a dataset.

    Attributes:
        name: As shown and as part of the fingerprint; `` cropped`` is added where the faces are registered crops.
        frames: Folder of a clip's frames below the variant's own, like ``{subject}/{clip}``; in braces the fields that
            name it.
        inside: Names of a folder on the way there, in any case, of which one has to be there; none if any will do.
        sheet: Its annotation; None if the folders say all.
        frames_per_second: Where it is not the dataset's own.
    """

    name: str
    frames: str
    inside: tuple[str, ...] = ()
    sheet: Sheet | None = None
    frames_per_second: int = 0

    @property
    def names_apex(self) -> bool:
        """Whether its annotation has the apex."""
        return self.sheet is not None and "apex" in self.sheet.columns.values()

    def pattern(self, subject: str) -> list[re.Pattern[str]]:
        """One pattern per folder on the way to the frames."""
        words = {**_WORDS, "subject": subject}

        def group(field: re.Match[str]) -> str:
            return f"(?P<{field[1]}>{words[field[1]]})"

        parts = (re.sub(r"\{(\w+)\}", group, part) for part in self.frames.split("/"))
        return [re.compile(part, re.IGNORECASE) for part in parts]


@dataclass(frozen=True)
class Release:
    """A release that lies in a folder.

    Attributes:
        variant: Which release it is.
        folder: Its own folder, which holds one folder per subject or clip.
        registered: Whether its frames are crops that have been aligned already.
    """

    variant: Variant
    folder: Path
    registered: bool

    @property
    def layout(self) -> str:
        return self.variant.name + (" cropped" if self.registered else "")

    def clips(self, subject: str) -> Iterator[tuple[Path, dict[str, str]]]:
        """Every folder of frames, and the fields that its path holds."""
        yield from _walk(self.folder, self.variant.pattern(subject))


def find_releases(root: Path, variants: Sequence[Variant], subject: str) -> list[Release]:
    """The releases in a folder or below it; the first is the one to use: raw before cropped, then as declared.

    Args:
        root: Where to look; a release may lie here or up to five levels below.
        variants: The releases that are known.
        subject: Pattern of a subject's name.
    """
    candidates = []
    all_patterns = [variant.pattern(subject) for variant in variants]
    for depth, folder, names in _folders(root, [patterns[0] for patterns in all_patterns]):
        for order, (variant, patterns) in enumerate(zip(variants, all_patterns, strict=True)):
            if not any(patterns[0].fullmatch(name) for name in names):
                continue
            names_above = [part.lower() for part in (root.resolve().name, *folder.relative_to(root).parts)]
            place = next((i for i, name in enumerate(variant.inside) if name.lower() in names_above), -1)
            if variant.inside and place < 0:
                continue
            image = _first_image(folder, patterns)
            if image is not None:
                registered = image.name.lower().startswith("reg_") or any("crop" in part for part in names_above)
                rank = (registered, order, place, depth, str(folder))
                candidates.append((rank, Release(variant, folder, registered)))
    candidates.sort(key=lambda pair: pair[0])
    releases: dict[Path, Release] = {}
    for _, release in candidates:
        releases.setdefault(release.folder, release)  # a folder counts once, as the first that it can be
    return list(releases.values())


def sheet_folders(release: Release, root: Path, subject: str) -> Iterator[Path]:
    """Folders where the sheet may lie: the release's own, those above up to the root's parent, and their children."""
    top, clips = root.resolve().parent, release.variant.pattern(subject)[0]
    folder = release.folder.resolve()
    while folder.is_relative_to(top) and folder != folder.parent:
        yield folder
        yield from (child for name, child in _children(folder).items() if not clips.fullmatch(name))
        if folder == top:
            break
        folder = folder.parent


def fields(variant: Variant) -> list[str]:
    """Names of the fields that lead to a clip's frames, less the emotion, which is what they say of it."""
    return [name for name in re.findall(r"\{(\w+)\}", variant.frames) if name != "emotion"]


def key(variant: Variant, values: Mapping[str, str]) -> tuple[str, ...]:
    """The values of these fields in lower case, by which a row of the sheet and a folder are matched."""
    return tuple(str(values[name]).lower() for name in fields(variant))


def _folders(root: Path, clips: Sequence[re.Pattern[str]]) -> Iterator[tuple[int, Path, list[str]]]:
    """A folder and those below it, the nearer first, with the names of the folders in each; none of clips."""
    level, seen = [root], 0
    for depth in range(_DEEPEST + 1):
        below = []
        for folder in level:
            seen += 1
            if seen > _MOST_FOLDERS:
                return
            inside = _children(folder)
            yield depth, folder, list(inside)
            below += [path for name, path in inside.items() if not any(clip.fullmatch(name) for clip in clips)]
        level = below


def _children(folder: Path) -> dict[str, Path]:
    """Folders in a folder by name, sorted; none where it cannot be opened."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name[0] not in "._" and entry.is_dir())
    except OSError:
        return {}
    return {name: folder / name for name in names}


def _walk(folder: Path, patterns: list[re.Pattern[str]]) -> Iterator[tuple[Path, dict[str, str]]]:
    for name, child in _children(folder).items():
        match = patterns[0].fullmatch(name)
        if match and len(patterns) == 1:
            yield child, match.groupdict()
        elif match:
            for path, values in _walk(child, patterns[1:]):
                yield path, {**match.groupdict(), **values}


def _first_image(folder: Path, patterns: list[re.Pattern[str]]) -> Path | None:
    """An image of one of the first clips; None if there is none, and the folder is something else."""
    for tried, (path, _) in enumerate(_walk(folder, patterns)):
        if tried == 20:
            return None
        for name in sorted(os.listdir(path)):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES:
                return path / name
    return None

"""Which release of a dataset lies in a folder, and where the frames of each clip are."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_modules.release.sheets import Sheet
from mer.preprocessing.frame_files import list_frames

MOST_FOLDERS, _DEEPEST = 3000, 5  # looked into before the search is given up
_CROPPED, _RAW, _NOT = {"crop", "crops", "cropped"}, {"raw"}, {"no", "non", "not", "un"}  # words of a folder's name
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


def find_releases(root: Path, variants: Sequence[Variant], subject: str) -> tuple[list[Release], bool]:
    """The releases in a folder or below it; the first is the one to use: raw before cropped, then as declared.

    Args:
        root: Where to look; a release may lie here or up to five levels below.
        variants: The releases that are known.
        subject: Pattern of a subject's name.

    Returns:
        The releases, and whether the search was given up after ``MOST_FOLDERS`` folders, with more to look into.
    """
    candidates, given_up = [], False
    own_names = list(dict.fromkeys((root.resolve().name, Path(os.path.abspath(root)).name)))
    all_patterns = [variant.pattern(subject) for variant in variants]
    folders = _folders(root, [patterns[0] for patterns in all_patterns])
    for seen, (depth, folder, names) in enumerate(folders):
        if seen == MOST_FOLDERS:
            given_up = True
            break
        between = folder.relative_to(root).parts
        for order, (variant, patterns) in enumerate(zip(variants, all_patterns, strict=True)):
            if not any(patterns[0].fullmatch(name) for name in names):
                continue
            names_above = [part.lower() for part in (*own_names, *between)]
            place = next((i for i, name in enumerate(variant.inside) if name.lower() in names_above), -1)
            if variant.inside and place < 0:
                continue
            image = _first_image(folder, patterns)
            if image is not None:
                registered = image.name.lower().startswith("reg_") or _says_cropped(between)
                rank = (registered, order, place, depth, str(folder))
                candidates.append((rank, Release(variant, folder, registered)))
    candidates.sort(key=lambda pair: pair[0])
    releases: dict[Path, Release] = {}
    for _, release in candidates:
        releases.setdefault(release.folder, release)  # a folder counts once, as the first that it can be
    return list(releases.values()), given_up


def sheet_folders(release: Release, root: Path, subject: str) -> Iterator[Path]:
    """Folders where the sheet may lie: the release's own, those above up to the root, their children; above the root.

    Links are taken as they are written, then for what they lead to. What lies beside the root is another dataset.
    """
    clips = release.variant.pattern(subject)[0]
    written = Path(os.path.abspath(release.folder)), Path(os.path.abspath(root))
    resolved = release.folder.resolve(), root.resolve()
    for folder, top in (written, resolved):
        inside = folder.is_relative_to(top)
        while True:
            yield folder
            yield from (child for name, child in _children(folder).items() if not clips.fullmatch(name))
            if not inside or folder == top:  # frames behind a link lie elsewhere
                yield folder.parent
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
    level = [root]
    for depth in range(_DEEPEST + 1):
        below = []
        for folder in level:
            inside = _children(folder)
            yield depth, folder, list(inside)
            below += [path for name, path in inside.items() if not any(clip.fullmatch(name) for clip in clips)]
        level = below


def _children(folder: Path) -> dict[str, Path]:
    """Folders in a folder by name, sorted; none where it cannot be opened."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name[0] not in "._" and _is_folder(entry))
    except OSError:
        return {}
    return {name: folder / name for name in names}


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _says_cropped(names: Sequence[str]) -> bool:
    """Whether folders are called after crops, in whole words, the nearest to the frames first."""
    for name in reversed(names):
        words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
        if any(word in _CROPPED and before not in _NOT for before, word in zip(["", *words], words)):
            return True
        if _RAW.intersection(words):
            return False
    return False


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
        try:
            frames = list_frames(path)
        except OSError:  # the clip is left out by name later
            continue
        if frames:
            return frames[0].path
    return None

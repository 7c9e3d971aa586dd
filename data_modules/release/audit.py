"""From the rows of a sheet to the clips that can be used: every fault is corrected or costs its clip, and is listed.

Nothing here looks at a class: a fault is handled alike whatever the emotion.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import pandas as pd

from data_modules.release import detect
from data_modules.release.clip_table import COLUMNS, Erratum, Problem, is_number, is_plain
from data_modules.release.detect import Release
from mer.preprocessing.frame_files import Frame, damage, list_frames

NUMBERS = ("onset", "apex", "offset")


@dataclass(frozen=True)
class ClipFrames:
    """The frames of one clip that exist and open.

    Attributes:
        frames: From onset to offset, or the nearest there are, sorted by number.
        apex: Number of the apex frame, one of these after the first; None if it has to be spotted.
    """

    frames: tuple[Frame, ...]
    apex: int | None


@dataclass
class Audit:
    """What an audit gives.

    Attributes:
        clips: The clip table; ``apex`` is ``<NA>`` where it has to be spotted.
        frames: By (subject, clip).
        problems: What was wrong, in the order of the sheet.
    """

    clips: pd.DataFrame
    frames: dict[tuple[str, str], ClipFrames]
    problems: list[Problem]


@dataclass
class Auditor:
    """Checks the clips of one release, row by row.

    Args:
        dataset: As in the clip table.
        release: The release that lies in the folder.
        folders: Folder of frames by key, see ``detect.key``.
        emotions: Those that the dataset knows.
        names_apex: Whether its annotation has the apex.
        errata: Corrections of the sheet.
        problems: Those that are known already; more are added.
    """

    dataset: str
    release: Release
    folders: Mapping[tuple[str, ...], Path]
    emotions: Iterable[str]
    names_apex: bool = True
    errata: Iterable[Erratum] = ()
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self):
        self._list, self._damage = cache(list_frames), cache(damage)  # several clips may lie in one video
        self._corrections = {(erratum.subject, erratum.clip, erratum.field): erratum for erratum in self.errata}
        self._row_of: dict[tuple[str, str], str] = {}

    def audit(self, rows: Iterable[Mapping[str, str]], frames_per_second: int) -> Audit:
        """Check every row.

        Args:
            rows: Texts by column: ``row, subject, clip, onset, apex, offset, emotion, objective_class, action_units``
                and what else leads to the folder. Empty onset and offset: the first and last frame.
            frames_per_second: As in the clip table.
        """
        variant, table, frames, labelled = self.release.variant, [], {}, set()
        if not self.names_apex:
            self.problems.append(
                Problem(self.dataset, "", "every clip", "this release names no apex", "it is spotted", True)
            )
        for row in rows:
            texts = dict(row)
            self._reasons: list[str] = []  # why the clip is left out
            self._changes: list[tuple[str, str]] = []  # what is wrong, and what is done about it
            labelled.add(detect.key(variant, texts))
            usable, numbers = self._check(texts)
            labelled.add(detect.key(variant, texts))  # an erratum may have changed the onset
            subject, clip = texts["subject"] or "?", texts["clip"] or f"row {texts['row']}"
            if usable is None or self._reasons:
                actions = [(reason, "left out", False) for reason in self._reasons]
            else:
                actions = [(*change, True) for change in self._changes]
                table.append({**texts, **numbers, "folder": str(usable.frames[0].path.parent)})
                frames[subject, clip] = usable
            self.problems += [Problem(self.dataset, subject, clip, *action) for action in actions]
        self._list_unlabelled(labelled)
        clips = pd.DataFrame(table, columns=list(COLUMNS)).assign(
            dataset=self.dataset, frames_per_second=variant.frames_per_second or frames_per_second
        )
        clips = clips.astype(dict.fromkeys(("onset", "offset"), "int64") | {"apex": "Int64"})
        return Audit(clips, frames, self.problems)

    def _check(self, texts: dict[str, str]) -> tuple[ClipFrames | None, dict[str, int | None]]:
        """The clip's frames and frame numbers; notes reasons and changes."""
        for name in ("subject", "clip"):
            if not is_plain(texts[name]):
                shown = f"'{texts[name]}' is no plain name" if texts[name] else "is empty"
                self._reasons.append(f"row {texts['row']}: the {name} {shown}")
        if texts["emotion"] not in self.emotions:
            self._reasons.append(f"emotion '{texts['emotion']}' is none of {', '.join(self.emotions)}")
        folder = self._folder(texts)
        self._correct(texts)
        folder = folder or self._folder(texts)
        identity = (texts["subject"].lower(), texts["clip"].lower())
        first = self._row_of.setdefault(identity, texts["row"])
        if first != texts["row"] and texts["clip"]:
            self._reasons.append(f"stands twice; row {first} is used, not row {texts['row']}")
        for name in ("onset", "offset"):
            empty_is_fine = self.release.variant.sheet is None  # then the first and last frame are meant
            if not is_number(texts[name]) and (texts[name] or not empty_is_fine):
                self._reasons.append(f"{name} '{texts[name]}' is no frame number")
        if folder is None and texts["subject"] and texts["clip"]:
            self._reasons.append(f"there is no folder of its frames in {self.release.folder}")
        if self._reasons or folder is None:
            return None, {}
        try:
            frames = self._list(folder)
        except OSError as error:
            self._reasons.append(f"{folder} cannot be read ({error.strerror})")
            return None, {}
        if not frames:
            self._reasons.append(f"{folder} holds no image")
            return None, {}
        onset = int(texts["onset"] or frames[0].number)
        offset = int(texts["offset"] or frames[-1].number)
        if offset <= onset:
            self._reasons.append(f"offset {offset} is not after onset {onset}")
            return None, {}
        apex = self._apex(texts["apex"], onset, offset) if self.names_apex else None
        frames = self._renumbered(frames, onset, offset)
        usable = self._clip_frames(frames, onset, apex, offset) if frames else None
        return usable, {"onset": onset, "apex": usable and usable.apex and apex, "offset": offset}

    def _folder(self, texts: dict[str, str]) -> Path | None:
        return self.folders.get(detect.key(self.release.variant, texts))

    def _correct(self, texts: dict[str, str]) -> None:
        """Apply the errata of this row."""
        for name in NUMBERS:
            erratum = self._corrections.get((texts["subject"], texts["clip"], name))
            if erratum and texts[name] == erratum.was:
                texts[name] = "" if erratum.now is None else str(erratum.now)
                action = "it is spotted" if erratum.now is None else f"{erratum.now} is taken"
                self._changes.append((f"{name} {erratum.was}: {erratum.reason}", action))

    def _apex(self, text: str, onset: int, offset: int) -> int | None:
        """The apex of the sheet; None, and a note, where it cannot be one."""
        if is_number(text) and onset < int(text) <= offset:
            return int(text)
        if is_number(text):
            side = "not after onset" if int(text) <= onset else "after offset"
            what = f"apex {text} is {side} {onset if int(text) <= onset else offset}"
        else:
            what = f"apex '{text}' is no frame number" if text else "no apex is named"
        if not any(change.startswith("apex") for change, _ in self._changes):
            self._changes.append((what, "it is spotted"))
        return None

    def _renumbered(self, frames: list[Frame], onset: int, offset: int) -> list[Frame]:
        """The frames under the numbers of the sheet, where somebody has numbered them anew from 0 or 1.

        A folder that spans exactly onset to offset says so by itself. One that nearly does leaves open which frame is
        which: then there are none.
        """
        names = detect.fields(self.release.variant)
        first, last = frames[0].number, frames[-1].number
        holds_one_clip = "clip" in names or "onset" in names
        length, span = offset - onset + 1, last - first + 1
        if not holds_one_clip or first > 1 or first == onset or last >= offset:
            return frames
        numbers = f"the frames are numbered {first} to {last}, the sheet says {onset} to {offset}"
        if span == length:
            shift = onset - first
            self._changes.append((f"{numbers}: they start anew", f"{shift} is added to their numbers"))
            return [replace(frame, number=frame.number + shift) for frame in frames]
        if abs(span - length) <= max(2, length // 10) and offset - last > 2:
            self._reasons.append(f"{numbers}: they seem to start anew, but {span} are not the {length} of the sheet")
            return []
        return frames

    def _clip_frames(self, frames: list[Frame], onset: int, apex: int | None, offset: int) -> ClipFrames | None:
        """The frames from onset to offset that open; the nearest where one of the three is missing."""
        inside = [frame for frame in frames if onset <= frame.number <= offset]
        damaged = {frame.number: self._damage(frame) for frame in inside if self._damage(frame)}
        whole = [frame for frame in inside if frame.number not in damaged]
        if len(whole) < 2:
            counted = f"{len(whole) or 'no'} frame{'s' if len(whole) != 1 else ''} of {onset} to {offset}"
            what = f"{next(iter(damaged))} {next(iter(damaged.values()))}" if damaged else ""
            self._reasons.append(f"{counted} can be used" + (f" ({len(damaged)} damaged: {what})" if damaged else ""))
            return None
        # Just outside the clip may lie a frame that is nearer to a missing onset or offset than any inside.
        before = [frame for frame in frames if frame.number < onset][-1:]
        after = [frame for frame in frames if frame.number > offset][:1]
        kept = [frame for frame in (*before, *whole, *after) if not self._damage(frame)]
        first, last = _nearest(kept, onset), _nearest(kept, offset)
        corrected = any(what.startswith("offset") for what, _ in self._changes)  # who cut the folder did not know it
        if 3 * (offset - last) > offset - onset and not corrected:
            self._reasons.append(f"the last third is missing: no frame of {last + 1} to {offset} can be used")
            return None
        kept = [frame for frame in kept if first <= frame.number <= last]
        used = None if apex is None else _nearest(kept, apex)
        doubled = [frame for frame in kept if frame.others]
        if doubled:
            one = doubled[0]
            what = f"{len(doubled)} number(s) with two files, as {', '.join(one.others)} beside {one.path.name}"
            self._changes.append((what, "the files like the last are used"))
        if damaged:
            shown = ", ".join(f"{number} {what}" for number, what in list(damaged.items())[:5])
            more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
            self._changes.append((f"{len(damaged)} damaged: frame {shown}{more}", "it goes without them"))
        absent = offset - onset + 1 - len(inside)
        if absent:
            self._changes.append((f"{absent} of {offset - onset + 1} frames are missing", "it goes without them"))
        if used is not None and used <= first:
            self._changes.append((f"apex {apex}: no frame after the onset is near", "it is spotted"))
            used = None
        for name, wanted, taken in (("onset", onset, first), ("apex", apex, used), ("offset", offset, last)):
            if taken is not None and wanted != taken:
                self._changes.append((f"frame {wanted}, the {name}, cannot be used", f"frame {taken} is taken"))
        return ClipFrames(tuple(kept), used)

    def _list_unlabelled(self, labelled: set[tuple[str, ...]]) -> None:
        """Note the folders of frames that no row names."""
        names = detect.fields(self.release.variant)
        if "clip" not in names and "onset" not in names:
            return  # whole videos: most hold no micro-expression
        for key, path in self.folders.items():
            if key not in labelled:
                where = path.relative_to(self.release.folder)
                what = f"folder {where} has no label"
                self.problems.append(Problem(self.dataset, key[0], "_".join(key[1:]), what, "not used", False))


def _nearest(frames: list[Frame], number: int) -> int:
    return min((frame.number for frame in frames), key=lambda other: abs(other - number))

"""Protocols: which clips take part and which class an emotion stands for; how clips are split into folds."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from mer import InputError

THREE_CLASSES = ("negative", "positive", "surprise")


@dataclass(frozen=True)
class Protocol:
    """A way to score clips that papers share.

    Attributes:
        classes: The fixed list of classes, in order; a target is an index into it.
        emotions: Per database the class of each emotion. An emotion that is not listed does not take part.
        left_out: Reason by (database, subject, clip) for clips that the protocol's authors leave out.
        parts: Clips, subjects and clips per class that each database's real sheet gives under this protocol.
    """

    classes: tuple[str, ...]
    emotions: Mapping[str, Mapping[str, str]]
    left_out: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    parts: Mapping[str, tuple[int, int, tuple[int, ...]]] = field(default_factory=dict)

    def words(self, database: str) -> Mapping[str, str]:
        """The class of each emotion of a database; one that no protocol names may use the words of all that this does.

        No word stands for two classes of a protocol.
        """
        if any(database in rules.emotions for rules in PROTOCOLS.values()):
            return self.emotions.get(database, {})
        return {emotion: name for emotions in self.emotions.values() for emotion, name in emotions.items()}


def _same(*emotions: str) -> dict[str, str]:
    return {emotion: emotion for emotion in emotions}


def _merge(**classes: str) -> dict[str, str]:
    return {emotion: name for name, emotions in classes.items() for emotion in emotions.split()}


_CASME2_3 = _merge(negative="disgust repression", positive="happiness", surprise="surprise")
_SAMM_3 = _merge(negative="anger contempt disgust fear sadness", positive="happiness", surprise="surprise")
_SMIC_3 = _same(*THREE_CLASSES)
_CASME3_3 = _merge(negative="disgust fear anger sad", positive="happy", surprise="surprise")
# Clips, subjects and clips per class of the real sheets under these three classes.
_PARTS_3 = {
    "casme2": (147, 24, (90, 32, 25)),
    "samm": (133, 28, (92, 26, 15)),
    "smic": (164, 16, (70, 51, 43)),
    "casme3": (699, 88, (457, 55, 187)),
}


def _of_one(database: str, emotions: dict[str, str]) -> Protocol:
    return Protocol(THREE_CLASSES, {database: emotions}, parts={database: _PARTS_3[database]})


PROTOCOLS: dict[str, Protocol] = {
    # See, Yap, Li, Hong and Wang, "MEGC 2019: the second facial micro-expressions grand challenge", FG 2019.
    "megc2019": Protocol(
        THREE_CLASSES,
        {"casme2": _CASME2_3, "samm": _SAMM_3, "smic": _SMIC_3},
        left_out={
            ("casme2", "sub04", "EP12_01f"): "its apex is not annotated",
            ("casme2", "sub05", "EP09_05f"): "its apex is its onset",
        },
        parts={"casme2": (145, 24, (88, 32, 25)), "samm": _PARTS_3["samm"], "smic": _PARTS_3["smic"]},
    ),
    "casme2-5": Protocol(
        ("happiness", "surprise", "disgust", "repression", "others"),
        {"casme2": _same("happiness", "surprise", "disgust", "repression", "others")},
        parts={"casme2": (246, 26, (32, 25, 63, 27, 99))},
    ),
    "casme2-3": _of_one("casme2", _CASME2_3),
    "samm-5": Protocol(
        ("anger", "happiness", "contempt", "surprise", "other"),
        {"samm": _same("anger", "happiness", "contempt", "surprise", "other")},
        parts={"samm": (136, 27, (57, 26, 12, 15, 26))},
    ),
    "samm-3": _of_one("samm", _SAMM_3),
    "smic-3": _of_one("smic", _SMIC_3),
    "casme3-7": Protocol(
        ("disgust", "surprise", "others", "fear", "anger", "sad", "happy"),
        {"casme3": _same("disgust", "surprise", "others", "fear", "anger", "sad", "happy")},
        parts={"casme3": (860, 94, (250, 187, 161, 86, 64, 57, 55))},
    ),
    "casme3-4": Protocol(
        (*THREE_CLASSES, "others"),
        {"casme3": {**_CASME3_3, "others": "others"}},
        parts={"casme3": (860, 94, (457, 55, 187, 161))},
    ),
    "casme3-3": _of_one("casme3", _CASME3_3),
    # Three classes over any union of the databases; of one database alone, all clips with such a label.
    "union-3": Protocol(
        THREE_CLASSES, {"casme2": _CASME2_3, "samm": _SAMM_3, "smic": _SMIC_3, "casme3": _CASME3_3}, parts=_PARTS_3
    ),
}

OWN = "own"
"""The protocol whose classes are the labels of a table of clips; ``own_protocol`` gives it its full name."""

_OWN = re.compile(r"own-([\w.]+(?:\+[\w.]+)+)(-[0-9a-f]{6})?")
_LONGEST_NAME = 150  # bytes; it is the name of a folder

SPLITS = {
    "loso": "leave one subject out",
    "lodo": "leave one database out",
    "groups<k>": "leave one of k groups of subjects out, e.g. groups5",
}
_GROUPS = re.compile(r"groups([1-9]\d{0,3})")


def protocol(name: str) -> Protocol:
    """Look a protocol up by its name; the name of an own one says its classes.

    Raises:
        InputError: If there is no such protocol; the message lists those that there are.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if match := _OWN.fullmatch(name):
        return Protocol(tuple(match[1].split("+")), {})
    raise InputError(f"unknown protocol '{name}'; there are {', '.join(PROTOCOLS)}, and {OWN} for --dataset clips")


def is_protocol(name: str) -> bool:
    """Whether there is such a protocol, an own one included."""
    return name in PROTOCOLS or bool(_OWN.fullmatch(name))


def own_protocol(classes: Sequence[str], emotions: Mapping[str, str] | None = None) -> str:
    """The name of a protocol of somebody's own labels, ``own-joy+sorrow``.

    It carries the classes, so that it is understood where nothing but the name is known: in a folder of results, on
    another machine. Where labels are joined into classes, six digits of how end it, ``own-joy+sorrow-1f0a33``: two
    ways to join them are two protocols.

    Args:
        classes: At least two, in order.
        emotions: The class of each emotion, where they differ.

    Raises:
        InputError: If that is no name.
    """
    name = f"{OWN}-{'+'.join(classes)}"
    if emotions:
        name += "-" + hashlib.sha256(repr(sorted(emotions.items())).encode()).hexdigest()[:6]
    match = _OWN.fullmatch(name)
    if match is None or match[1].split("+") != [*classes] or len(set(classes)) < len(classes):
        raise InputError(
            f"classes {', '.join(classes) or '(none)'}: two or more are needed, named by letters, digits, . and _"
        )
    if len(name.encode()) > _LONGEST_NAME:
        raise InputError(f"{len(classes)} classes have names too long for a folder, {name}: join or shorten them")
    return name


def select(clips: pd.DataFrame, name: str, database: str | None = None) -> pd.DataFrame:
    """The clips that take part in a protocol, with their class in a new column ``target``.

    Args:
        clips: A clip table.
        name: The protocol.
        database: Whose emotions the labels are; by default what the column ``dataset`` says, clip by clip.

    Returns:
        The rows that take part, in the order of the table, renumbered from 0.

    Raises:
        InputError: If no clip takes part.
    """
    rules = protocol(name)

    def target(row: pd.Series) -> str | None:
        of = database or row["dataset"]
        if (of, row["subject"], row["clip"]) in rules.left_out:
            return None
        return rules.words(of).get(row["emotion"])

    targets = [target(row) for _, row in clips.iterrows()]
    selected = clips.assign(target=targets)[[value is not None for value in targets]].reset_index(drop=True)
    if selected.empty:
        known = sorted({emotion for emotions in rules.emotions.values() for emotion in emotions})
        present = sorted(set(clips["emotion"].astype(str)))
        raise InputError(
            f"no clip takes part in protocol '{name}', which knows {', '.join(known)}; "
            f"the data have {', '.join(present) or 'no clips'}. Choose another with --protocol."
        )
    return selected


def is_split(name: str) -> bool:
    """Whether there is such a split, see ``SPLITS``."""
    return name in ("loso", "lodo") or bool(_GROUPS.fullmatch(name))


def check_split(name: str) -> None:
    """Raise an error that lists the known splits if there is no split of this name.

    Raises:
        InputError: If it is unknown.
    """
    if not is_split(name):
        known = ", ".join(f"{split} ({text})" for split, text in SPLITS.items())
        raise InputError(f"unknown split '{name}'; there are {known}")


def folds(clips: pd.DataFrame, split: str = "loso") -> dict[str, list[int]]:
    """Test rows of every fold; together they hold every row once, and no subject is in two.

    Args:
        clips: Table with ``dataset`` and ``subject``.
        split: ``loso`` holds out one subject at a time, ``lodo`` one database, ``groups5`` one of five groups of
            subjects; a subject is the pair (dataset, subject). Folds are named ``<dataset>-<subject>``, ``<dataset>``
            and ``group<n>``.

    Returns:
        Row numbers by fold name, sorted by name.

    Raises:
        InputError: If the split is unknown, or leaves nobody to train on.
    """
    check_split(split)
    names = clips["dataset"] + "-" + clips["subject"]
    kind = "subject"
    if match := _GROUPS.fullmatch(split):
        names, kind = names.map(_groups(names, int(match[1]))), "group of subjects"
    elif split == "lodo":
        names, kind = clips["dataset"], "database"
    folded = {str(name): [int(row) for row in rows] for name, rows in names.groupby(names).groups.items()}
    if len(folded) < 2:
        raise InputError(f"leaving one {kind} out needs at least two {kind}s; there is only {', '.join(folded)}")
    return dict(sorted(folded.items()))


def without_fold(clips: pd.DataFrame, split: str, fold: str) -> pd.DataFrame:
    """The clips that a fold of the split trains on, renumbered from 0.

    Raises:
        InputError: If there is no such fold.
    """
    outer = folds(clips, split)
    if fold not in outer:
        raise InputError(f"there is no outer fold '{fold}'; outer split '{split}' has {', '.join(outer)}")
    return clips.drop(index=outer[fold]).reset_index(drop=True)


def _groups(subjects: pd.Series, count: int) -> dict[str, str]:
    """Group of each subject: the largest first, each to the group with the fewest clips so far; labels play no part."""
    sizes = sorted(subjects.value_counts().items(), key=lambda pair: (-pair[1], pair[0]))
    if not 2 <= count <= len(sizes):
        raise InputError(f"split 'groups{count}': {len(sizes)} subjects make 2 to {len(sizes)} groups")
    clips, groups = [0] * count, {}
    for subject, size in sizes:
        smallest = clips.index(min(clips))
        clips[smallest] += size
        groups[subject] = f"group{smallest + 1:0{len(str(count))}d}"
    return groups

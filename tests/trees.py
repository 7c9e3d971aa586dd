"""Small folders in the real layouts: a few clips each, with the quirks of the real sheets, written at test time."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from data_modules.cache import store
from data_modules.cache.extract import Entry
from data_modules.synthesis.layouts import layout
from mer.preprocessing.clip import FlowPreparation, FramesPreparation
from mer.preprocessing.depth import DepthPreparation

IMAGES = {
    suffix: cv2.imencode(suffix, np.random.default_rng(0).integers(0, 255, (48, 48, 3), np.uint8))[1].tobytes()
    for suffix in (".jpg", ".bmp", ".png")
}
EMOTIONS = {
    "casme2": ("happiness", "disgust", "surprise", "others", "Repression"),
    "samm": ("Anger", "Happiness", "Surprise", "Other", "Contempt"),
    "smic": ("negative", "positive", "surprise"),
    "casme3": ("disgust", "happy", "surprise", "Others", "fear"),
}
DEPTH = cv2.imencode(".png", np.random.default_rng(1).integers(600, 900, (48, 48), np.uint16))[1].tobytes()
CODES = {"negative": "ne", "positive": "po", "surprise": "sur"}


def prepare_without_faces(entries: Iterable[Entry], workers: int) -> Iterator[None]:
    """Fill a cache without looking for faces in noise; the values tell which frame was taken."""
    for entry in entries:
        work = entry.preparation
        numbers, side = [number for number, _ in work.frames], work.size
        assert numbers == sorted(numbers) and len(numbers) > 1
        if isinstance(work, FramesPreparation):
            strip = np.arange(work.count, dtype=np.uint8)[:, None, None, None]
            tensors = {"frames": np.broadcast_to(strip, (work.count, 3, side, side))}
        elif isinstance(work, DepthPreparation):
            tensors = {"depth": np.full((3, side, side), work.apex or 0, np.float32)}
        else:
            assert isinstance(work, FlowPreparation) and (work.apex is None or work.apex in numbers[1:])
            tensors = {"flow": np.full((3, side, side), work.apex or 0, np.float32)}
            tensors |= {name: np.full((3, side, side), len(name), np.uint8) for name in ("onset", "apex")}
            tensors["apex_frame"] = np.array([work.apex or numbers[-1]])
        store.write(entry.target, tensors)
        yield None


def write_frames(folder: Path, names: Iterable[str], content: bytes | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(content or IMAGES[Path(name).suffix])


def write_workbook(path: Path, sheets: dict[str, Sequence[Sequence]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    layout.write_workbook(path, sheets)
    return path


def casme2_rows(subjects: int = 3, clips: int = 5) -> list[tuple]:
    """As on the sheet: subject as text, action units as a number or as text."""
    return [
        (f"{s:02d}", f"EP{c:02d}_0{s}f", None, 8 + c, 10 + c, 13 + c, None, "4+7" if c % 2 else 12, emotion)
        for s in range(1, subjects + 1)
        for c, emotion in enumerate(EMOTIONS["casme2"][:clips], start=1)
    ]


CASME2_HEADER = ("Subject", "Filename", None, "OnsetFrame", "ApexFrame", "OffsetFrame", None, "Action Units",
                 "Estimated Emotion")  # fmt: skip


def casme2(
    root: Path,
    rows: list[tuple] | None = None,
    folder: str = "CASME2_RAW_selected",
    frame: str = "img{}.jpg",
    subject: str = "sub{}",
    sheet: str = "CASME2-coding-20140508.xlsx",
    blanks: bool = True,
) -> Path:
    rows = casme2_rows() if rows is None else rows
    table = [CASME2_HEADER, *rows]
    if not blanks:
        table = [tuple(cell for i, cell in enumerate(row) if i not in (2, 6)) for row in table]
    write_workbook(root / sheet, {"Sheet1": table, "Sheet2": []})
    for row in rows:
        if all(isinstance(row[i], int) for i in (3, 5)):
            numbers = range(row[3], row[5] + 1)
            write_frames(root / folder / subject.format(row[0]) / row[1], [frame.format(n) for n in numbers])
    return root


def samm(root: Path, before: int = 13, folder: str = "SAMM") -> Path:
    header = ("Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration",
              "Micro", "Action Units", "Estimated Emotion", "Objective Classes")  # fmt: skip
    rows = [
        (f"{s:03d}", f"{s:03d}_{c}_1", c, 998 + c, 1000 + c, 1003 + c, "=F15-D15+1", "Micro", "12+15 ", emotion, 3)
        for s in (6, 7, 11)
        for c, emotion in enumerate(EMOTIONS["samm"], start=1)
    ]
    text = [("SAMM Dataset - Master FACS Codes",), *[(f"note {n}", None, "Subject") for n in range(before - 1)]]
    write_workbook(root / "SAMM_Micro_FACS_Codes_v2.xlsx", {"MICRO_ONLY": [*text[:before], header, *rows]})
    for row in rows:
        digits = 4 + row[2] % 2
        names = [f"{row[0]}_{n:0{digits}d}.jpg" for n in range(row[3], row[5] + 1)]
        write_frames(root / folder / row[0] / row[1], names)
    (root / folder / "006" / "Thumbs.db").write_bytes(b"no image")
    return root


def smic(root: Path, camera: str = "SMIC_all_raw/HS", frame: str = "image{}.bmp") -> Path:
    for s in (1, 3, 12):
        for c, emotion in enumerate(EMOTIONS["smic"]):
            folder = root / camera / f"s{s}" / "micro" / emotion / f"s{s}_{CODES[emotion]}_01"
            write_frames(folder, [frame.format(99998 + c + n) for n in range(5)])  # five digits, then six
        write_frames(root / camera / f"s{s}" / "non_micro" / f"s{s}_nm_01", [frame.format(1)])
        (root / camera / f"s{s}" / "Desktop - Shortcut.lnk").write_bytes(b"")
    return root


def smic_extended(root: Path) -> Path:
    folder = root / "SMIC-E_raw image/HS_long/SMIC-HS-E"
    header = ("Subject", "Filename", None, "OnsetF", "OffsetF", "Onset2F", "Offset2F", None, "FirstF", "LastF",
              "Emotion")  # fmt: skip
    rows = []
    for s in (1, 3, 12):
        for c, emotion in enumerate(EMOTIONS["smic"]):
            name = f"s{s}_{CODES[emotion]}_01"
            rows.append((s, name, None, 103 + c, 107 + c, None, None, None, 100, 112, emotion))
            write_frames(folder / f"s{s:02d}" / name, [f"image{n}.jpg" for n in range(100, 113)])
    write_workbook(root / "SMIC-HS-E_annotation.xlsx", {"HS": [header, *rows, (None,) * 11], "Sheet2": []})
    return root


def casme3(root: Path, whole: bool = True) -> Path:
    header = ("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion")
    rows = []
    for s in (1, 14, 216):
        for c, emotion in enumerate(EMOTIONS["casme3"]):
            video, onset = "ab"[c % 2], 20 + 10 * c
            rows.append((f"spNO.{s}", video, str(onset), str(onset + 2), str(onset + 5), "R12", "I", emotion))
            if whole:
                folder = root / "part_A/data/part_A" / f"{'spNo' if s == 14 else 'spNO'}.{s}" / video.upper()
                write_frames(folder / "color", [f"{n}.jpg" for n in range(onset - 3, onset + 9)])
                write_frames(folder / "depth", [f"{n}.png" for n in range(onset - 3, onset + 9)], DEPTH)
            else:
                name = f"spNO.{s}_{video}_{onset}"
                write_frames(root / "Part_A_ME_clip/frame" / name, [f"{n}.jpg" for n in range(onset, onset + 6)])
                write_frames(root / "Part_A_ME_clip/depth" / name, [f"{n}.png" for n in range(onset, onset + 6)], DEPTH)
    junk = [("nothing", "of", "this", "counts")]
    write_workbook(root / "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx", {"Sheet1": junk, "label": [header, *rows]})
    return root


def megc2019(root: Path) -> Path:
    casme2(root / "casme2")
    samm(root / "samm")
    smic(root / "SMIC")
    return root


# Dataset, layout as it is recognised, and what writes it.
LAYOUTS = {
    "casme2-raw": ("casme2", "raw", casme2),
    "casme2-long": (
        "casme2",
        "raw, long",
        lambda root: casme2(root, folder="CASME2-RAW", sheet="CASME2-coding-20190701.xlsx", subject="{}", blanks=False),
    ),
    "casme2-cropped": (
        "casme2",
        "raw cropped",
        lambda root: casme2(root, folder="Cropped-updated/Cropped", frame="reg_img{}.jpg"),
    ),
    "samm": ("samm", "raw", samm),
    "samm-no-text": ("samm", "raw", lambda root: samm(root, before=0, folder="SAMM/SAMM")),
    "smic-hs": ("smic", "HS", smic),
    "smic-vis": ("smic", "VIS", lambda root: smic(root, "SMIC_all_raw/VIS")),
    "smic-cropped": ("smic", "HS cropped", lambda root: smic(root, "SMIC_all_cropped/HS", "reg_image{}.bmp")),
    "smic-extended": ("smic", "HS extended", smic_extended),
    "casme3-videos": ("casme3", "whole videos", casme3),
    "casme3-clips": ("casme3", "clips", lambda root: casme3(root, whole=False)),
    "megc2019": ("megc2019", "casme2 raw, samm raw, smic HS", megc2019),
}

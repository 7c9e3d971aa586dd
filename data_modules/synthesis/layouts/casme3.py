"""CAS(ME)^3 part A: whole videos with several clips each, a sheet in which all is text, frames that are missing."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from string import ascii_lowercase
from typing import ClassVar

import numpy as np

from data_modules.synthesis import action_units
from data_modules.synthesis.layouts.layout import Clip, Layout, drop, stray, write_workbook

_ROMAN = ("I", "II", "III", "IV", "V", "VI", "VII")
GAP = 3  # still frames before and after each clip of a video


class CASME3Layout(Layout):
    """CAS(ME)^3 part A (Li et al., TPAMI 2022), 30 frames per second.

    root/part_A/data/part_A/spNO.1/a/color/355.jpg       a stretch of a whole video
    root/part_A/data/part_A/spNO.1/a/depth/355.png       16 bits, millimetres; the same motion
    root/cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx       sheet label
    root/truth/spNO.1_a_355.safetensors                  subject, video, onset

    One clip in ten misses frames, one in sixteen has its onset for an apex, one subject's folder and one video's are
    written in another case than in the sheet.
    """

    dataset: ClassVar[str] = "casme3"
    label: ClassVar[str] = "CAS(ME)^3"
    people: ClassVar[int] = 300
    file: ClassVar[str | None] = "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx"
    row: ClassVar[str] = r"spno\.\d+ "
    emotions: ClassVar[Mapping[str, Mapping[str, int]]] = action_units.CASME3_EMOTIONS
    cycle: ClassVar[tuple[str, ...]] = tuple(action_units.CASME3_EMOTIONS)
    size: ClassVar[tuple[int, int]] = (1280, 720)
    has_depth: ClassVar[bool] = True
    length: ClassVar[tuple[int, int]] = (8, 16)
    onset: ClassVar[tuple[int, int]] = (5, 400)

    def subject(self, number: int) -> str:
        return f"spNO.{number}"

    def names(self, generator: np.random.Generator, subject: str, clips: int) -> list[str]:
        videos = min(13, -(-clips // 2))
        return [ascii_lowercase[i * videos // clips] for i in range(clips)]

    def arrange(self, rows: list[Clip], generator: np.random.Generator) -> list[Clip]:
        placed, end = [], {}
        for i, clip in enumerate(rows):
            later = max(0, end.get(clip.name, 0) + 2 * GAP + 1 - clip.onset)
            if clip.name in end:  # the next one of a video follows soon after
                later = end[clip.name] + 2 * GAP + 1 + int(generator.integers(12)) - clip.onset
            clip = replace(
                clip, onset=clip.onset + later, apex=clip.apex + later, offset=clip.offset + later, lead=GAP, tail=GAP
            )
            lost = int(generator.integers(clip.onset, clip.offset))
            if i == 0 and clip.subject == self.subject(1):  # so that the smallest folder has it too
                clip = drop(clip, clip.apex, generator)
            elif generator.random() < 0.1:
                clip = drop(clip, lost, generator)
            end[clip.name] = clip.offset
            placed.append(clip)
        return placed

    def key(self, clip: Clip) -> str:
        return f"{clip.name}_{clip.onset}"

    def frame(self, clip: Clip, number: int) -> str:
        subject = "spNo.2" if clip.subject == "spNO.2" and clip.person else clip.subject
        return f"part_A/data/part_A/{subject}/{clip.name}/color/{number}.jpg"

    def add_depth(self, root: Path, clip: Clip, number: int, picture: bytes) -> None:
        path = (root / self.frame(clip, number)).parent.parent / "depth" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture)

    def finish(self, root: Path, table: list[Clip]) -> None:
        rows: list[tuple] = [("Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion")]
        others = 0
        for i, clip in enumerate(table):
            emotion = clip.emotion
            if emotion == "others":
                others += 1
                emotion = "Others" if others % 8 == 1 else emotion
            apex = clip.onset if i % 16 == 7 else clip.apex
            name = clip.name.upper() if clip.name == "b" and clip.subject == self.subject(1) else clip.name
            units = "+".join(reversed(clip.action_units.split("+")))
            group = _ROMAN[action_units.objective_class(clip.action_units) - 1]
            rows.append((clip.subject, name, str(clip.onset), str(apex), str(clip.offset), units, group, emotion))
        junk = [(None,) * 17, (None, None, "check again", 355, 360), (None,) * 17]
        assert self.file
        write_workbook(root / self.file, {"label": rows, "Sheet1": junk, "Sheet3": []})
        folder = (root / self.frame(table[0], 0)).parent
        stray(folder, "Thumbs.db")
        stray(folder.parent.parent, ".DS_Store", "Desktop - Shortcut.lnk")

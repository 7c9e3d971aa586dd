"""CASME II: text subjects, blank columns between the others, action units as a number where there is only one."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from data_modules.synthesis import action_units
from data_modules.synthesis.layouts.layout import Clip, Layout, write_workbook


class CASME2Layout(Layout):
    """CASME II (Yan et al., PLoS ONE 2014), 200 frames per second.

    root/CASME2_RAW_selected/sub01/EP02_01f/img46.jpg    onset..offset only
    root/CASME2-coding-20140508.xlsx                     one row per clip
    root/truth/sub01_EP02_01f.safetensors
    """

    dataset: ClassVar[str] = "casme2"
    label: ClassVar[str] = "CASME II"
    people: ClassVar[int] = 0
    file: ClassVar[str | None] = "CASME2-coding-20140508.xlsx"
    row: ClassVar[str] = r"(sub)?\d+ EP\d"
    emotions: ClassVar[Mapping[str, Mapping[str, int]]] = action_units.EMOTIONS
    cycle: ClassVar[tuple[str, ...]] = tuple(action_units.EMOTIONS)
    suffix: ClassVar[str] = "f"

    def subject(self, number: int) -> str:
        return f"{number:02d}"

    def subject_of(self, word: str) -> str:
        return word.zfill(2)

    def names(self, generator: np.random.Generator, subject: str, clips: int) -> list[str]:
        takes = max(9, clips // 8)
        pool = [f"EP{episode:02d}_{take:02d}" for episode in range(1, 20) for take in range(1, takes + 1)]
        return sorted(str(name) for name in generator.choice(pool, clips, replace=False))

    def frame(self, clip: Clip, number: int) -> str:
        return f"CASME2_RAW_selected/sub{clip.subject}/{clip.name}/img{number}.jpg"

    def truth(self, clip: Clip) -> str:
        return f"truth/sub{clip.subject}_{clip.name}.safetensors"

    def finish(self, root: Path, table: list[Clip]) -> None:
        rows: list[tuple] = [
            ("Subject", "Filename", None, "OnsetFrame", "ApexFrame", "OffsetFrame", None, "Action Units",
             "Estimated Emotion"),
        ]  # fmt: skip
        for clip in table:
            units = int(clip.action_units) if clip.action_units.isdigit() else clip.action_units
            rows.append(
                (clip.subject, clip.name, None, clip.onset, clip.apex, clip.offset, None, units, clip.emotion),
            )
        assert self.file
        write_workbook(root / self.file, {"Sheet1": rows})

"""SAMM: grey frames, padded by four or five digits, text above the sheet's header, untidy action units."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from data_modules.synthesis import action_units
from data_modules.synthesis.layouts.layout import Clip, Layout, stray, write_workbook

_ABOVE = (
    "SAMM layout - synthetic faces written by mer synthesize", None, "Fake codes: nothing here comes from SAMM",
    None, None, "Symbol Key:", '"/" = or', '"?" = unclear offset', None, "AU Help:",
    '"L2 or R2" = one side of the face', '"A2" = both sides, one stronger', None,
)  # fmt: skip


class SAMMLayout(Layout):
    """SAMM (Davison et al., IEEE TAC 2018), 200 frames per second.

    root/SAMM/006/006_1_2/006_05562.jpg       onset..offset; four digits in other clips
    root/SAMM_Micro_FACS_Codes_v2.xlsx        sheet MICRO_ONLY, header on row 14
    root/truth/006_006_1_2.safetensors
    """

    dataset: ClassVar[str] = "samm"
    label: ClassVar[str] = "SAMM"
    people: ClassVar[int] = 100
    file: ClassVar[str | None] = "SAMM_Micro_FACS_Codes_v2.xlsx"
    row: ClassVar[str] = r"\d+ \d+_\d+_\d+"
    emotions: ClassVar[Mapping[str, Mapping[str, int]]] = action_units.SAMM_EMOTIONS
    cycle: ClassVar[tuple[str, ...]] = ("anger", "happiness", "contempt", "surprise", "other")
    size: ClassVar[tuple[int, int]] = (960, 650)
    grey: ClassVar[bool] = True
    onset: ClassVar[tuple[int, int]] = (83, 12000)

    def subject(self, number: int) -> str:
        return f"{number + 5:03d}"

    def subject_of(self, word: str) -> str:
        return word.zfill(3)

    def names(self, generator: np.random.Generator, subject: str, clips: int) -> list[str]:
        takes = max(9, clips // 5)
        pool = [(video, take) for video in range(1, 8) for take in range(1, takes + 1)]
        drawn = sorted(int(i) for i in generator.choice(len(pool), clips, replace=False))
        return [f"{subject}_{pool[i][0]}_{pool[i][1]}" for i in drawn]

    def frame(self, clip: Clip, number: int) -> str:
        digits = 4 + sum(map(ord, clip.name)) % 2
        return f"SAMM/{clip.subject}/{clip.name}/{clip.subject}_{number:0{digits}d}.jpg"

    def finish(self, root: Path, table: list[Clip]) -> None:
        header = ("Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration",
                  "Micro", "Action Units", "Estimated Emotion", "Objective Classes", "Notes")  # fmt: skip
        rows: list[tuple] = [*((text,) for text in _ABOVE), header]
        for i, clip in enumerate(table):
            units: str | int = int(clip.action_units) if clip.action_units.isdigit() else clip.action_units
            if isinstance(units, str):
                units = (units, units.replace("+", " + "), f"{units} ")[i % 3]
            at = len(rows) + 1
            rows.append(
                (clip.subject, clip.name, int(clip.name.split("_")[1]), clip.onset, clip.apex, clip.offset,
                 f"=SUM(F{at}-D{at})+1", "Micro - 1/2", units, clip.emotion.capitalize(),
                 action_units.objective_class(clip.action_units), "While blinking" if i % 7 == 3 else None)
            )  # fmt: skip
        assert self.file
        write_workbook(root / self.file, {"MICRO_ONLY": rows})
        stray(root / "SAMM", "Thumbs.db")
        stray((root / self.frame(table[0], 0)).parent, "Thumbs.db", "Desktop - Shortcut.lnk")

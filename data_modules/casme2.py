"""CASME II: 200 frames per second, 26 subjects, 255 spontaneous micro-expressions filmed in a laboratory."""

from pathlib import Path
from typing import ClassVar

import pandas as pd

from data_modules.clips import COLUMNS, complain, frames, unsafe_names
from data_modules.videos import VideoDataModule
from mer import InputError

SHEET = {
    "Subject": "subject", "Filename": "clip", "OnsetFrame": "onset", "ApexFrame": "apex", "OffsetFrame": "offset",
    "Action Units": "action_units", "Estimated Emotion": "emotion",
}  # fmt: skip


class CASME2(VideoDataModule):
    """CASME II (Yan et al., PLoS ONE 2014).

    Layout: ``CASME2_RAW_selected/sub01/EP02_01f/img46.jpg`` (onset to offset, 640x480) beside
    ``CASME2-coding-*.xlsx``.

    Licence: research only, asked for from the Chinese Academy of Sciences (casme.psych.ac.cn).
    """

    name: ClassVar[str] = "casme2"
    default_protocol: ClassVar[str] = "casme2-5"
    frames_per_second: ClassVar[int] = 200

    def read_clips(self) -> pd.DataFrame:
        sheets, folder = sorted(self.root.glob("CASME2-coding-*.xlsx")), self.root / "CASME2_RAW_selected"
        if not sheets or not folder.is_dir():
            raise InputError(
                f"{self.root}: holds no {'CASME2-coding-*.xlsx' if folder.is_dir() else 'CASME2_RAW_selected'}. "
                "CASME II has CASME2_RAW_selected/sub01/EP02_01f/img46.jpg and CASME2-coding-20140508.xlsx; the "
                "licence is asked for at casme.psych.ac.cn. Name the folder with DATA=... or --root."
            )
        sheet = sheets[-1]
        try:
            table = pd.read_excel(sheet, dtype=str, keep_default_na=False)
        except Exception as error:  # openpyxl has no error of its own for a broken sheet
            raise InputError(f"{sheet}: is not an Excel sheet that opens ({error}); unpack it again") from error
        missing = [column for column in SHEET if column not in table]
        if missing:
            raise InputError(f"{sheet}: lacks the column(s) {', '.join(missing)}; it has {', '.join(table.columns)}")
        clips = table.rename(columns=SHEET)[list(SHEET.values())]
        clips = clips.assign(
            subject="sub" + clips["subject"].str.zfill(2),
            emotion=clips["emotion"].str.strip().str.lower(),
            dataset=self.name,
            objective_class="",
            frames_per_second=self.frames_per_second,
        )
        clips["folder"] = [str(folder / row.subject / row.clip) for row in clips.itertuples()]
        complain(sheet, [*unsafe_names(clips), *_faults(clips)], "Mend the folder, or take these rows out of a copy.")
        return clips.astype({"onset": int, "apex": int, "offset": int})[list(COLUMNS)]


def _faults(clips: pd.DataFrame) -> list[str]:
    """What is wrong with the frames of each clip."""
    problems = []
    for row in clips.itertuples():
        where = f"{row.subject} {row.clip}"
        if not all(number.isdigit() for number in (row.onset, row.apex, row.offset)):
            problems.append(
                f"{where}: onset '{row.onset}', apex '{row.apex}', offset '{row.offset}' are not all numbers"
            )
        elif not int(row.onset) < int(row.apex) <= int(row.offset):
            problems.append(f"{where}: apex {row.apex} is not between onset {row.onset} and offset {row.offset}")
        elif not Path(row.folder).is_dir():
            problems.append(f"{where}: {row.folder} does not exist")
        elif not any(int(row.onset) <= number <= int(row.offset) for number in frames(Path(row.folder))):
            problems.append(f"{where}: {row.folder} holds no frame from {row.onset} to {row.offset}")
    return problems

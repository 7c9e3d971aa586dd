"""SMIC: 16 subjects filmed by three cameras; 164 spontaneous micro-expressions at 100 frames per second."""

import re
from collections.abc import Mapping
from typing import ClassVar

from data_modules.release.clip_table import is_number
from data_modules.release.detect import Variant
from data_modules.release.released import ReleasedDataModule
from data_modules.release.sheets import Sheet

COLUMNS = {
    "Subject": "subject",
    "Filename": "clip",
    "OnsetF": "onset",
    "OffsetF": "offset",
    "Emotion": "emotion",
}
APEX = {"Apex": "apex"}  # no official sheet has it
SEGMENTED = "{subject}/micro/{emotion}/{clip}"


class SMIC(ReleasedDataModule):
    """SMIC, spontaneous micro-expression corpus (Li, Pfister, Huang, Zhao and Pietikäinen, FG 2013).

        SMIC_all_raw/HS/s1/micro/negative/s1_ne_01/image559740.bmp              HS, VIS or NIR; 640x480
        SMIC_all_cropped/HS/s1/micro/negative/s1_ne_01/reg_image559740.bmp      registered faces
        SMIC-E_raw image/HS_long/SMIC-HS-E/s01/s1_ne_01/image559700.jpg         extended, with a sheet
        SMIC-HS-E_annotation.xlsx

    The segmented release has no sheet: the folder is the class, the first and last frame are onset and offset. No
    release names an apex; a column ``Apex`` is read where SMIC-E's sheet, or the one that is given, has it. HS is used
    where several cameras lie side by side; name the folder of another to use that. Subjects and clips are called as in
    the list of MEGC 2019, ``s01`` and ``s01_ne_01``.
    """

    name: ClassVar[str] = "smic"
    title: ClassVar[str] = "SMIC"
    licence: ClassVar[str] = (
        "It is free for research; ask the Center for Machine Vision, University of Oulu, at "
        "oulu.fi/en/university/faculties-and-units/cmvs."
    )
    default_protocol: ClassVar[str] = "smic-3"
    frames_per_second: ClassVar[int] = 100
    emotions: ClassVar[tuple[str, ...]] = ("negative", "positive", "surprise")
    subjects: ClassVar[str] = r"s\d{1,2}"
    variants: ClassVar[tuple[Variant, ...]] = (
        Variant("HS", SEGMENTED, ("HS", "SMIC-HS")),
        Variant("VIS", SEGMENTED, ("VIS", "SMIC-VIS"), frames_per_second=25),
        Variant("NIR", SEGMENTED, ("NIR", "SMIC-NIR"), frames_per_second=25),
        Variant("HS", SEGMENTED),
        Variant(
            "HS extended",
            "{subject}/{clip}",
            ("SMIC-HS-E", "HS_long"),
            Sheet("SMIC*HS*E*annotation*.xlsx", COLUMNS, APEX, worksheet="HS"),
        ),
        Variant(
            "VIS extended",
            "{subject}/{clip}",
            ("SMIC-VIS-E", "VIS_long"),
            Sheet("SMIC*E*annotation*.xlsx", COLUMNS, APEX, worksheet="VIS"),
            frames_per_second=25,
        ),
        Variant(
            "HS extended", "{subject}/{clip}", (), Sheet("SMIC*HS*E*annotation*.xlsx", COLUMNS, APEX, worksheet="HS")
        ),
    )

    @classmethod
    def subject_name(cls, text: str) -> str:
        """``s01`` for ``s01``, ``s1``, ``01`` and ``1``."""
        number = text.lower().removeprefix("s")
        return f"s{int(number):02d}" if is_number(number) else text

    @classmethod
    def clip_name(cls, values: Mapping[str, str]) -> str:
        """``s01_ne_01`` for ``s1_ne_01``."""
        subject, _, rest = values["clip"].partition("_")
        return f"{cls.subject_name(subject)}_{rest}" if re.fullmatch(cls.subjects, subject.lower()) else values["clip"]

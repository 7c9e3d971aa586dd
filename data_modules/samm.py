"""SAMM: 159 spontaneous micro-expressions of people of 13 ethnicities, in grey, at 200 frames per second."""

from typing import ClassVar

from data_modules.release.clip_table import is_number
from data_modules.release.detect import Variant
from data_modules.release.released import ReleasedDataModule
from data_modules.release.sheets import Sheet

SHEET = Sheet(
    "SAMM*FACS*Codes*.xlsx",
    {
        "Subject": "subject",
        "Filename": "clip",
        "Onset Frame": "onset",
        "Apex Frame": "apex",
        "Offset Frame": "offset",
        "Estimated Emotion": "emotion",
    },
    optional={"Action Units": "action_units", "Objective Classes": "objective_class"},
    worksheet="MICRO_ONLY",
)


class SAMM(ReleasedDataModule):
    """SAMM, spontaneous micro-facial movement (Davison, Lansley, Costen, Tan and Yap, IEEE TAC 2016).

        SAMM/006/006_1_2/006_05562.jpg      960x650, grey; four or five digits
        SAMM_Micro_FACS_Codes_v2.xlsx       text above the header, or not

    Releases differ by a frame or two from the sheet at the end of 013_1_9, 028_4_1, 032_3_1 and 032_3_2: the nearest
    frame is taken and listed.
    """

    name: ClassVar[str] = "samm"
    title: ClassVar[str] = "SAMM"
    licence: ClassVar[str] = (
        "It is free for research; ask Manchester Metropolitan University, at helward.mmu.ac.uk/STAFF/M.Yap/dataset.php."
    )
    default_protocol: ClassVar[str] = "samm-5"
    frames_per_second: ClassVar[int] = 200
    emotions: ClassVar[tuple[str, ...]] = (
        *("anger", "happiness", "contempt", "surprise", "other"),
        *("disgust", "fear", "sadness"),
    )
    subjects: ClassVar[str] = r"\d{3}"
    variants: ClassVar[tuple[Variant, ...]] = (Variant("raw", "{subject}/{clip}", (), SHEET),)

    @classmethod
    def subject_name(cls, text: str) -> str:
        """``006`` for ``006`` and for the 6 that Excel makes of it."""
        return f"{int(text):03d}" if is_number(text) else text

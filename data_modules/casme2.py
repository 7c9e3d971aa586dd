"""CASME II: 26 subjects, 255 spontaneous micro-expressions, filmed in a laboratory at 200 frames per second."""

from typing import ClassVar

from data_modules.release.clip_table import Erratum, is_number
from data_modules.release.detect import Variant
from data_modules.release.released import ReleasedDataModule
from data_modules.release.sheets import Sheet

SHEET = Sheet(
    "CASME2*coding*.xlsx",  # -20140508, and -20190701 with one clip more
    {
        "Subject": "subject",
        "Filename": "clip",
        "OnsetFrame": "onset",
        "ApexFrame": "apex",
        "OffsetFrame": "offset",
        "Estimated Emotion": "emotion",
    },
    optional={"Action Units": "action_units"},
)


class CASME2(ReleasedDataModule):
    """CASME II (Yan, Li, Wang, Zhao, Liu, Chen and Fu, PLoS ONE 2014).

        CASME2_RAW_selected/sub01/EP02_01f/img46.jpg    onset to offset, 640x480
        CASME2-RAW/sub01/EP02_01f/img1.jpg              longer
        Cropped/sub01/EP02_01f/reg_img46.jpg            registered faces, about 280x340; also Cropped-updated/Cropped
        CASME2-coding-20140508.xlsx
        CASME2-ObjectiveClasses.xlsx                    if there

    Subject folders may also be ``01`` or ``1``. Frame numbers are those of the sheet.
    """

    name: ClassVar[str] = "casme2"
    title: ClassVar[str] = "CASME II"
    licence: ClassVar[str] = (
        "It is free for research; ask the Institute of Psychology, Chinese Academy of Sciences, at casme.psych.ac.cn."
    )
    default_protocol: ClassVar[str] = "casme2-5"
    frames_per_second: ClassVar[int] = 200
    emotions: ClassVar[tuple[str, ...]] = (
        *("happiness", "surprise", "disgust", "repression", "others"),
        *("sadness", "fear"),  # in no protocol: 7 clips and 2
    )
    subjects: ClassVar[str] = r"(?:sub)?\d{1,2}"
    variants: ClassVar[tuple[Variant, ...]] = (
        Variant("raw", "{subject}/{clip}", ("CASME2_RAW_selected",), SHEET),
        Variant("raw, long", "{subject}/{clip}", ("CASME2-RAW", "CASME2_RAW"), SHEET),
        Variant("raw", "{subject}/{clip}", (), SHEET),
    )
    objective_classes: ClassVar[Sheet | None] = Sheet(
        "CASME2*ObjectiveClasses*.xlsx",
        {"Subject": "subject", "Filename": "clip", "Objective Class": "objective_class"},
    )
    errata: ClassVar[tuple[Erratum, ...]] = (
        Erratum("sub04", "EP12_01f", "apex", "/", None, "the apex is not annotated"),
        Erratum("sub05", "EP09_05f", "apex", "69", None, "the apex is the onset"),
    )

    @classmethod
    def subject_name(cls, text: str) -> str:
        """``sub01`` for ``sub01``, ``01`` and ``1``."""
        number = text.lower().removeprefix("sub")
        return f"sub{int(number):02d}" if is_number(number) else text

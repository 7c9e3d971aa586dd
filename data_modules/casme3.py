"""CAS(ME)^3, part A: 94 subjects, 860 spontaneous micro-expressions in colour, at 30 frames per second."""

import re
from collections.abc import Mapping
from typing import ClassVar

from data_modules.release.clip_table import Erratum
from data_modules.release.detect import Variant
from data_modules.release.released import ReleasedDataModule
from data_modules.release.sheets import Sheet

SHEET = Sheet(
    "cas(me)3_part_A_ME_label*.xlsx",
    {
        "Subject": "subject",
        "Filename": "video",
        "Onset": "onset",
        "Apex": "apex",
        "Offset": "offset",
        "emotion": "emotion",
    },
    optional={"AU": "action_units", "Objective class": "objective_class"},
    worksheet="label",  # junk sheets follow
)


class CASME3(ReleasedDataModule):
    """CAS(ME)^3, part A (Li, Dong, Lu, Wang, Yan, Huang, Huang and Wang, IEEE TPAMI 2023).

        part_A/data/part_A/spNO.1/a/color/355.jpg               whole videos a to m, 1280x720
        part_A/data/part_A/spNO.1/a/depth/355.png               one channel of 16 bits, aligned with the colour frame
        Part_A_ME_clip/frame/spNO.1_a_355/355.jpg               micro-expressions alone
        Part_A_ME_clip/depth/spNO.1_a_355/355.png
        cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx

    A clip is called by its video and the onset that the sheet gives, ``a_355``: a video may hold several. About every
    tenth clip misses frames.

    Depth becomes the input ``depth``, see ``mer.preprocessing.depth``, for a model that reads it; a clip whose onset or
    apex has no depth frame is left out then. Other models take the clips without a look at ``depth/``.
    """

    name: ClassVar[str] = "casme3"
    title: ClassVar[str] = "CAS(ME)^3 part A"
    licence: ClassVar[str] = (
        "It is free for research; ask the Institute of Psychology, Chinese Academy of Sciences, at casme.psych.ac.cn."
    )
    default_protocol: ClassVar[str] = "casme3-3"
    available_inputs: ClassVar[tuple[str, ...]] = (*ReleasedDataModule.available_inputs, "depth")
    frames_per_second: ClassVar[int] = 30
    emotions: ClassVar[tuple[str, ...]] = ("disgust", "surprise", "others", "fear", "anger", "sad", "happy")
    subjects: ClassVar[str] = r"spNO\.\d{1,3}"
    variants: ClassVar[tuple[Variant, ...]] = (
        Variant("whole videos", "{subject}/{video}/color", ("part_A",), SHEET),
        Variant("clips", "{subject}_{video}_{onset}", ("frame",), SHEET),
        Variant("whole videos", "{subject}/{video}/color", (), SHEET),
        Variant("clips", "{subject}_{video}_{onset}", (), SHEET),
    )
    errata: ClassVar[tuple[Erratum, ...]] = (  # of version 2 of the sheet
        Erratum("spNO.149", "d_112", "apex", "83", 123, "the apex is before the onset"),
        Erratum("spNO.216", "d_3647", "onset", "3647", 2647, "the onset is after apex and offset, 2668 and 2694"),
        Erratum("spNO.40", "e_1812", "offset", "0", 1845, "the offset is not annotated"),
        Erratum("spNO.40", "e_2327", "offset", "0", 2403, "the offset is not annotated"),
        Erratum("spNO.214", "c_5", "offset", "3460", 34, "the offset has two digits too many"),
        Erratum("spNO.216", "e_0", "onset", "0", 1, "onset and apex are both 0"),
        Erratum("spNO.216", "e_0", "apex", "0", 12, "onset and apex are both 0"),
    )

    @classmethod
    def subject_name(cls, text: str) -> str:
        """``spNO.1`` for ``spNo.1`` too."""
        match = re.fullmatch(r"spno\.(\d+)", text.lower())
        return f"spNO.{match[1]}" if match else text

    @classmethod
    def clip_name(cls, values: Mapping[str, str]) -> str:
        """``a_355`` of video ``a`` and onset 355, whether the sheet writes ``a`` or ``A``."""
        return f"{values['video'].lower()}_{values.get('onset', '')}"

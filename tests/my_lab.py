"""A database from outside the checkout: all that it needs is one class."""

from data_modules.protocols import Protocol
from data_modules.release.detect import Variant
from data_modules.release.released import ReleasedDataModule
from data_modules.release.sheets import Sheet


class MyLab(ReleasedDataModule):
    """MyLab/1/smile/3.jpg and labels.xlsx."""

    name = "my_lab"
    title = "My laboratory's database"
    licence = "Ask me."
    default_protocol = "my_lab-2"
    own_protocols = {"my_lab-2": Protocol(("joy", "other"), {"my_lab": {"joy": "joy", "fear": "other"}})}
    frames_per_second = 90
    emotions = ("joy", "fear")
    subjects = r"\d+"
    variants = (
        Variant(
            "raw",
            "{subject}/{clip}",
            (),
            Sheet(
                "labels.xlsx",
                {"Who": "subject", "What": "clip", "From": "onset", "Peak": "apex", "To": "offset", "Felt": "emotion"},
            ),
        ),
    )

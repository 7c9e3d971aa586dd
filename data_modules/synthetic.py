"""Moving faces with a known flow: what every command falls back to where there is no licensed data."""

from typing import ClassVar

import pandas as pd

from data_modules.casme2 import CASME2
from data_modules.progress import counting
from data_modules.synthesize import synthesize


class Synthetic(CASME2):
    """A folder that ``mer synthesize`` has written, in CASME II's layout.

    One is made in ``data/synthetic`` if none is named. The faces are one portrait in many disguises, moved by facial
    action units, see ``synthesize.py``.
    """

    name: ClassVar[str] = "synthetic"
    database: ClassVar[str] = "casme2"

    def read_clips(self) -> pd.DataFrame:
        if not self.root_is_given and not self.root.exists():
            with counting(f"synthetic faces in {self.root}") as count:
                synthesize(self.root, workers=self.workers, progress=count)
        return super().read_clips()

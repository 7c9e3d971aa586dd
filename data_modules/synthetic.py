"""Synthetic faces with a known flow: the default dataset, as no licence is needed."""

from functools import cached_property
from typing import ClassVar

from data_modules.casme2 import CASME2
from data_modules.processes.progress import clip_progress
from data_modules.processes.whole_files import remove_abandoned
from data_modules.release.detect import Release
from data_modules.synthesis.synthesize import synthesize
from mer import InputError


class Synthetic(CASME2):
    """A folder that ``mer synthesize`` has written, in CASME II's layout.

    One is made in ``data/synthetic`` if none is named. Faces are one portrait in many disguises that moves by facial
    action units, see ``synthesize.py``.
    """

    name: ClassVar[str] = "synthetic"
    title: ClassVar[str] = "A synthetic dataset"
    licence: ClassVar[str] = "`mer synthesize` writes one."
    database: ClassVar[str] = "casme2"

    @cached_property
    def release(self) -> Release:
        """The folder's release; the folder is made where none is named and there is none."""
        if not self.root_is_given:
            remove_abandoned(self.root.parent, of=self.root.name)
        if not self.root_is_given and not self.root.exists():
            with clip_progress(f"synthetic faces in {self.root}") as count:
                try:
                    synthesize(self.root, workers=self.workers, progress=count)
                except InputError:
                    if not self.root.exists():
                        raise  # else another process has made it meanwhile, the same to the byte
        return super().release

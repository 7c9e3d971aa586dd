"""Marks say which runs the server has confirmed: a small file for each in ``results/wandb/logged``.

A mark is locked while its run is logged, so no two processes log one run at once. Marks may be deleted at any time: the
ids of runs follow from the results, and a run that is there already is continued, not doubled.
"""

import fcntl
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from experiments.tracking.runs import Run
from experiments.tracking.trials import is_trial

BUSY = "another process is logging it"


class Mark:
    """The mark of a run.

    Args:
        results: The results folder.
        run: The run.
        where: The server and project, or that it is offline.

    Attributes:
        id: Id of the run that was logged there; empty if there is none.
        parts: What was logged.
        logged: The run of wandb while it is logged.
    """

    def __init__(self, results: Path, run: Run, where: str):
        names = "-".join((*run.cell.names.values(), f"seed{run.seed}", run.kind, run.label))
        self.file, self.where = results / "wandb" / "logged" / f"{names}.json", where
        self.logged: Any = None
        self.read()

    def read(self) -> None:
        """Read it again; a damaged one says nothing."""
        content = {}
        with suppress(OSError, ValueError):
            content = json.loads(self.file.read_text())
        if content.get("where") != self.where:
            content = {}
        self.id, self.parts = content.get("id", ""), content.get("parts", [])

    def covers(self, run: Run) -> bool:
        """Whether all of a run was logged; there may be more, as pictures that nobody asks for this time."""
        return bool(self.id) and not is_trial() and self.parts[: len(run.parts)] == run.parts

    def claim(self) -> None:
        """Lock it until ``close``, and read it again.

        Raises:
            ConnectionError: If another process has done so.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.open = self.file.open("a")
        try:
            fcntl.flock(self.open, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ConnectionError(BUSY) from None
        except OSError:  # a file system without locks
            pass
        self.read()

    def write(self, name: str, parts: list[str]) -> None:
        """Note which run is confirmed, and what it is made of."""
        self.open.truncate(0)
        self.open.write(json.dumps({"where": self.where, "id": name, "parts": parts}))

    def close(self) -> None:
        """Unlock it."""
        self.open.close()

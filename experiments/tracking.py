"""Weights & Biases: one run per fold, grouped by cell; offline when there is no key."""

import hashlib
import os
import warnings
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from experiments.results import Cell


class Tracker:
    """Logs runs from a thread of its own; whatever fails there costs one warning, never the sweep.

    Args:
        folder: Where wandb keeps its files.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.thread = ThreadPoolExecutor(1)
        self.pending: list[Future] = []
        self.works = True

    def log(self, cell: Cell, kind: str, seed: int, name: str, config: dict, rows: list[dict], summary: dict) -> None:
        """Log one run: a curve and its summary.

        Args:
            cell: Its group.
            kind: Job type, ``fold`` or ``sweep``.
            seed: The seed.
            name: The fold, or ``pooled``.
            config: What identifies the run.
            rows: The curve; each row has a ``step``.
            summary: Final figures.
        """
        self.pending.append(self.thread.submit(self._log, cell, kind, seed, name, config, rows, summary))

    def close(self) -> None:
        """Wait until all is logged."""
        self.thread.shutdown()

    def _log(self, cell: Cell, kind: str, seed: int, name: str, config: dict, rows: list[dict], summary: dict) -> None:
        if not self.works:
            return
        try:
            import wandb

            group = "-".join((cell.dataset, cell.protocol, cell.split, cell.model, cell.digest))
            run = wandb.init(
                project="mer",
                group=group,
                job_type=kind,
                name=f"{cell.model} seed{seed} {name}",
                id=hashlib.sha256(f"{group} {seed} {name}".encode()).hexdigest()[:16],
                tags=[cell.dataset, cell.protocol, cell.model],
                config=config,
                dir=str(self.folder),
                mode=_mode(),
                settings=wandb.Settings(
                    console="off", silent=True, x_disable_stats=kind == "fold", disable_git=True, x_disable_meta=True
                ),
            )
            for row in rows:
                run.log({key: value for key, value in row.items() if key != "step"}, step=row["step"])
            run.summary.update(summary)
            run.finish()
        except Exception as error:
            self.works = False
            warnings.warn(f"Weights & Biases stopped logging ({error}); the results are complete", stacklevel=2)


def _mode() -> str:
    """Online with a key, offline without; WANDB_MODE has the last word."""
    import wandb

    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    return "online" if wandb.api.api_key else "offline"

"""Uploads what was logged offline."""

import os
import subprocess
import sys
from pathlib import Path

from mer import InputError


def sync(results: Path) -> int:
    """Upload what was logged offline, of every run the latest version, once.

    Returns:
        Exit status of ``wandb sync``.

    Raises:
        InputError: If there is no key.
    """
    folders = unsent(results)
    if not folders:
        print(f"nothing to upload: every run in {results / 'wandb'} is, or there is none")
        return 0
    import wandb

    if not wandb.api.api_key:
        raise InputError(
            f"{len(folders)} runs wait in {results / 'wandb'}, but there is no key for Weights & Biases: get one from "
            "https://wandb.ai/authorize and give it to `wandb login`, or set WANDB_API_KEY"
        )
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    command = [sys.executable, "-m", "wandb", "sync", *map(str, folders)]
    return min(subprocess.run(command, env=environment, check=False).returncode, 1)


def unsent(results: Path) -> list[Path]:
    """Folders of the offline runs that are not uploaded, oldest first; of a run that was logged again the last."""
    files = sorted((results / "wandb").glob("offline-run-*-*/run-*.wandb"))  # a run that was killed early has none
    latest = {file.name: file for file in files}
    return [file.parent for file in latest.values() if not file.with_name(f"{file.name}.synced").exists()]

"""Predictions and models as artifacts of W&B, whose lineage is the clips that they were made of."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from experiments.predictions import CLIP

if TYPE_CHECKING:
    import wandb


def log_files(
    run: "wandb.Run", name: str, kind: str, files: Mapping[str, str | Path], clips: pd.DataFrame, fingerprint: str
) -> "wandb.Artifact":
    """Log files as an artifact, and wait until the server has it.

    The run uses another one, which all runs on the same data share: who shows what, and the data's fingerprint; no
    face, no path, no annotation.

    Args:
        run: Where to log.
        name: Of the artifact.
        kind: Its type.
        files: Texts, or where they lie, by name.
        clips: The clip table.
        fingerprint: Of the data, see ``FlowDataModule.fingerprint``.
    """
    if not run.offline:  # W&B knows no inputs there
        data = {"clips.csv": clips[CLIP].to_csv(index=False), "fingerprint.txt": fingerprint}
        run.use_artifact(_artifact("-".join(sorted(set(clips["dataset"]))), "dataset", data))
    logged = run.log_artifact(_artifact(name, kind, files))
    return logged if run.offline else logged.wait()


def _artifact(name: str, kind: str, files: Mapping[str, str | Path]) -> "wandb.Artifact":
    import wandb

    artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", name)[:128], kind)
    for file, content in files.items():
        path = content
        if isinstance(content, str):
            path = Path(tempfile.mkdtemp(), file)
            path.write_text(content)
        artifact.add_file(str(path), name=file)  # a copy, which stays until it is uploaded; `new_file` keeps none
    return artifact

"""A small sweep, and what an offline run of it on W&B says, read back."""

import json
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.internal.datastore import DataStore

from experiments.cli import main


def sweep(root: Path, results: Path, *more: str) -> int:
    """Train STSTNet on three folds of flow maps for 12 steps."""
    start = ["sweep", "--dataset", "flow_maps", "--root", str(root), "--model", "ststnet", "--results", str(results)]
    return main([*start, "--trainer.max_steps=12", "--data.batch_size=8", *more])


def read_run(folder: Path) -> dict:
    """All that the file of an offline run says.

    The reader is no public part of wandb, which has none for these files but the upload.
    """
    run = {"config": {}, "summary": {}, "history": [], "artifacts": [], "metrics": {}, "stats": 0, "folder": folder}
    (file,) = folder.glob("*.wandb")
    reader = DataStore()
    reader.open_for_scan(str(file))
    while data := reader.scan_data():
        record = Record()
        record.ParseFromString(data)
        match record.WhichOneof("record_type"):
            case "run":
                run["run"] = record.run
                run["config"] |= _values(record.run.config.update)
            case "config":
                run["config"] |= _values(record.config.update)
            case "summary":
                run["summary"] |= _values(record.summary.update)
            case "history":
                run["history"].append(_values(record.history.item))
            case "artifact":
                run["artifacts"].append(record.artifact)
            case "metric":
                run["metrics"][record.metric.name or record.metric.glob_name] = record.metric
            case "stats":
                run["stats"] += 1
    return run


def read_runs(results: Path) -> list[dict]:
    """As ``read_run``, of all offline runs, oldest first."""
    return [read_run(folder) for folder in sorted((results / "wandb").glob("offline-run-*"))]


def _values(items) -> dict:
    """The JSON values of a record's items, by key."""
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}

"""A small sweep, as a program too, and what an offline run of it on W&B says, read back."""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

from experiments.cli import main
from experiments.tracking import session, uploads


def sweep(root: Path, results: Path, *more: str) -> int:
    """Train STSTNet on three folds of flow maps for 12 steps."""
    start = ["sweep", "--dataset", "flow_maps", "--root", str(root), "--model", "ststnet", "--results", str(results)]
    return main([*start, "--trainer.max_steps=12", "--data.batch_size=8", *more])


def serve_at_once(*arguments) -> None:
    """What the process does that uploads, which looks all the time for what has ended."""
    session.INTERVAL = 0.1
    session.serve(*arguments)


def read_run(folder: Path) -> dict:
    """All that the file of an offline run says.

    wandb has no reader for these files but the upload.
    """
    run = {"config": {}, "summary": {}, "history": [], "artifacts": [], "metrics": {}, "stats": 0, "folder": folder}
    (file,) = folder.glob("*.wandb")
    for data in _records(file.read_bytes()):
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


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log, which lie in blocks and may be cut at their ends; 7 bytes of wandb's come first."""
    place, block, record = 7, 32768, b""
    while place + 7 <= len(content):
        if block - place % block < 7:
            place += block - place % block
        length, kind = struct.unpack_from("<HB", content, place + 4)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def _values(items) -> dict:
    """The JSON values of a record's items, by key."""
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


if __name__ == "__main__":
    uploads.serve = serve_at_once
    sys.exit(sweep(*map(Path, sys.argv[1:3]), *sys.argv[3:]))

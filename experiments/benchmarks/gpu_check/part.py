"""Runs one part in its own process: ``python -m experiments.benchmarks.gpu_check.part folds rows.jsonl``."""

import argparse
import importlib
import json
from dataclasses import asdict
from pathlib import Path

from experiments.benchmarks.gpu_check.check import Row, do


def main() -> None:
    """Do the checks of a part; the file gets a row for each as planned, then a row with its outcome."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("part", help="a module of this folder")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    if options.part != "tests":
        from experiments import workers

        workers.bind_to_device("cpu" if options.cpu else "0")  # like a worker of a sweep
    checks = importlib.import_module(f"experiments.benchmarks.gpu_check.{options.part}").checks(options.cpu)

    def write(row: Row) -> None:
        with options.rows.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    for check in checks:
        write(Row(options.part, check.what))
    for check in checks:
        print(f"=== {check.what}", flush=True)
        row = do(options.part, check)
        print(f"=== {row.outcome}: {row.figure}", flush=True)
        write(row)


if __name__ == "__main__":
    main()

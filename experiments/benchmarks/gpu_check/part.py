"""The process of a part: ``python -m experiments.benchmarks.gpu_check.part folds rows.jsonl``."""

import argparse
import importlib
import json
from dataclasses import asdict
from pathlib import Path

from experiments.benchmarks.gpu_check.check import Row, do


def main() -> None:
    """Do the checks of a part in this process; rows go to a file, first as planned and then as they end."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("part", help="a module of this folder")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    if options.part != "tests":
        from experiments import workers

        workers.bind_to_device("cpu" if options.cpu else "0")  # as a worker of a sweep
    checks = importlib.import_module(f"experiments.benchmarks.gpu_check.{options.part}").checks(options.cpu)

    def tell(row: Row) -> None:
        with options.rows.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")

    for check in checks:
        tell(Row(options.part, check.what))
    for check in checks:
        print(f"=== {check.what}", flush=True)
        row = do(options.part, check)
        print(f"=== {row.outcome}: {row.figure}", flush=True)
        tell(row)


if __name__ == "__main__":
    main()

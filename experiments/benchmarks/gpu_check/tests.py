"""The test files whose code takes another path on a GPU."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_modules.processes.pool import cores
from experiments.benchmarks.gpu_check.check import Check, Skip, Wrong, need

ROOT = Path(__file__).parents[3]
FILES = (
    "tests/experiments/test_stacks.py",
    "tests/mer/models/test_models.py",
    "tests/mer/flow/test_tvl1.py",
    "tests/data_modules/cache/test_extract_on_gpu.py",
    "tests/mer/training/test_stacked_network.py",
    "tests/mer/training/test_stacked_task.py",
)


def checks(cpu: bool) -> list[Check]:
    """A check for each file; the files run side by side on half of the cores, and a check waits for its file."""
    pool = ThreadPoolExecutor(max(1, cores() // 2))
    started = {file: pool.submit(passes, file) for file in (FILES[-1:] if cpu else FILES)}
    return [Check(file, run.result) for file, run in started.items()]


def passes(file: str) -> str:
    """How many tests of a file passed."""
    need("pytest", "running the tests")
    report = Path(f"{Path(file).stem}.xml").absolute()
    words = [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", f"--junitxml={report}", file]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr, sep="\n", flush=True)
    if not report.exists():
        raise Wrong(f"pytest ended with status {done.returncode} and without a report")
    return judge(report)


def judge(report: Path) -> str:
    """How many tests passed, by pytest's XML report.

    Raises:
        Wrong: If tests failed; the message names them.
        Skip: If no test passed and the failed ones only lack MediaPipe.
    """
    failed, faceless, passed = [], 0, 0
    for case in ElementTree.parse(report).iter("testcase"):
        problem = case.find("failure") if case.find("error") is None else case.find("error")
        if problem is None:
            passed += case.find("skipped") is None
        elif "No module named 'mediapipe'" in (problem.text or ""):
            faceless += 1
        else:
            failed.append(case.get("name", ""))
    lacking = f", {faceless} need mediapipe, which is not installed" if faceless else ""
    if failed:
        raise Wrong(f"{passed} passed{lacking}, {len(failed)} failed: {', '.join(failed)}")
    if not passed:
        raise Skip(f"no test could run{lacking}")
    return f"{passed} passed{lacking}"

"""A sweep on a real SLURM, that of ``start``, and what can happen to it there. Skipped everywhere else."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.cli import main

HERE = Path(__file__).parent
PATIENCE = 600  # seconds, for a busy machine


def call(*command: str, cwd: Path | None = None) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE, cwd=cwd).stdout


def is_ours() -> bool:
    """Whether SLURM is here and not somebody's cluster."""
    if not shutil.which("scontrol"):
        return False
    done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False)
    return bool(re.search(r"ClusterName\s*= mer-tests\n", done.stdout))


ALONE = "PYTEST_XDIST_WORKER" not in os.environ  # there is one cluster, and a test kills its daemon
pytestmark = pytest.mark.skipif(not (ALONE and is_ours()), reason=f"needs {HERE}/start and no tests beside it: -n 0")


def wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited too long\n{call('scontrol', 'show', 'jobs')}"
        time.sleep(0.2)


def arguments(root: Path, results: Path, *more: str) -> list[str]:
    shared = ["sweep", "--dataset", "flow_maps", "--root", str(root), "--model", "ststnet", "--seeds", "0,1"]
    return [*shared, "--results", str(results), "--trainer.max_steps=150", "--data.batch_size=8", *more]


def predictions(results: Path) -> dict[str, bytes]:
    return {str(path.relative_to(results)): path.read_bytes() for path in results.glob("*/*/loso/*/seed*/*.csv")}


def states(jobs: list[str]) -> dict[str, str]:
    """The jobs that SLURM has not ended."""
    lines = (line.split() for line in call("squeue", "--noheader", "--format=%i %T").splitlines())
    return {number: state for number, state in lines if number in jobs}


def running(program: str) -> list[int]:
    done = subprocess.run(["pidof", program], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


@pytest.fixture(scope="module")
def reference(flow_maps, tmp_path_factory) -> dict[str, bytes]:
    """What a sweep on this machine predicts."""
    results = tmp_path_factory.mktemp("reference")
    assert main(arguments(flow_maps, results)) == 0
    return predictions(results)


def test_a_sweep_survives_what_happens_to_its_jobs(reference, flow_maps, tmp_path, capsys):
    def submit() -> list[str]:
        capsys.readouterr()
        assert main(arguments(flow_maps, tmp_path, "--launcher", "slurm", "--time", "30")) == 0
        return re.findall(r"^job (\d+):", capsys.readouterr().out, flags=re.M)

    def done(seed: int) -> list[Path]:
        return sorted(tmp_path.glob(f"*/*/loso/*/seed{seed}/*.csv"))

    def counts() -> dict[int, dict[str, int]]:
        capsys.readouterr()
        assert main(["status", "--json", "--results", str(tmp_path)]) == 0
        (cell,) = json.loads(capsys.readouterr().out)
        return {job["seed"]: job for job in cell["jobs"]}

    cancelled, stopped = jobs = submit()
    assert submit() == []  # they are queued or running
    # What SLURM sends before the time limit, and what a user does, as soon as the job has done a fold.
    left = {1: ("scancel", "--signal=USR2", stopped), 0: ("scancel", cancelled)}
    wait(lambda: [call(*left.pop(seed)) for seed in list(left) if done(seed)] and not left)
    wait(lambda: states(jobs).get(stopped) == "PENDING")
    first = {path: path.stat().st_mtime_ns for seed in (0, 1) for path in done(seed)}
    assert counts()[1]["queued"] == 3 - len(done(1)) > 0
    call("scontrol", "update", f"JobId={stopped}", "StartTime=now")
    wait(lambda: not states(jobs))
    lost = 3 - len(done(0))
    assert lost and counts() == {0: {"seed": 0, "running": 0, "queued": 0, "unknown": 0, "failed": lost}}
    assert len(done(1)) == 3

    (again,) = submit()
    wait(lambda: not states([again]))
    assert predictions(tmp_path) == reference
    assert {path: path.stat().st_mtime_ns for path in first} == first  # none was trained again
    logs = {f"{number}_0_log.out" for number in (*jobs, again)}
    assert {path.name for path in (tmp_path / "slurm").iterdir()} == logs
    assert submit() == [] and (tmp_path / "report/index.html").exists()


def test_a_printed_job_is_submitted_by_hand_and_survives_the_node_s_daemon(reference, flow_maps, tmp_path):
    options = ["--seeds", "1", "--launcher", "slurm", "--time", "30", "--print-only"]
    command = [sys.executable, "-m", "experiments.cli", *arguments(flow_maps, tmp_path / "results", *options)]
    shell = call(*command, cwd=tmp_path)
    told = subprocess.run(["sh"], input=shell, capture_output=True, text=True, check=True).stdout
    jobs = re.findall(r"Submitted batch job (\d+)", told)
    wait(lambda: states(jobs) == {jobs[0]: "RUNNING"})
    if os.geteuid() == 0:
        daemon = int(Path("/run/slurmd.pid").read_text())
        os.kill(daemon, signal.SIGKILL)
        wait(lambda: daemon not in running("slurmd"))
        call(str(HERE / "start"))
    wait(lambda: not states(jobs))
    assert predictions(tmp_path / "results") == {name: text for name, text in reference.items() if "/seed1/" in name}

"""Jobs without SLURM: small scripts stand for its commands. Tests with the real ones are in ``tests/slurm``."""

import json
import os
import pickle
import shlex
from pathlib import Path

import pytest

from experiments import workers
from experiments.arguments import parse
from experiments.cli import main
from experiments.results import Cell, Fold
from experiments.slurm import records, request
from experiments.slurm.records import Submitted
from experiments.slurm.submission import RUNS, FoldsJob
from tests import sweeps

SBATCH = """#!/bin/sh
[ "$(grep -c partition=none "$1")" = 0 ] || { echo 'sbatch: error: invalid partition specified: none' >&2; exit 1; }
number=$(($(ls "$MER_TEST_JOBS" | wc -l) + 1))
cp "$1" "$MER_TEST_JOBS/$number"
echo "Submitted batch job $number"
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A folder with ``jobs``, the script of every submitted job, and ``queue``, the output of ``squeue``."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "jobs").mkdir()
    (tmp_path / "queue").touch()
    scripts = {"sbatch": SBATCH, "srun": "#!/bin/sh\n", "squeue": f"#!/bin/sh\ncat {tmp_path}/queue\n"}
    for name, text in scripts.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MER_TEST_JOBS", str(tmp_path / "jobs"))
    return tmp_path


def sweep(root: Path, results: Path, *more: str) -> int:
    return main(
        ["sweep", "--dataset", "flow_maps", "--root", str(root), "--model", "ststnet", "--results", str(results)]
        + ["--trainer.max_steps=2", "--data.batch_size=8", "--launcher", "slurm", *more]
    )


def status(results: Path, capsys) -> dict:
    capsys.readouterr()
    assert main(["status", "--json", "--results", str(results)]) == 0
    (cell,) = json.loads(capsys.readouterr().out)
    return cell


def test_jobs_are_submitted_once_and_followed(slurm, flow_maps, capsys):
    results = slurm / "results"
    arguments = ["--seeds", "0,1", "--folds-per-job", "2", "--partition", "short", "--time", "1:30:00", "--cpus", "3"]
    assert sweep(flow_maps, results, *arguments, "--gpus", "0", "--memory", "8G", "--account", "me") == 0
    assert "6 folds submitted in 4 jobs" in capsys.readouterr().out
    scripts = [path.read_text() for path in sorted((slurm / "jobs").iterdir())]
    for option in ("partition=short", "time=1:30:00", "cpus-per-task=3", "mem=8G", "account=me", "requeue"):
        assert all(f"#SBATCH --{option}\n" in script for script in scripts), option
    assert not any("gres" in script for script in scripts)
    assert sorted(path.name for path in (results / "slurm").iterdir()) == sorted(
        f"{number}{end}" for number in range(1, 5) for end in (".json", "_submission.sh", "_submitted.pkl")
    )

    (slurm / "queue").write_text("1 RUNNING None\n2 PENDING Priority\n3 PENDING Resources\n99 RUNNING None\n")
    nothing = {"running": 0, "queued": 0, "unknown": 0, "failed": 0}
    first, second = status(results, capsys)["jobs"]
    assert first == {**nothing, "seed": 0, "running": 2, "queued": 1}
    assert second == {**nothing, "seed": 1, "queued": 2, "failed": 1}
    assert main(["status", "--results", str(results)]) == 0
    shown = capsys.readouterr().out
    assert "0 / 3" in shown and "Priority (1 jobs), Resources (1 jobs)" in shown

    assert sweep(flow_maps, results, *arguments) == 0  # only what job 4 has lost
    assert "1 folds submitted in 1 jobs" in capsys.readouterr().out
    assert not list((results / "slurm").glob("4*")) and (results / "slurm/5.json").exists()


def test_a_pickle_is_a_command_that_trains_its_folds(slurm, flow_maps, capsys):
    results = slurm / "results"
    assert sweep(flow_maps, results, "--folds-per-job", "2") == 0
    job = pickle.loads((results / "slurm/2_submitted.pkl").read_bytes()).function
    assert isinstance(job, FoldsJob) and len((results / "slurm/2_submitted.pkl").read_bytes()) < 2000
    job()
    assert [path.name for path in results.glob("*/*/*/*/seed0/*.csv")] == ["smic-s3.csv"]
    assert not (results / "report").exists()
    cell = status(results, capsys)
    assert (cell["seeds"][0]["folds_done"], cell["jobs"][0]["failed"]) == (1, 2)


def test_a_job_on_a_gpu_has_the_precision_of_a_gpu(slurm, flow_maps):
    assert sweep(flow_maps, slurm / "results", "--gpus", "a100:2") == 0
    job = pickle.loads((slurm / "results/slurm/1_submitted.pkl").read_bytes()).function
    assert {"0,1", "--trainer.precision=bf16-mixed"} <= set(job.arguments)
    assert "#SBATCH --gres=gpu:a100:2\n" in (slurm / "jobs/1").read_text()


def test_printed_jobs_equal_submitted_jobs(slurm, flow_maps, capsys):
    assert sweep(flow_maps, slurm / "results", "--print-only", "--time", "30", "--seeds", "0,1") == 0
    printed = capsys.readouterr().out
    assert not list((slurm / "jobs").iterdir()) and not (slurm / "results/slurm").exists()
    assert printed.count("#SBATCH --time=30\n") == printed.count("sbatch <<'END'\n") == 2
    assert sweep(flow_maps, slurm / "results", "--time", "30") == 0
    job = pickle.loads((slurm / "results/slurm/1_submitted.pkl").read_bytes()).function
    assert shlex.join(job.arguments) in printed
    options = parse(list(job.arguments))[1]
    assert options.folds == ("smic-s1", "smic-s2", "smic-s3")


def test_a_job_goes_on_until_no_fold_ends(tmp_path):
    files = [tmp_path / name for name in "abc"]
    job = FoldsJob(main, ("sweep",), tuple(map(str, files)), missing=3)
    files[0].touch()
    job = job.checkpoint().function
    assert job.idle == 0
    for run in range(1, RUNS):
        job.missing = 2
        job = job.checkpoint().function
        assert job.idle == run
    job.missing = 2
    assert job.checkpoint() is None


def test_errors_of_slurm_are_shown(slurm, flow_maps, capsys):
    assert sweep(flow_maps, slurm / "results", "--partition", "none") == 2
    assert "invalid partition specified: none" in capsys.readouterr().err
    (slurm / "bin/squeue").write_text("#!/bin/sh\necho 'no controller' >&2\nexit 1\n")
    assert sweep(flow_maps, slurm / "results") == 2
    assert "SLURM does not answer: no controller" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--launcher", "slurm"], ["no SLURM here", "--print-only"]),
        (["--launcher", "pbs"], ["pbs", "slurm"]),
        (["--partition", "short"], ["--partition", "--launcher slurm"]),
        (["--print-only"], ["--print-only", "--launcher slurm"]),
        (["--launcher", "slurm", "--devices", "0", "--print-only"], ["--devices", "--gpus"]),
        (["--launcher", "slurm", "--time", "soon"], ["'soon'"]),
        (["--launcher", "slurm", "--gpus", "many"], ["'many'"]),
        (["--launcher", "slurm", "--folds-per-job", "0"], ["'0'"]),
    ],
)
def test_wrong_options_are_named(capsys, monkeypatch, arguments, words):
    monkeypatch.setenv("PATH", "")
    assert main(["sweep", *arguments]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words) and error.count("\n") == 1


def test_unknown_folds_are_named(flow_maps, tmp_path, capsys):
    arguments = ["sweep", "--dataset", "flow_maps", "--root", str(flow_maps), "--results", str(tmp_path)]
    assert main([*arguments, "--model", "ststnet", "--folds", "smic-s1,smic-s9"]) == 2
    assert "'smic-s9'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("90", 90), ("0:30", 1), ("4:00:00", 240), ("1-12", 2160), ("1-0:30", 1470), ("1-0:30:01", 1471), ("2:15", 3)],
)
def test_times_are_those_of_sbatch(time, minutes):
    assert request.minutes(time) == minutes


def test_status_works_where_there_is_no_slurm(tmp_path, capsys, monkeypatch):
    cell = Cell(tmp_path, "samm", "samm-5", "loso", "hsta", "0123456789ab")
    clips = sweeps.clip_table({"samm": 3}, 2, cell.classes, coded=())
    sweeps.write_cell(cell, clips, 1, 1.0)
    Submitted("7", cell, 0, ("samm-sub00",)).write()
    monkeypatch.setenv("PATH", "")
    assert status(tmp_path, capsys)["jobs"] == []  # all that was submitted is done
    Fold(cell, "samm-sub00", 0).file.unlink()
    assert status(tmp_path, capsys)["jobs"] == [{"seed": 0, "running": 0, "queued": 0, "unknown": 1, "failed": 0}]
    (cell.folder / "clips.csv").write_text("nonsense")
    assert main(["status", "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"{cell.folder}/clips.csv" in shown.replace("\n", "") and "unreadable" in shown
    (records.folder(tmp_path) / "8.json").write_text("[]")
    assert main(["status", "--results", str(tmp_path)]) == 2
    assert "8.json" in capsys.readouterr().err


def test_devices_count_among_those_of_slurm(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setenv("SLURM_JOB_NAME", "mer")
    workers.bind_to_device("1")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"

"""``make gpu-check`` where there is no GPU: the command itself, on the CPU."""

import signal
import sys
from pathlib import Path

import pytest
import torch

from experiments.benchmarks.gpu_check import __main__ as gpu_check
from experiments.benchmarks.gpu_check import agreement, figures, folds, halving, memory
from experiments.benchmarks.gpu_check import tests as of_tests
from experiments.benchmarks.gpu_check.check import FAILS, HOLDS, SKIPPED, Check, Row, Skip, Wrong, do, need
from experiments.benchmarks.gpu_check.commands import trains
from experiments.jobs import models


def test_it_says_what_holds(tmp_path, capsys):
    assert gpu_check.main(["--cpu", "--only", "flow", "--logs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    rows = gpu_check.rows_of("flow", tmp_path / "flow.jsonl", "not begun")
    assert {row.outcome for row in rows} == {HOLDS} and "the same bits" in shown
    assert shown.splitlines()[-1].endswith(f"Full logs: {tmp_path}")
    assert (tmp_path / "table.txt").read_text() in shown
    assert "=== a pair alone and in a batch" in (tmp_path / "flow.log").read_text()


def test_every_model_has_a_check_of_its_folds():
    checks = folds.checks(cpu=True)
    assert {check.what.split(",")[0] for check in checks} == set(models())
    ways = ("one by one, 32-true", "one by one, bf16-mixed", "stacked, 32-true", "stacked, bf16-mixed")
    own = {f"{model}, {way}" for model in ("ahmsa_net", "ststnet") for way in ways}
    rows = [do("folds", check) for check in checks if check.what in own]
    assert {row.what for row in rows if row.outcome == HOLDS} == own


def test_what_cannot_be_had_on_a_cpu_is_skipped():
    checks = [*memory.checks(cpu=True), *halving.checks(cpu=True), *figures.checks(cpu=True)[1:3]]
    assert {(row.outcome, row.figure) for row in (do("part", check) for check in checks)} == {(SKIPPED, "needs a GPU")}


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_without_a_gpu_there_is_one_clear_line(tmp_path, capsys):
    assert gpu_check.main(["--logs", str(tmp_path / "logs")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "sees no GPU" in said and "ARGS=--cpu" in said
    assert not any(tmp_path.iterdir())


def test_a_part_that_there_is_not_is_named(capsys):
    with pytest.raises(SystemExit):
        gpu_check.main(["--only", "folds,flw"])
    assert "there is no flw" in capsys.readouterr().err


def raising(error: Exception) -> Check:
    def work() -> str:
        raise error

    return Check("this", work)


@pytest.mark.parametrize(
    ("error", "outcome", "figure"),
    [
        (Skip("needs a GPU"), SKIPPED, "needs a GPU"),
        (Wrong("2 px"), FAILS, "2 px"),
        (ValueError("one\ntwo"), FAILS, "ValueError: one"),
        (ValueError(), FAILS, "ValueError: -"),
    ],
)
def test_whatever_a_check_raises_is_a_row(error, outcome, figure):
    row = do("part", raising(error))
    assert (row.part, row.what, row.outcome, row.figure) == ("part", "this", outcome, figure)


def test_what_is_not_installed_is_skipped():
    need("torch", "training")
    with pytest.raises(Skip, match="filming faces needs not_there, which is not installed"):
        need("not_there", "filming faces")


@pytest.mark.parametrize(
    ("limit", "code", "end"),
    [
        (1, "import time; time.sleep(60)", "not done after 1 s"),
        (30, "import os; os.abort()", f"its process ended with status -{int(signal.SIGABRT)}"),
    ],
)
def test_a_process_that_dies_or_hangs_fails_what_it_has_not_done(tmp_path, monkeypatch, limit, code, end):
    told = '{"part": "p", "what": "first", "outcome": "holds"}\n{"part": "p", "what": "second"}'
    interpreter = tmp_path / "python"
    script = f"printf '%s\\n' '{told}' > \"$4\"\nexec {sys.executable} -c '{code}'\n"  # $4: where the rows go
    interpreter.write_text(f"#!/bin/sh\n{script}")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    part = gpu_check.Part("p", limit, "")
    rows = gpu_check.Runner(tmp_path, cpu=False).run(part)
    assert rows == [Row("p", "first", HOLDS), Row("p", "second", FAILS, end)]


def test_a_process_that_says_nothing_fails(tmp_path):
    assert gpu_check.rows_of("flow", tmp_path / "none", "gone") == [Row("flow", "begins", FAILS, "gone")]


def write_report(path: Path, *cases: str) -> Path:
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


PASSED, IGNORED = '<testcase name="test_a"/>', '<testcase name="test_b"><skipped/></testcase>'
FAILED = '<testcase name="test_c[1]"><failure message="m">assert 1 == 2</failure></testcase>'
BROKEN = '<testcase name="test_d"><error>RuntimeError</error></testcase>'
FACELESS = "<testcase name=\"test_e\"><error>ModuleNotFoundError: No module named 'mediapipe'</error></testcase>"


def test_failed_tests_are_named(tmp_path):
    report = write_report(tmp_path / "report.xml", PASSED, IGNORED, FAILED, BROKEN, FACELESS)
    with pytest.raises(Wrong, match=r"1 passed, 1 need mediapipe.*, 2 failed: test_c\[1\], test_d"):
        of_tests.judge(report)
    report = write_report(report, PASSED, FACELESS)
    assert of_tests.judge(report) == "1 passed, 1 need mediapipe, which is not installed"
    with pytest.raises(Skip):
        of_tests.judge(write_report(report, FACELESS))


def test_the_tests_that_are_run_are_there():
    assert [file for file in of_tests.FILES if not (of_tests.ROOT / file).exists()] == []


def test_a_clip_without_a_row_fails(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.benchmarks.gpu_check.commands.mer", lambda *words: None)
    with pytest.raises(Skip, match="no films"):
        trains("sweep", "")
    (tmp_path / "films").mkdir()
    with pytest.raises(Wrong, match="no results"):
        trains("sweep", "")
    for model, rows in (("ststnet", 3), ("ststnet_searched", 2)):
        cell = tmp_path / f"results/synthetic/casme2-5/loso/{model}-0123"
        (cell / "seed0").mkdir(parents=True)
        (cell / "clips.csv").write_text("clip\n1\n2\n3\n")
        (cell / "seed0/a.csv").write_text("clip\n" + "1\n" * rows)
    assert trains("sweep", "ststnet") == "clips tested: ststnet 3 of 3"
    with pytest.raises(Wrong, match="ststnet_searched 2 of 3"):
        trains("search", "_searched")


@pytest.mark.parametrize("model", models())
def test_devices_are_compared_without_random_masks(model):
    network = agreement._experiment(model, "cpu", stacked=False).instantiate().model.network
    rates = [getattr(module, name, 0) for module in network.modules() for name in ("p", "drop_prob", "drop_rate")]
    assert not any(isinstance(rate, float) and rate > 0 for rate in rates)

"""Sweeps that are killed, interrupted or run out of disk, and what they leave; the long form is ``make torture``."""

import os
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from experiments.cli import main
from tests.faults.commands import Command, contents, identities, kill, unfinished, wait_for

ROUNDS = 30


def folds(folder: Path) -> list[Path]:
    return list((folder / "results").glob("synthetic/*/*/*/seed*/*.csv"))


def clips(folder: Path) -> list[Path]:
    return list((folder / "cache").glob("synthetic/*/*.safetensors"))


def result(folder: Path) -> dict[str, bytes | None]:
    return contents(folder / "results", folder / "cache")


def test_sweeps_that_share_a_folder_and_are_killed_interrupted_and_lose_workers(faces, undisturbed, tmp_path, capsys):
    def start(name: str) -> Command:
        return Command(faces.arguments("sweep", tmp_path), tmp_path / name)

    killed, interrupted = start("killed"), start("interrupted")

    def workers() -> list[int]:
        return [*killed.workers(), *interrupted.workers()]

    assert wait_for(lambda: clips(tmp_path) and workers(), interrupted)
    kill(workers()[0])  # it prepares clips
    assert wait_for(lambda: "; last: " in interrupted.output, interrupted)  # it has trained a fold
    interrupted.interrupt()
    kill(killed.pid)  # its other processes have to notice
    killed.wait()
    assert interrupted.wait(60) == 130
    assert "of 9 folds are done" in interrupted.output and "again to go on" in interrupted.output
    assert "Traceback" not in interrupted.output and not interrupted.left() and not interrupted.stray()
    assert not killed.left()
    done = identities(tmp_path)

    first = start("first")
    assert wait_for(lambda: "; last: " in first.output, first)
    with ThreadPoolExecutor() as beside:
        second = beside.submit(main, faces.arguments("sweep", tmp_path))  # here: it need not import torch
        for pid in first.workers()[-2:]:
            kill(pid)
        assert first.wait() == second.result() == 0, first.output
    assert "Traceback" not in first.output and not first.left() and not first.stray()
    said = capsys.readouterr()
    assert "report: " in said.out and "Traceback" not in said.out + said.err
    assert result(tmp_path) == undisturbed and done.items() <= identities(tmp_path).items()
    assert not unfinished(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_filming_leaves_nothing(tmp_path, number):
    filming = Command(["synthesize", "--root", str(tmp_path / "data"), "--workers", "2"], tmp_path)
    assert wait_for(lambda: list(tmp_path.glob(".data.*.tmp/**/*.jpg")), filming)
    filming.interrupt(number)
    assert filming.wait(60) == 130
    assert not filming.left() and not unfinished(tmp_path) and not filming.stray()
    assert not (tmp_path / "data").exists()


def test_the_next_filming_removes_what_a_killed_one_has_left(tmp_path):
    arguments = ["synthesize", "--root", str(tmp_path / "data"), "--subjects", "2", "--clips", "2", "--workers", "2"]
    filming = Command(arguments, tmp_path)
    assert wait_for(lambda: list(tmp_path.glob(".data.*.tmp/**/*.jpg")), filming)
    filming.kill_all()
    assert unfinished(tmp_path) and not (tmp_path / "data").exists()
    again = Command(arguments, tmp_path)
    assert again.wait() == 0, again.output
    assert not list(tmp_path.glob(".data.*")) and not again.stray()


@pytest.fixture
def disk(tmp_path):
    """A file system of 200 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "mer-test", str(place)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Take all space but ``leave`` bytes; the file that takes it."""
    ballast = disk / "ballast"
    space = os.statvfs(disk)
    with ballast.open("wb") as file:
        file.write(b"\0" * max(0, space.f_bavail * space.f_frsize - leave))
    return ballast


def fail(capfd, arguments: list[str], place: Path) -> str:
    """Run a command that finds the disk full; its message."""
    capfd.readouterr()
    assert main(arguments) == 2
    error = capfd.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("mer: ")]
    assert str(place) in line and "the disk is full; free some space" in line
    assert "Traceback" not in error and not unfinished(place)
    return line


def test_a_disk_that_fills_up(faces, undisturbed, disk, capfd, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    prepare, sweep = faces.arguments("prepare", disk), faces.arguments("sweep", disk)
    ballast = fill(disk, 300_000)
    fail(capfd, prepare, disk)
    clips = list(disk.glob("cache/*/*/*.safetensors"))
    assert 0 < len(clips) < 9
    ballast.unlink()
    assert main(prepare) == 0

    ballast = fill(disk, 100_000)
    line = fail(capfd, sweep, disk)
    done = len(list(disk.glob("results/*/*/*/*/seed*/*.csv")))
    assert f"{done} of 9 folds are done" in line and 0 < done < 9 and " MB" in line
    fail(capfd, ["report", "--results", str(disk / "results"), "--cache", str(disk / "cache")], disk)
    ballast.unlink()
    assert main(sweep) == 0
    assert contents(disk / "results", disk / "cache") == undisturbed


def test_torture(faces, undisturbed, tmp_path, request, capsys):
    """Kill a random process of a sweep, or all, at a random moment; run the sweep again until it is done."""
    if not request.config.getoption("--long", False):
        pytest.skip("takes many minutes: make torture")
    seed = request.config.getoption("--torture-seed")
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    start = time.monotonic()
    with capsys.disabled():
        print(f"\n{ROUNDS} rounds, --torture-seed {seed}")
        for number in range(ROUNDS):
            draws = random.Random(f"{seed} {number}")
            mode = "offline" if number % 5 == 0 else "disabled"
            events = _round(faces, undisturbed, tmp_path / str(number), draws, mode)
            print(f"{number + 1:3} {time.monotonic() - start:6.0f} s, W&B {mode}: {'; '.join(events)}", flush=True)
            shutil.rmtree(tmp_path / str(number))


def _round(faces, undisturbed, folder: Path, draws: random.Random, mode: str) -> list[str]:
    events, done = [], {}
    for _ in range(draws.choice((1, 1, 2))):
        sweep = Command(faces.arguments("sweep", folder), folder, WANDB_MODE=mode)
        files = draws.randrange(-4, 19)  # there are 9 clips and 9 folds
        if files < 0:
            time.sleep(draws.uniform(0, 8))  # while it imports
        else:
            wait_for(partial(_has, folder, files), sweep)
            time.sleep(draws.uniform(0, 0.1))  # about the time of a fold
        others = sorted(pid for pid in sweep.processes() if pid != sweep.pid)
        moment = f"with {len(clips(folder))} clips and {len(folds(folder))} folds"
        if others and draws.random() < 0.5:
            victim = draws.choice(others)
            events.append(f"{_kind(sweep, victim)} killed {moment}")
            kill(victim)
            assert sweep.wait() == 0, f"{events}\n{sweep.output}"
        else:
            events.append(f"all killed {moment}")
            sweep.kill_all()
        assert not sweep.left(), f"{events}: {sweep.left()}"
        assert done.items() <= identities(folder).items(), f"{events}: a finished fold was trained again"
        done = identities(folder)
    final = Command(faces.arguments("sweep", folder), folder, WANDB_MODE=mode)
    assert final.wait() == 0 and not final.left(), f"{events}\n{final.output}"
    files = result(folder)
    differ = [name for name in {*files, *undisturbed} if files.get(name, 0) != undisturbed.get(name, 1)]
    assert not differ, f"{events}: {differ}"
    assert done.items() <= identities(folder).items(), f"{events}: a finished fold was trained again"
    stray = [*unfinished(folder), *final.stray()]
    assert not stray, f"{events}: {stray}"
    return events


def _has(folder: Path, files: int) -> bool:
    return len(clips(folder)) + len(folds(folder)) >= files


def _kind(sweep: Command, pid: int) -> str:
    words = sweep.processes().get(pid, "a process that has ended")
    kinds = {"wandb-core": "wandb's service", "resource_tracker": "resource tracker"}
    for word, kind in kinds.items():
        if word in words:
            return kind
    return "worker" if pid in sweep.workers() else "server" if "forkserver" in words else words

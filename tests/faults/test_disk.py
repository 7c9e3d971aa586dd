"""A file system of 200 MB that fills up."""

import os
import subprocess
from pathlib import Path

import pytest

from experiments.cli import main
from tests.faults.commands import contents, unfinished


@pytest.fixture
def disk(tmp_path):
    """A small file system."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "mer-test", str(place)]
    if os.getuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Take all space but so many bytes."""
    ballast = disk / "ballast"
    space = os.statvfs(disk)
    with ballast.open("wb") as file:
        file.write(b"\0" * max(0, space.f_bavail * space.f_frsize - leave))
    return ballast


def complaint(capfd, arguments: list[str], place: Path) -> str:
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
    complaint(capfd, prepare, disk)
    clips = list(disk.glob("cache/*/*/*.safetensors"))
    assert 0 < len(clips) < 9
    ballast.unlink()
    assert main(prepare) == 0

    ballast = fill(disk, 100_000)
    line = complaint(capfd, sweep, disk)
    done = len(list(disk.glob("results/*/*/*/*/seed*/*.csv")))
    assert f"{done} of 9 folds are done" in line and 0 < done < 9 and " MB" in line
    complaint(capfd, ["report", "--results", str(disk / "results"), "--cache", str(disk / "cache")], disk)
    ballast.unlink()
    assert main(sweep) == 0
    assert contents(disk / "results", disk / "cache") == undisturbed

import os
import sys

import pytest
from rich.console import Console

from experiments import doctor
from experiments.cli import main
from experiments.doctor import Finding
from mer import InputError


def test_a_machine_that_can_run_the_tests_is_healthy(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["doctor"]) == 0
    table = capsys.readouterr().out
    for name in ("Python", "torch", "GPU", "OpenCV", "face finder", "results", "cache", "W&B", "SLURM"):
        assert f"\n{name} " in table
    assert "478 landmarks" in table and "wandb login" in table and "broken" not in table
    assert not list(tmp_path.iterdir())


def finding(name, tmp_path) -> Finding:
    return {found.name: found for found in doctor.look(tmp_path / "results", tmp_path / "cache")}[name]


@pytest.fixture
def only_disks(monkeypatch):
    """The looks that take no time."""
    for look in ("_torch", "_gpu", "_opencv", "_face_finder", "_wandb"):
        monkeypatch.setattr(doctor, look, lambda: Finding("", "ok", ""))


def test_a_folder_that_takes_no_file_is_broken(tmp_path, monkeypatch, only_disks):
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(95, "Operation not supported")))
    found = finding("results", tmp_path)
    assert found.state == "broken" and "not supported" in found.text and "--results DIR" in found.remedy


def test_a_short_disk_is_a_note(tmp_path, monkeypatch, only_disks):
    monkeypatch.setattr(doctor, "ROOM", 1e9)
    assert finding("cache", tmp_path).state == "note"


def test_another_python_is_broken(tmp_path, monkeypatch, only_disks):
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    assert finding("Python", tmp_path).state == "broken"


def test_a_look_that_fails_is_a_finding_and_the_status_says_so(tmp_path, monkeypatch, only_disks, capsys):
    monkeypatch.setattr(doctor, "_torch", lambda: [][0])
    found = finding("torch", tmp_path)
    assert found.state == "broken" and "IndexError" in found.text and "make clean setup" in found.remedy
    assert doctor.show([found], Console(width=200)) == 1
    assert doctor.show([Finding("GPU", "note", "[none]")], Console(width=200)) == 0
    assert "[none]" in capsys.readouterr().out


def test_a_missing_system_library_has_its_remedy(tmp_path, monkeypatch):
    class Opencv:
        def __getattr__(self, name):
            raise InputError("OpenCV does not start: libGL.so.1 is missing (no such file). Install it with `apt-get`.")

    monkeypatch.setitem(sys.modules, "mer.preprocessing.opencv", Opencv())
    found = doctor._opencv()
    assert (found.state, found.remedy) == ("broken", "Install it with `apt-get`.") and "libGL.so.1" in found.text

"""Sweeps that are killed in their midst, together or in part; the long form is ``make torture``."""

import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.faults.commands import Command, contents, identities, kill, unfinished, wait_for

ROUNDS = 30


def folds(folder: Path) -> list[Path]:
    return list((folder / "results").glob("synthetic/*/*/*/seed*/*.csv"))


def clips(folder: Path) -> list[Path]:
    return list((folder / "cache").glob("synthetic/*/*.safetensors"))


def result(folder: Path) -> dict[str, bytes | None]:
    return contents(folder / "results", folder / "cache")


def test_a_sweep_that_is_killed_and_interrupted_and_loses_workers(faces, undisturbed, tmp_path):
    done = {}

    def start_and_wait_for_a_fold() -> Command:
        before, sweep = len(folds(tmp_path)), Command(faces.arguments("sweep", tmp_path), tmp_path)
        if not before:
            assert wait_for(lambda: clips(tmp_path), sweep)
            kill(sweep.workers()[0])  # it prepares clips
        assert wait_for(lambda: len(folds(tmp_path)) > before, sweep)
        return sweep

    sweep = start_and_wait_for_a_fold()
    kill(sweep.pid)  # not the others: they have to notice
    sweep.wait()
    assert not sweep.left()
    done |= identities(tmp_path)

    sweep = start_and_wait_for_a_fold()
    sweep.interrupt()
    assert sweep.wait(60) == 130
    assert "of 9 folds are done" in sweep.output and "again to go on" in sweep.output
    assert "Traceback" not in sweep.output and not sweep.left()
    assert not unfinished(tmp_path) and not sweep.stray()
    assert done.items() <= identities(tmp_path).items()
    done |= identities(tmp_path)

    sweep = start_and_wait_for_a_fold()
    for pid in sweep.workers()[-2:]:
        kill(pid)
    assert sweep.wait() == 0, sweep.output
    assert result(tmp_path) == undisturbed and done.items() <= identities(tmp_path).items()
    assert not sweep.left() and not unfinished(tmp_path) and not sweep.stray()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_nothing_stays_of_faces_whose_filming_ends_early(tmp_path, number):
    filming = Command(["synthesize", "--root", str(tmp_path / "data"), "--workers", "2"], tmp_path)
    assert wait_for(lambda: list(tmp_path.glob(".data.*.tmp/**/*.jpg")), filming)
    filming.interrupt(number)
    assert filming.wait(60) == 130
    assert not filming.left() and not unfinished(tmp_path) and not filming.stray()
    assert not (tmp_path / "data").exists()


def test_what_a_killed_filming_leaves_is_removed_by_the_next(tmp_path):
    arguments = ["synthesize", "--root", str(tmp_path / "data"), "--subjects", "2", "--clips", "2", "--workers", "2"]
    filming = Command(arguments, tmp_path)
    assert wait_for(lambda: list(tmp_path.glob(".data.*.tmp/**/*.jpg")), filming)
    filming.kill_all()
    assert unfinished(tmp_path) and not (tmp_path / "data").exists()
    again = Command(arguments, tmp_path)
    assert again.wait() == 0, again.output
    assert not list(tmp_path.glob(".data.*")) and not again.stray()


def test_any_number_may_fill_one_cache_and_one_results_folder(faces, undisturbed, tmp_path):
    kinds = ("sweep", "prepare", "sweep", "prepare")
    commands = [Command(faces.arguments(kind, tmp_path), tmp_path / str(n)) for n, kind in enumerate(kinds)]
    for command in commands:
        assert command.wait() == 0, command.output
        assert "Traceback" not in command.output and not command.left() and not command.stray()
    assert result(tmp_path) == undisturbed and not unfinished(tmp_path)


def test_torture(faces, undisturbed, tmp_path, request, capsys):
    """Sweeps that lose a random process, or all, at a random moment, are run again until they are done."""
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
            told = _round(faces, undisturbed, tmp_path / str(number), draws, mode)
            print(f"{number + 1:3} {time.monotonic() - start:6.0f} s, W&B {mode}: {'; '.join(told)}", flush=True)
            shutil.rmtree(tmp_path / str(number))


def _round(faces, undisturbed, folder: Path, draws: random.Random, mode: str) -> list[str]:
    told, done = [], {}
    for _ in range(draws.choice((1, 1, 2))):
        sweep = Command(faces.arguments("sweep", folder), folder, WANDB_MODE=mode)
        files = draws.randrange(-4, 19)  # there are 9 clips and 9 folds
        if files < 0:
            time.sleep(draws.uniform(0, 8))  # while all is imported
        else:
            wait_for(partial(_has, folder, files), sweep)
            time.sleep(draws.uniform(0, 0.1))  # a fold takes about as long
        others = sorted(pid for pid in sweep.processes() if pid != sweep.pid)
        moment = f"with {len(clips(folder))} clips and {len(folds(folder))} folds"
        if others and draws.random() < 0.5:
            victim = draws.choice(others)
            told.append(f"{_kind(sweep, victim)} killed {moment}")
            kill(victim)
            assert sweep.wait() == 0, f"{told}\n{sweep.output}"
        else:
            told.append(f"all killed {moment}")
            sweep.kill_all()
        assert not sweep.left(), f"{told}: {sweep.left()}"
        assert done.items() <= identities(folder).items(), f"{told}: a fold that was done was trained"
        done = identities(folder)
    final = Command(faces.arguments("sweep", folder), folder, WANDB_MODE=mode)
    assert final.wait() == 0 and not final.left(), f"{told}\n{final.output}"
    found = result(folder)
    differ = [name for name in {*found, *undisturbed} if found.get(name, 0) != undisturbed.get(name, 1)]
    assert not differ, f"{told}: {differ}"
    assert done.items() <= identities(folder).items(), f"{told}: a fold that was done was trained"
    stray = [*unfinished(folder), *final.stray()]
    assert not stray, f"{told}: {stray}"
    return told


def _has(folder: Path, files: int) -> bool:
    return len(clips(folder)) + len(folds(folder)) >= files


def _kind(sweep: Command, pid: int) -> str:
    words = sweep.processes().get(pid, "a process that has ended")
    kinds = {"wandb-core": "wandb's service", "resource_tracker": "resource tracker"}
    for word, kind in kinds.items():
        if word in words:
            return kind
    return "worker" if pid in sweep.workers() else "server" if "forkserver" in words else words

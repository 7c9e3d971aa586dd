import os
import signal
from contextlib import closing
from multiprocessing import forkserver
from pathlib import Path
from threading import Timer

import pytest

from data_modules.processes import pool
from data_modules.processes.pool import Failure
from data_modules.processes.whole_files import WriteError
from mer import InputError


@pytest.fixture(scope="module", autouse=True)
def light_server():
    """A fork server that has imported nothing large: two tests kill it. The one of the other files waits meanwhile."""
    server = forkserver._forkserver
    before = vars(server).copy()
    server.__init__()
    pool.CONTEXT.set_forkserver_preload([pool.SERVER])
    yield
    server._stop()
    vars(server).update(before)


def begin() -> None:
    pass


def run(work, jobs, count: int = 2) -> dict:
    return dict(pool.run(work, jobs, [(begin, ())] * count))


def double(number: int) -> int:
    return 2 * number


def die_once(marker: str) -> int:
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def die_if(wrong: bool) -> str:
    if wrong:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def fail(error: Exception) -> None:
    raise error


def fill_up(folder: str, number: int) -> None:
    Path(folder, str(number)).touch()
    if number == 1:
        raise WriteError("the disk is full")


def worker_settings() -> tuple[list[str | None], set[int], int]:
    return [os.environ.get(name) for name in pool.THREADS], signal.pthread_sigmask(signal.SIG_BLOCK, []), os.getpid()


def test_more_jobs_than_workers():
    assert run(double, [(n,) for n in range(7)]) == {n: 2 * n for n in range(7)}


def test_no_jobs():
    assert run(double, []) == {}


def test_a_worker_that_dies_is_replaced_and_another_does_its_job(tmp_path):
    outcomes = run(die_once, [(str(tmp_path / name),) for name in "abc"])
    assert len(set(outcomes.values())) >= 2 and all(isinstance(pid, int) for pid in outcomes.values())


def test_a_job_that_always_kills_its_worker_is_named_and_the_others_are_done():
    outcomes = run(die_if, [(False,), (True,), (False,), (False,)])
    assert "SIGKILL" in outcomes.pop(1).reason and set(outcomes.values()) == {"done"}


def server() -> int:
    """Process number of the fork server, the parent of every worker."""
    return run(os.getppid, [()])[0]


def test_a_fork_server_that_dies_is_replaced(tmp_path):
    first = server()
    jobs = [(str(tmp_path / name),) for name in "abc"]
    with closing(pool.run(die_once, jobs, [(begin, ())])) as ended:
        outcomes = [next(ended)]
        os.kill(first, signal.SIGKILL)
        outcomes += ended
    assert [index for index, _ in outcomes] == [0, 1, 2] and all(isinstance(pid, int) for _, pid in outcomes)


def test_a_fork_server_that_dies_while_it_starts_a_process_is_replaced():
    first = server()
    os.kill(first, signal.SIGSTOP)
    Timer(0.3, os.kill, (first, signal.SIGKILL)).start()
    process = pool.start(begin)
    process.join()
    assert process.exitcode == 0 and server() != first


@pytest.mark.parametrize("error, expected", [(RuntimeError("out of luck"), False), (InputError("no clip"), True)])
def test_a_job_that_always_fails_is_named(error, expected):
    (outcome,) = run(fail, [(error,)]).values()
    assert isinstance(outcome, Failure) and str(error) in outcome.reason and outcome.expected == expected
    assert ("Traceback" in outcome.reason) != expected
    assert isinstance(outcome.error(), InputError) == expected


def test_a_full_disk_ends_everything_at_once(tmp_path):
    with pytest.raises(WriteError, match="full"):
        run(fill_up, [(str(tmp_path), number) for number in range(50)], count=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]


def test_a_worker_has_one_thread_and_leaves_ctrl_c_to_its_parent(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    ((threads, blocked, pid),) = run(worker_settings, [()]).values()
    assert threads == ["1"] * 3 and {signal.SIGINT, signal.SIGHUP} <= blocked and pid != os.getpid()
    assert os.environ["OMP_NUM_THREADS"] == "7" and signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_no_worker_lives_after_the_jobs_are_abandoned():
    with closing(pool.run(worker_settings, [()] * 9, [(begin, ())] * 2)) as ended:
        _, (_, _, pid) = next(ended)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)

"""Sweeps that are killed while they upload to W&B; the long form alone, ``make torture``."""

import random
import time
from functools import partial
from pathlib import Path

import pytest

from tests.faults.commands import Command, wait_for
from tests.stand_in import KEY, StandIn

KILLS = (1, 1, 2, 2, 4)  # of each sweep, ten in all


def start(data: Path, folder: Path, server: StandIn) -> Command:
    """Begin a sweep of two seeds, whose folds are trained one after the other."""
    arguments = [str(data), str(folder / "results"), "--seeds", "0,1", "--stacked=false", "--trainer.max_steps=60"]
    return Command(arguments, folder, "tests.tracked", WANDB_BASE_URL=server.url, WANDB_API_KEY=KEY)


def has_sent(server: StandIn, requests: int) -> bool:
    return len(server.sent) >= requests


def test_a_sweep_that_was_killed_is_on_the_server_as_one_that_was_not(flow_maps, tmp_path, request, capsys):
    """Kill all processes of a sweep at a random moment, again and again, and end it."""
    if not request.config.getoption("--long", False):
        pytest.skip("takes many minutes: make torture")
    seed = request.config.getoption("--torture-seed")
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    with StandIn() as undisturbed:
        sweep = start(flow_maps, tmp_path / "undisturbed", undisturbed)
        assert sweep.wait() == 0, sweep.output
    whole, requests = undisturbed.everything(), len(undisturbed.sent)
    with capsys.disabled():
        print(f"\n{sum(KILLS)} kills of sweeps with {len(whole)} runs and {requests} requests, --torture-seed {seed}")
        for number, kills in enumerate(KILLS):
            draws, folder, events = random.Random(f"{seed} {number}"), tmp_path / str(number), []
            with StandIn() as server:
                for _ in range(kills):
                    sweep = start(flow_maps, folder, server)
                    moment = draws.randint(len(server.sent), max(len(server.sent), requests - 1))
                    running = wait_for(partial(has_sent, server, moment), sweep)
                    time.sleep(draws.uniform(0, 0.2))
                    sweep.kill_all()
                    folds = len(list(folder.glob("results/*/*/*/*/seed*/*.csv")))
                    what = "killed" if running else "ended"
                    events.append(f"{what} with {folds} folds, {len(server.runs)} runs and {len(server.sent)} requests")
                sweep = start(flow_maps, folder, server)
                assert sweep.wait() == 0 and "not uploaded" not in sweep.output, f"{events}\n{sweep.output}"
                assert server.everything() == whole, events
            print("; ".join(events), flush=True)

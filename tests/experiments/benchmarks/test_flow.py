import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from experiments.benchmarks import flow
from experiments.benchmarks.flow_pairs import film


def test_a_pair_moves_by_its_true_flow():
    pair, truth = film(3, 96, peak=1.5)
    assert pair.shape == truth.shape == (2, 96, 96) and pair.dtype == np.uint8
    assert 1.0 < np.hypot(*truth).max() < 3.0
    again, _ = film(3, 96, peak=1.5)
    np.testing.assert_array_equal(again, pair)
    assert not np.array_equal(film(4, 96, peak=1.5)[0], pair)


def test_the_bench_writes_its_table_and_figures(tmp_path, monkeypatch):
    class Threads(ThreadPoolExecutor):
        def __init__(self, cores, *_):
            super().__init__(cores)

    page = tmp_path / "flow.md"
    page.write_text("before\n<!-- written by make bench-flow -->\n\nold\n\n<!-- end -->\nafter\n")
    monkeypatch.setattr(flow, "ProcessPoolExecutor", Threads)
    arguments = ["bench", "--docs", str(tmp_path), "--pairs", "2", "--batch", "2", "--size", "64", "--turns", "1"]
    monkeypatch.setattr(sys, "argv", arguments)
    threads = torch.get_num_threads()
    try:
        flow.main()
    finally:
        torch.set_num_threads(threads)
    text = page.read_text()
    assert text.startswith("before\n<!--") and text.endswith("-->\nafter\n") and "old" not in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| TV-L1", "| Farneback", "| DIS"))]
    assert len(rows) == 8 + torch.cuda.is_available()
    errors = {row[0].strip("| "): float(row[4]) for row in rows}
    assert errors["TV-L1, mer"] == pytest.approx(errors["TV-L1, OpenCV"], abs=0.01)
    assert "<svg" in (tmp_path / "flow-bench.svg").read_text()
    assert (tmp_path / "flow-example.jpg").stat().st_size > 10_000


def test_many_pairs_print_the_memory():
    line = flow.many(pairs=6, batch=2, size=48)
    assert line.startswith("6 pairs of 48 px") and "MB after the last" in line
    assert "more pairs" in flow.many(pairs=2, batch=2, size=48)

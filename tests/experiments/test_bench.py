import torch

from experiments import bench, bench_page


def test_a_small_bench_runs():
    limits = bench.ceilings(torch.device("cpu"))
    least = bench.floor("ststnet", limits)
    found = bench.per_epoch("ststnet", "cpu", 1, True, 1, "--data.batch_size=256")
    assert 0 < least < found["seconds"] and found["memory"] is None


def test_the_page_is_written_between_its_marks(tmp_path):
    (tmp_path / "benchmarks.md").write_text("# Measured\n\nBefore.\n")
    rows = [bench_page.Row("ststnet", folds, 0.4 / (folds + 1), 0.1, None, 0.01) for folds in (0, 1, 4)]
    for note in ("- first", "- second"):
        bench_page.write(tmp_path, {"cpu": rows, "gpu": rows}, [note])
    text = (tmp_path / "benchmarks.md").read_text()
    assert text.startswith("# Measured\n\nBefore.\n\n" + bench_page.START) and text.count(bench_page.END) == 1
    assert "- first" not in text and "- second" in text and "| ststnet | 4 | 0.0800 | 5.00 |" in text
    assert "<svg" in (tmp_path / "bench.svg").read_text()

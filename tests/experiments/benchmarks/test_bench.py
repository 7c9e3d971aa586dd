import pytest
import torch

from experiments.benchmarks import fold_speed, page, plain_script
from experiments.benchmarks.memory import TensorBytes
from mer.models.ststnet import STSTNet


def test_the_floor_is_below_what_is_measured():
    least = fold_speed.floor("ststnet", "cpu", fold_speed.ceilings(torch.device("cpu")))
    assert 0 < least < fold_speed.per_epoch("ststnet", "cpu", 1, False, 1)["seconds"]


def test_the_parts_of_a_fold_are_timed():
    spent = plain_script.bare("ststnet", 256, passes=1)
    assert tuple(spent) == plain_script.PARTS[:-1] and min(spent.values()) > 0
    assert plain_script.plain(256, passes=1) > 0


def test_three_streams_are_one_convolution():
    """The published network with its weights side by side is ours: logits and gradients."""
    torch.manual_seed(0)
    plain, ours = plain_script.ThreeStreams().double(), STSTNet(3, dropout=0.0).double()
    for stream in plain.streams:
        stream[4].p = 0.0
    own = dict(ours.named_parameters())
    with torch.no_grad():
        for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
            own[f"streams.{name}"].copy_(torch.cat([stream.get_parameter(name) for stream in plain.streams]))
        own["streams.2.weight"] += torch.linspace(-1.5, 0.5, 16)  # negative ones too
        for stream, weight in zip(plain.streams, own["streams.2.weight"].split((3, 5, 8))):
            stream[2].weight.copy_(weight)
        ours.head.load_state_dict(plain.head.state_dict())
    flow = torch.randn(8, 3, 28, 28, dtype=torch.float64)
    logits, expected = ours(flow)["logits"], plain(flow)
    torch.testing.assert_close(logits, expected)
    for output in (logits, expected):
        output.square().sum().backward()
    for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
        apart = torch.cat([stream.get_parameter(name).grad for stream in plain.streams])
        torch.testing.assert_close(own[f"streams.{name}"].grad, apart)


def test_bytes_are_those_of_the_tensors_that_live():
    with TensorBytes() as count:
        first = torch.zeros(1000)
        second = first + 1
        view = second.view(10, 100)
        del first, second
        torch.zeros(500).sum()
    assert count.most == 8000 and sum(count.alive.values()) == 4000
    assert view.shape == (10, 100)


def test_a_fold_in_a_stack_takes_little_more_memory_than_alone():
    alone, two, six = (
        fold_speed.per_epoch("ststnet", "cpu", folds, folds > 1, 1, "--data.batch_size=128")["memory"]
        for folds in (1, 2, 6)
    )
    assert (six - two) / 4 < 1.3 * alone


@pytest.fixture
def rows():
    return [page.Row("ststnet", folds, 0.4 / (folds + 1), 0.1, 2**20 * (9 + folds), 0.01) for folds in (0, 4, 8)]


def test_the_page_is_written_between_its_marks(tmp_path, rows):
    (tmp_path / "benchmarks.md").write_text("# Measured\n\nBefore.\n")
    for note in ("- first", "- second"):
        page.write(tmp_path, {"cpu": rows, "gpu": rows}, [note])
    text = (tmp_path / "benchmarks.md").read_text()
    assert (
        text.startswith("# Measured\n\nBefore.\n\n<!-- written by make bench -->\n\n## Many")
        and text.count("<!-- end -->") == 1
    )
    assert "- first" not in text and "- second" in text and "| ststnet | 4 | 0.0800 | 5.00 |" in text
    assert "ststnet takes 1.0 MB (from 4 to 8), 0.11 times the 9.0 MB" in text
    assert "<svg" in (tmp_path / "bench.svg").read_text()

import sys

import pytest

from data_modules.synthesis.long_videos import Event
from experiments.benchmarks import spotting
from mer.preprocessing.spotting import Interval

EVENTS = (
    Event("micro", 10, 15, 19),
    Event("blink", 12, 14, 17),
    Event("blink", 40, 43, 46),
    Event("micro", 60, 65, 69),
)


def test_a_micro_expression_is_right_once_and_the_others_are_named():
    result = spotting.Result()
    found = [(10, 15, 19), (10, 15, 14), (40, 43, 46), (60, 62, 63), (80, 85, 89)]
    result.add(EVENTS, [Interval(*ends, 0.5) for ends in found])
    assert (result.spotted, result.right) == (5, 1) and result.events == {"micro": 2, "blink": 2}
    assert result.wrong == {"micro": 2, "blink": 1, "nothing": 1}


@pytest.mark.parametrize(("ends", "share"), [((10, 19), 1.0), ((15, 24), 1 / 3), ((10, 14), 0.5), ((20, 25), 0.0)])
def test_overlap_counts_frames(ends, share):
    assert spotting.overlap(Interval(ends[0], ends[0] + 1, ends[1], 0.5), EVENTS[0]) == pytest.approx(share)


def test_the_measurement_writes_its_table(tmp_path, monkeypatch):
    monkeypatch.setattr(spotting, "LONG", {"30 fps": [(1, 1.5, 30.0)]})
    monkeypatch.setattr(spotting, "CASME3_SEEDS", (0,))
    monkeypatch.setattr(spotting, "SUBJECTS", 1)
    monkeypatch.setattr(spotting, "CLIPS", 2)
    monkeypatch.setattr(sys, "argv", ["spotting", "--docs", str(tmp_path)])
    (tmp_path / "spotting.md").write_text(f"before\n<!-- written by {spotting.COMMAND} -->\nold\n<!-- end -->\nafter\n")
    spotting.main()
    text = (tmp_path / "spotting.md").read_text()
    assert text.startswith("before\n<!--") and text.endswith("-->\nafter\n") and "old" not in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| long", "| CAS"))]
    assert [row[0] for row in rows] == ["| long, 30 fps", "| CAS(ME)^3"] and rows[1][2] == "2"

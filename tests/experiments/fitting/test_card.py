"""The card of a model: its scores, what it is not for, and that it names nobody."""

import json
import re

import pytest
import yaml

from experiments import workers
from experiments.cli import main
from tests.experiments.fitting.command import body, names_nothing, run


def test_without_a_score_its_first_line_says_so(place):
    text = (place / "models/flow_maps-ststnet/README.md").read_text()
    _, header, _ = text.split("---\n", 2)
    assert "model-index" not in yaml.safe_load(header) and yaml.safe_load(header)["license"] == "other"
    first = body(place / "models/flow_maps-ststnet").strip().splitlines()[0]
    assert "there is no honest score of its recipe" in first
    assert "Not measured." in text and "Detecting lies" in text and "| smic | 3 | 6 | 6 | 6 | 18 |" in text


def test_after_a_sweep_it_has_the_honest_score_and_the_optimistic_one(flow_maps, own, monkeypatch, capsys):
    assert run(flow_maps, own, command="sweep") == 0
    capsys.readouterr()
    assert main(["status", "--json", "--results", str(own / "results")]) == 0
    (cell,) = json.loads(capsys.readouterr().out)
    monkeypatch.setattr(workers, "run", lambda *_: pytest.fail("trained again"))
    assert run(flow_maps, own) == 0
    folder = own / "models/flow_maps-ststnet"
    text = body(folder)
    assert "no honest score" not in text and text.strip().startswith("# flow_maps-ststnet")
    assert "loso split, 2 seeds (0, 1)" in text
    header = yaml.safe_load((folder / "README.md").read_text().split("---\n", 2)[1])
    (result,) = header["model-index"][0]["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \.\. ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == ["UF1", "UAR", "accuracy"]
    for name, honest, low, high, optimistic in rows:
        own_score = cell["summary"]["honest"][name.lower()]
        assert float(honest) == pytest.approx(own_score["mean"], abs=6e-4)
        assert float(low) <= float(honest) <= float(high) and float(optimistic) > 0
        assert values["f1" if name == "UF1" else name.lower()] == pytest.approx(own_score["mean"], abs=6e-5)
        assert float(optimistic) == pytest.approx(cell["summary"]["optimistic"][name.lower()]["mean"], abs=6e-4)


def test_it_has_no_path_and_no_name_of_a_clip_or_subject(place, flow_maps):
    names_nothing(place / "models/flow_maps-ststnet", flow_maps, r"\bs\d\b|\bc\d\b|maps/|\.png:?\w")

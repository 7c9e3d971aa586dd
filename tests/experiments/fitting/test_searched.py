"""``mer fit --searched``: the recipe that a search has found best."""

from pathlib import Path

import pytest
import yaml

from experiments.experiment import Experiment
from experiments.fitting import fit as fitting
from experiments.jobs import Job
from mer.trained import load
from tests.experiments.fitting.command import FEW, body, folders, names_nothing, run


def write_search(root: Path, own: Path, record: object, digest: str = "0123456789ab") -> None:
    """The cell that a search leaves."""
    job = Job("flow_maps", "ststnet", root=str(root), results=str(own / "results"), options=FEW)
    searched = Experiment(job)
    cell = fitting.replace(searched.cell, model="ststnet_searched", digest=digest)
    cell.write_header(searched.data.clips, yaml.safe_dump({"search": record}))


SEARCH = {
    "candidates": ["", "--model.lr=0.02 --model.ema_decay=0.5", "--model.lr=0.03"],
    "choices": {
        "group1": {"chosen": 2, "inner UF1": [0.1, 0.4, 0.6]},
        "group2": {"chosen": 1, "inner UF1": [0.2, 0.5, 0.1]},
    },
}


def test_of_a_search_it_fits_the_candidate_with_the_best_mean(flow_maps, tmp_path):
    write_search(flow_maps, tmp_path, SEARCH)
    assert run(flow_maps, tmp_path, "--searched") == 0
    assert folders(tmp_path) == ["flow_maps-ststnet_searched"]
    folder = tmp_path / "models/flow_maps-ststnet_searched"
    config = yaml.safe_load((folder / "config.yaml").read_text())
    arguments = config["model"]["init_args"]
    assert (arguments["lr"], arguments["ema_decay"]) == (0.02, 0.5)
    options = (*FEW, "--model.lr=0.02", "--model.ema_decay=0.5")
    assert config["digest"] == Experiment(Job("flow_maps", "ststnet", root=str(flow_maps), options=options)).digest
    assert "# flow_maps-ststnet_searched\n" in body(folder) and "no honest score" in body(folder)
    assert len(load(folder, "cpu").tasks) == 2
    names_nothing(folder, flow_maps, r"\bs\d\b|group1")


@pytest.mark.parametrize(
    "record",
    [
        {},
        [],
        "text",
        None,
        {"candidates": [], "choices": {}},
        {**SEARCH, "choices": {"group1": {"inner UF1": []}}},
        {**SEARCH, "choices": {"group1": {"inner UF1": [0.1, 0.2]}, "group2": {"inner UF1": [0.1]}}},
        {**SEARCH, "choices": {"group1": {"inner UF1": ["a", "b", "c"]}}},
        {**SEARCH, "choices": [1]},
        {**SEARCH, "candidates": [""]},
        {**SEARCH, "candidates": [0, 1, 2]},
    ],
    ids=range(11),
)
def test_a_damaged_record_of_a_search_is_one_message(flow_maps, tmp_path, nothing_is_trained, capsys, record):
    write_search(flow_maps, tmp_path, record)
    assert run(flow_maps, tmp_path, "--searched") == 2
    said = capsys.readouterr().err
    assert "holds no record of a search; search again" in said and said.count("\n") == 1 and not folders(tmp_path)


def test_of_two_searches_none_is_taken(flow_maps, tmp_path, nothing_is_trained, capsys):
    for digest in ("0123456789ab", "1123456789ab"):
        write_search(flow_maps, tmp_path, SEARCH, digest)
    assert run(flow_maps, tmp_path, "--searched") == 2

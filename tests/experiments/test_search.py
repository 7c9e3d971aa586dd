import json

import pandas as pd
import pytest
import yaml

from data_modules.flow_maps import FlowMaps
from data_modules.protocols import folds
from experiments import search
from experiments.cli import main

QUICK = ["--trainer.max_steps=4", "--data.batch_size=8"]


def run(root, results, *more: str) -> int:
    words = ["search", "--dataset", "flow_maps", "--root", str(root), "--model", "ststnet", "--trials", "2"]
    return main([*words, "--results", str(results), "--cache", str(results / "cache"), *QUICK, *more])


@pytest.fixture(scope="module")
def small():
    """Three groups outside and two inside, one seed, candidates of the same few steps."""
    whole = search.space
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "space", lambda model: {"model.lr": [0.01, 0.02]} if model == "ststnet" else whole(model))
        patch.setattr(search, "OUTER", 3)
        patch.setattr(search, "INNER", 2)
        patch.setattr(search, "SEEDS", (0,))
        yield


@pytest.fixture(scope="module")
def searched(small, flow_maps, tmp_path_factory):
    results = tmp_path_factory.mktemp("searched")
    assert run(flow_maps, results) == 0
    return results


def cell(results):
    (folder,) = results.glob("flow_maps/megc2019/loso/ststnet_searched-*")
    return folder


def test_every_subject_is_tested_with_the_choice_of_its_group(searched, flow_maps):
    found = yaml.safe_load((cell(searched) / "config.yaml").read_text())["search"]
    clips = FlowMaps(str(flow_maps)).clips
    subjects = {f"{row.dataset}-{row.subject}" for row in clips.itertuples()}
    assert sorted(name for each in found["choices"].values() for name in each["subjects"]) == sorted(subjects)
    assert {path.stem for path in cell(searched).glob("seed0/*.csv")} == subjects
    for choice in found["choices"].values():
        assert choice["chosen"] == choice["inner UF1"].index(max(choice["inner UF1"]))
        for name in choice["subjects"]:  # byte for byte what the chosen recipe's own fold gives
            written = (cell(searched) / "seed0" / f"{name}.csv").read_bytes()
            trained = [path.read_bytes() for path in searched.glob(f".search/flow_maps/*/loso/*/seed0/{name}.csv")]
            assert trained == [written]


def test_no_subject_of_the_outer_group_is_in_its_inner_folds(searched, flow_maps):
    clips = FlowMaps(str(flow_maps)).clips
    for group, rows in folds(clips, "groups3").items():
        outside = set(clips["subject"].iloc[rows])
        tables = list(searched.glob(f".search/flow_maps/*/groups2-without-{group}/*/clips.csv"))
        assert len(tables) == 2
        for table in tables:
            assert not outside & set(pd.read_csv(table, dtype=str)["subject"])


def test_it_goes_on_where_it_was(searched, flow_maps, monkeypatch):
    monkeypatch.setattr(search, "train", lambda _, pending, *__: pytest.fail("trained again") if pending else [])
    before = {path: path.stat().st_mtime_ns for path in cell(searched).rglob("*.csv")}
    assert run(flow_maps, searched) == 0
    assert before == {path: path.stat().st_mtime_ns for path in cell(searched).rglob("*.csv")}


def test_interrupted_it_says_how_far_it_came(searched, flow_maps, monkeypatch, capsys):
    def stop(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "train", stop)
    assert run(flow_maps, searched) == 130
    assert "interrupted, 12 of 12 folds are done" in capsys.readouterr().err


def test_status_counts_it_as_a_model_and_no_inner_fold(searched, capsys):
    capsys.readouterr()
    assert main(["status", "--json", "--results", str(searched)]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["model"] == "ststnet_searched" and found["split"] == "loso"


def test_the_first_candidate_is_the_recipe_and_none_comes_twice():
    drawn = search.candidates({"model.lr": [1, 2], "data.shift": [0, 1]}, 5)
    assert drawn[0] == () and len(set(drawn)) == 5
    assert drawn == search.candidates({"model.lr": [1, 2], "data.shift": [0, 1]}, 5)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--model", "hsta"], "no search space for 'hsta'"),
        (["--model", "ststnet,ahmsa_net"], "takes one model"),
        (["--trials", "999999"], "more than the"),
    ],
)
def test_wrong_input_gets_one_message(flow_maps, tmp_path, capsys, more, told):
    assert run(flow_maps, tmp_path, *more) == 2
    assert told in capsys.readouterr().err

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from data_modules.cache import store
from data_modules.flow_maps import FlowMaps
from experiments.cli import main
from experiments.experiment import Experiment
from experiments.jobs import Job
from mer.evaluation import scoring
from tests.faults.commands import contents

CLASSES = ["negative", "positive", "surprise"]


def sweep(root: Path, results: Path, *more: str) -> int:
    return main(
        ["sweep", "--dataset", "flow_maps", "--root", str(root), "--model", "ststnet", "--results", str(results)]
        + ["--trainer.max_steps=12", "--data.batch_size=8", *more]
    )


def files(results: Path) -> dict[str, bytes]:
    return {str(path.relative_to(results)): path.read_bytes() for path in results.glob("*/*/loso/*/seed*/*.csv")}


@pytest.fixture(scope="module")
def swept(flow_maps, tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("results")
    assert sweep(flow_maps, results, "--seeds", "0,1") == 0
    return results


def status(results: Path, capsys) -> list[dict]:
    capsys.readouterr()
    assert main(["status", "--json", "--results", str(results)]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_clip_is_tested_once(swept, flow_maps):
    expected = pd.read_csv(flow_maps / "clips.csv")[["subject", "clip"]]
    for seed in (0, 1):
        tables = [pd.read_csv(path) for path in swept.glob(f"*/*/loso/*/seed{seed}/*.csv")]
        assert len(tables) == 3 and all(table["subject"].nunique() == 1 for table in tables)
        pool = pd.concat(tables).sort_values(["subject", "clip"])
        assert pool[["subject", "clip"]].to_numpy().tolist() == expected.to_numpy().tolist()
        probabilities = pool[[f"p_{name}" for name in CLASSES]]
        assert probabilities.sum(axis=1).to_numpy() == pytest.approx(1)
        assert (probabilities.to_numpy().argmax(1) == pool["prediction"].map(CLASSES.index)).all()


def test_it_learns(swept, capsys):
    for seed in status(swept, capsys)[0]["seeds"]:
        assert seed["honest"]["uf1"] > 0.6


def test_status_is_the_score_of_the_pool(swept, capsys):
    (cell,) = status(swept, capsys)
    assert cell["dataset"] == "flow_maps" and cell["protocol"] == "megc2019" and cell["model"] == "ststnet"
    assert [seed["seed"] for seed in cell["seeds"]] == [0, 1]
    for seed in cell["seeds"]:
        assert seed["folds_done"] == seed["folds_total"] == 3
        pool = pd.concat([pd.read_csv(path) for path in swept.glob(f"*/*/loso/*/seed{seed['seed']}/*.csv")])
        for kind, column in (("honest", "prediction"), ("optimistic", "optimistic_prediction")):
            assert {name: seed[kind][name] for name in ("uf1", "uar", "accuracy")} == scoring.scores(
                pool, CLASSES, column
            )
            assert seed[kind]["parts"] == {"smic": scoring.scores(pool, CLASSES, column)}


def test_a_second_run_trains_nothing(swept, flow_maps):
    times = {path: path.stat().st_mtime_ns for path in swept.glob("*/*/loso/*/seed*/*")}
    assert sweep(flow_maps, swept, "--seeds", "0,1") == 0
    assert times == {path: path.stat().st_mtime_ns for path in swept.glob("*/*/loso/*/seed*/*")}


def test_a_deleted_fold_comes_back_the_same_with_one_worker(swept, flow_maps, tmp_path):
    copy = tmp_path / "results"
    shutil.copytree(swept, copy)
    (lost,) = copy.glob("*/*/loso/*/seed1/smic-s2.csv")
    lost.unlink()
    times = {path: path.stat().st_mtime_ns for path in copy.glob("*/*/loso/*/seed*/*.csv")}
    assert sweep(flow_maps, copy, "--seeds", "0,1", "--workers", "1") == 0
    assert files(copy) == files(swept)
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    before, after = (contents(folder, folder)["tables"] for folder in (swept, copy))
    assert before == after and b"| ststnet" in after


def test_one_fold_alone_is_the_fold_of_the_sweep(swept, flow_maps, tmp_path, capsys):
    arguments = ["--dataset", "flow_maps", "--root", str(flow_maps), "--model", "ststnet", "--results", str(tmp_path)]
    options = ["--trainer.max_steps", "12", "--data.batch_size", "8"]
    assert main(["train", *arguments, "--fold", "smic-s3", "--seed", "1", *options]) == 0
    assert "smic-s3.csv" in capsys.readouterr().out
    ((name, content),) = files(tmp_path).items()
    assert files(swept)[name] == content


def test_other_data_or_options_have_a_folder_of_their_own(swept, flow_maps, own_flow_maps, capsys, monkeypatch):
    known = {cell["digest"] for cell in status(swept, capsys)}

    def digest(root, *more) -> str:
        capsys.readouterr()
        assert sweep(root, swept, "--dry-run", *more) == 0
        return capsys.readouterr().out.split("ststnet-")[1].split(":")[0]

    assert digest(flow_maps) in known
    assert digest(own_flow_maps) in known  # the same files elsewhere
    assert digest(flow_maps, "--data.motion=apex") in known
    clips = pd.read_csv(own_flow_maps / "clips.csv")
    clips.iloc[1:].to_csv(own_flow_maps / "clips.csv", index=False)
    others = [digest(own_flow_maps), digest(flow_maps, "--model.lr=0.5"), digest(flow_maps, "--trainer.max_steps=13")]
    others.append(digest(flow_maps, "--trainer.limit_train_batches=1"))
    monkeypatch.setattr(FlowMaps, "revision", (99,))  # the same files would give other tensors
    others.append(digest(flow_maps))
    assert len({*known, *others}) == len(known) + 5


def test_what_is_younger_than_results_is_no_part_of_their_digest(flow_maps, monkeypatch):
    monkeypatch.setattr(store, "digest", repr)
    settings = Experiment(Job("flow_maps", "ststnet", root=str(flow_maps))).digest
    assert "'flip'" in settings and not any(name in settings for name in ("motion", "flow_channels", "action_units"))


def test_the_held_out_labels_change_nothing_of_its_own_predictions(swept, own_flow_maps, tmp_path):
    clips = pd.read_csv(own_flow_maps / "clips.csv")
    own = clips["subject"] == "s2"
    clips.loc[own, "emotion"] = clips.loc[own, "emotion"].tolist()[::-1]
    clips.to_csv(own_flow_maps / "clips.csv", index=False)
    assert sweep(own_flow_maps, tmp_path / "results") == 0
    before, after = (
        pd.read_csv(next(folder.glob("*/*/loso/*/seed0/smic-s2.csv"))) for folder in (swept, tmp_path / "results")
    )
    columns = [f"p_{name}" for name in CLASSES]
    assert before["target"].tolist() != after["target"].tolist()
    assert before[columns].equals(after[columns])


def test_no_temporary_file_stays(swept):
    assert not [path for path in swept.rglob("*.tmp*") if "wandb" not in path.parts]

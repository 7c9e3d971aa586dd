"""``mer fit`` again, in a folder that holds a model already, and with wrong input."""

import pytest

from tests.experiments.fitting.command import FILES, contents, folders, run


def test_again_keeps_the_weights_and_renews_the_card(flow_maps, own, nothing_is_trained, capsys):
    folder = own / "models/flow_maps-ststnet"
    before, states = contents(folder), {name: (folder / name).stat().st_mtime_ns for name in FILES}
    (folder / "README.md").write_text("old")
    assert run(flow_maps, own) == 0
    assert capsys.readouterr().out == f"model: {folder}\n"
    assert contents(folder) == before
    assert all((folder / name).stat().st_mtime_ns == states[name] for name in FILES[1:])


@pytest.mark.parametrize(
    ("options", "seeds"),
    [(("--model.lr=0.123",), "0,1"), ((), "0,1,2"), ((), "1,0"), (("--data.flip=0",), "0,1"), (("--stacked",), "0,1")],
)
def test_another_recipe_in_the_same_folder_is_refused(flow_maps, own, nothing_is_trained, capsys, options, seeds):
    folder = own / "models/flow_maps-ststnet"
    before = contents(folder)
    assert run(flow_maps, own, *options, seeds=seeds) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{folder}: holds another model" in said and "--models" in said
    assert contents(folder) == before and folders(own) == ["flow_maps-ststnet"]


def test_a_folder_of_something_else_is_refused(flow_maps, tmp_path, nothing_is_trained, capsys):
    folder = tmp_path / "models/flow_maps-ststnet"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    assert run(flow_maps, tmp_path) == 2
    assert str(folder) in capsys.readouterr().err and contents(folder) == {"notes.txt": b"mine"}


def test_all_folders_are_checked_before_anything_is_trained(flow_maps, own, nothing_is_trained, capsys):
    (own / "models/flow_maps-ststnet").rename(own / "models/flow_maps-timm_baseline")
    assert run(flow_maps, own, model="ststnet,timm_baseline") == 2
    assert "flow_maps-timm_baseline: holds another model" in capsys.readouterr().err


def test_a_model_that_is_named_twice_is_fitted_once(flow_maps, trained_before, tmp_path, capsys):
    assert run(flow_maps, tmp_path, model="ststnet,ststnet") == 0
    assert capsys.readouterr().out.count("model: ") == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--data.outer_fold=group1", "--data.outer_split=groups3"), "leave --data.outer_fold away"),
        (("--model", "no_such"), "unknown model 'no_such'"),
        (("--seeds", "a"), "is not a list of whole numbers"),
        (("--searched",), "has 0 searches of ststnet on flow_maps, megc2019, and one is needed: run mer search"),
    ],
)
def test_wrong_input_is_one_message(flow_maps, tmp_path, nothing_is_trained, capsys, options, says):
    try:
        status = run(flow_maps, tmp_path, *options)
    except SystemExit as end:  # argparse's own
        status = end.code
    assert status == 2 and says in capsys.readouterr().err and not folders(tmp_path)

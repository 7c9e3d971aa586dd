import json
import os
import subprocess
import sys

import pandas as pd
import pytest
import torch
import yaml

from experiments.cli import main
from experiments.jobs import CONFIGS


def complaint(capsys, *arguments: str) -> str:
    """Standard error of a command that has to fail with exit status 2."""
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_help_imports_nothing_heavy():
    heavy = ("torch", "lightning", "pandas", "numpy", "cv2", "wandb", "rich", "shtab")
    code = "import sys, experiments.cli as cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n" + (
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.endswith("[]\n") and "sweep" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sweep", "--dataset", "casme33"], ["'casme33'", "synthetic"]),
        (["sweep", "--dataset", "flow_map"], ["'flow_map'", "did you mean flow_maps"]),
        (["sweep", "--model", "ststnet2"], ["'ststnet2'", "did you mean ststnet"]),
        (["sweep", "--model", "ststnet,slstt"], ["'slstt'"]),
        (["sweep", "--recipe", "fast"], ["'fast'", "quick", "paper"]),
        (["sweep", "--protocol", "casme2-4"], ["'casme2-4'", "casme2-5"]),
        (["sweep", "--modle", "ststnet"], ["--modle", "did you mean --model"]),
        (["sweep", "--seeds", "0;1"], ["0;1"]),
        (["sweep", "--workers", "0"], ["'0'"]),
        (["status", "--jsn"], ["--jsn", "did you mean --json"]),
        (["synthesise"], ["synthesise"]),
    ],
)
def test_a_wrong_word_is_named(capsys, arguments, words):
    error = complaint(capsys, *arguments)
    assert all(word in error for word in words) and error.count("\n") == 1


def test_a_message_says_where_it_comes_from_if_asked(capsys):
    assert "Traceback" not in complaint(capsys, "report", "--results", "nowhere")
    assert main(["report", "--results", "nowhere", "--verbose"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error and error.splitlines()[-1].startswith("mer: nowhere: there is no such folder")
    assert main(["status", "--results", "nowhere", "--quiet"]) == 0
    assert not capsys.readouterr().err
    assert main(["status", "--results", "nowhere"]) == 0
    assert capsys.readouterr().err.startswith("next: ")


def test_colour_is_left_away_where_nobody_wants_it(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)

    def shown(**environment: str) -> str:
        code = "from experiments.commands import _console; _console().print('failed', style='red')"
        own = {**os.environ, "TERM": "xterm-256color", "FORCE_COLOR": "1", **environment}
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=own).stdout

    assert "\x1b[31m" in shown() and "\x1b[" not in shown(NO_COLOR="1")


def test_tab_completes_commands_options_and_names(capsys):
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    ask = "\ncomplete_line() { COMP_WORDS=(mer $@); COMP_CWORD=$#; COMPREPLY=(); _shtab_mer; echo ${COMPREPLY[*]}; }\n"
    lines = ["sw", "sweep --upl", "sweep --dataset flow", "fit --model hs"]
    answers = subprocess.run(
        ["bash", "-c", script + ask + "\n".join(f"complete_line {line}" for line in lines)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert answers == ["sweep", "--upload-pictures", "flow_maps", "hsta"]
    assert main(["completion", "zsh"]) == 0 and capsys.readouterr().out.startswith("#compdef mer")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--model.lrr=1", ["--model.lrr", "did you mean --model.lr"]),
        ("--model.network.dropuot=0.1", ["--model.network.dropuot", "--model.network.dropout"]),
        ("--trainer.max_stps=3", ["--trainer.max_stps", "--trainer.max_steps"]),
        ("--data.batchsize=3", ["--data.batchsize", "--data.batch_size"]),
        ("--model.lr=fast", ["lr", "fast"]),
        ("--print_config --model.lrr=1", ["unknown option --model.lrr"]),
        ("--data.flip=2", ["flip", "2"]),
    ],
)
def test_a_wrong_option_of_a_class_is_named(capsys, flow_maps, option, words):
    error = complaint(
        capsys,
        "sweep",
        "--dataset",
        "flow_maps",
        "--root",
        str(flow_maps),
        "--model",
        "ststnet",
        "--dry-run",
        *option.split(),
    )
    assert all(word in error for word in words), error


def sweep_of(capsys, root, *more: str) -> str:
    return complaint(capsys, "sweep", "--dataset", "flow_maps", "--root", str(root), "--model", "ststnet", *more)


def test_a_missing_folder_is_named(capsys, tmp_path):
    error = sweep_of(capsys, tmp_path / "nowhere")
    assert "nowhere" in error and "clips.csv" in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_an_absent_gpu_is_named(capsys, flow_maps):
    assert "DEVICES=3" in sweep_of(capsys, flow_maps, "--devices", "3")


def spoil(root, change) -> None:
    clips = pd.read_csv(root / "clips.csv")
    change(clips).to_csv(root / "clips.csv", index=False)


def test_a_missing_column_is_named(capsys, own_flow_maps):
    spoil(own_flow_maps, lambda clips: clips.drop(columns="emotion"))
    assert "emotion" in sweep_of(capsys, own_flow_maps)


def test_every_problem_of_a_folder_is_named(capsys, own_flow_maps):
    def change(clips):
        clips.loc[1, "emotion"] = "boredom"
        clips.loc[2, "file"] = "../elsewhere.png"
        clips.loc[3, "file"] = "maps/gone.png"
        clips.loc[4, "subject"] = "../../up"
        clips.loc[5, "clip"] = clips.loc[0, "clip"]
        return clips

    spoil(own_flow_maps, change)
    error = sweep_of(capsys, own_flow_maps)
    for word in ("'boredom'", "../elsewhere.png", "maps/gone.png", "../../up", "c0 stands 2 times", "line 3"):
        assert word in error


def test_every_picture_that_does_not_open_is_named(capsys, own_flow_maps):
    (own_flow_maps / "maps/s1_0.png").write_bytes(b"no picture")
    (own_flow_maps / "maps/s2_3.png").write_bytes(b"")
    error = sweep_of(capsys, own_flow_maps)
    assert "s1_0.png" in error and "s2_3.png" in error


def test_a_table_that_is_none_is_named(capsys, own_flow_maps):
    (own_flow_maps / "clips.csv").write_bytes(b"\xff\xfe\x00" * 50)
    assert "clips.csv" in sweep_of(capsys, own_flow_maps)


def test_one_subject_cannot_be_left_out(capsys, own_flow_maps):
    spoil(own_flow_maps, lambda clips: clips[clips["subject"] == "s1"])
    assert "at least two subjects" in sweep_of(capsys, own_flow_maps)


def test_results_that_cannot_be_written_are_named(capsys, flow_maps, tmp_path):
    (tmp_path / "results").write_text("a file")
    assert str(tmp_path / "results") in sweep_of(capsys, flow_maps, "--results", str(tmp_path / "results"))


def shown(capsys, *arguments: str) -> str:
    """What a command prints that ends at once."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_help_of_a_command_has_the_options_of_the_classes(capsys):
    text = shown(capsys, "sweep", "--help")
    for option in ("--seeds", "--model.lr ", "--model.network.finest", "--data.batch_size", "--trainer.max_steps"):
        assert option in text


def test_a_class_of_ones_own_choice_has_help(capsys):
    text = shown(
        capsys, "train", "--fold", "x", "--model", "ststnet", "--model.help", "mer.training.mfvan_task.MFVANTask"
    )
    assert "--model.lambda_mask" in text


def test_the_configuration_is_printed_and_read_again(capsys, flow_maps, tmp_path):
    shared = ["sweep", "--dataset", "flow_maps", "--root", str(flow_maps), "--model", "ststnet", "--dry-run"]
    text = shown(capsys, *shared, "--print_config", "--model.lr=0.125")
    config = yaml.safe_load(text)
    assert config["model"]["init_args"]["lr"] == 0.125 and config["trainer"]["max_steps"] == 200
    (tmp_path / "mine.yaml").write_text("model: {init_args: {lr: 0.125}}\n")

    def digest(*options: str) -> str:
        assert main([*shared, *options]) == 0
        return capsys.readouterr().out.split("ststnet-")[1].split(":")[0]

    assert digest("--config", str(tmp_path / "mine.yaml")) == digest("--model.lr=0.125") != digest()


LAB = """
from data_modules.flow_maps import FlowMaps
from mer.models.ststnet import STSTNet


class MyLab(FlowMaps):
    name = "my_lab"


class MyNet(STSTNet):
    def __init__(self, num_classes: int, size: int = 28):
        super().__init__(num_classes, size)
"""


def test_a_dataset_and_recipes_may_lie_outside_the_checkout(capsys, flow_maps, tmp_path, monkeypatch):
    (tmp_path / "lab_of_mine.py").write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    recipe = (CONFIGS / "ststnet.yaml").read_text().replace("mer.models.ststnet.STSTNet", "lab_of_mine.MyNet")
    (tmp_path / "my_net.yaml").write_text(recipe)
    shared = [
        "--root",
        str(flow_maps),
        "--model",
        str(tmp_path / "my_net.yaml"),
        "--results",
        str(tmp_path / "results"),
    ]
    words = ["--dataset", "lab_of_mine.MyLab", *shared, "--trainer.max_steps=2"]
    assert main(["train", *words, "--fold", "smic-s1"]) == 0
    (file,) = (tmp_path / "results").glob("my_lab/megc2019/loso/my_net-*/seed0/smic-s1.csv")
    noted = json.loads(file.with_suffix(".json").read_text())
    assert noted["tuned_on"] == ["casme2", "smic"] and noted["options"] == ["--trainer.max_steps"]
    assert noted["parameters"] == 1683
    assert "lab_of_mine.Other" in complaint(capsys, "sweep", "--dataset", "lab_of_mine.Other", *shared)
    assert "no subclass" in complaint(capsys, "sweep", "--dataset", "lab_of_mine.MyNet", *shared)
    assert "cannot read --data.motion=both" in complaint(capsys, "sweep", *words, "--data.motion=both")
    (tmp_path / "my_net.yaml").write_text(recipe.replace("[casme2, smic]", "casme2"))
    assert "my_net.yaml: tuned_on is a list of databases" in complaint(capsys, "sweep", *words)
    (tmp_path / "my_net.yaml").write_text(recipe.replace("  model:\n", "  config: false\n  model:\n", 1))
    assert "cannot be read" in complaint(capsys, "sweep", *words)
    (tmp_path / "my_net.yaml").write_text("quick: {data: {}}")
    assert "my_net.yaml: the recipe quick has no model, no trainer" in complaint(capsys, "sweep", *words)
    (tmp_path / "my_net.yaml").write_text("- quick")
    assert "my_net.yaml: recipes are mappings" in complaint(capsys, "sweep", *words)
    (tmp_path / "my_net.yaml").unlink()
    assert "my_net.yaml: no file of recipes" in complaint(capsys, "sweep", *words)

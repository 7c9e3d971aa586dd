import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import main
from tests import trees


def inspect(capsys, *arguments: str) -> dict:
    capsys.readouterr()
    assert main(["inspect", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def spoil(image: Path) -> None:
    """Keep nothing but the start and the end."""
    content = image.read_bytes()
    image.write_bytes(content[:2] + b"\0" * (len(content) - 4) + content[-2:])


@pytest.mark.parametrize("case", trees.LAYOUTS)
def test_counts_of_every_layout(case, tmp_path, capsys):
    name, layout, write = trees.LAYOUTS[case]
    content = inspect(capsys, name, "--root", str(write(tmp_path / "data")))
    assert content["layout"] == layout and content["left_out"] == 0
    expected = {
        "casme2": {"megc2019": (12, 3), "casme2-5": (15, 3), "casme2-3": (12, 3)},
        "samm": {"megc2019": (12, 3), "samm-5": (15, 3), "samm-3": (12, 3)},
        "smic": {"megc2019": (9, 3), "smic-3": (9, 3)},
        "casme3": {"casme3-7": (15, 3), "casme3-4": (15, 3), "casme3-3": (12, 3)},
        "megc2019": {"megc2019": (33, 9)},
    }[name]
    for protocol, counts in expected.items():
        clips = content["protocols"][protocol]
        assert (clips["clips"], clips["subjects"]) == counts and sum(clips["classes"].values()) == counts[0]
    total = {"megc2019": 33, "smic": 9}.get(name, 15)
    assert (content["clips"], content["subjects"]) == (total, counts[1])
    assert content["frames"]["length"]["min"] >= 5


def test_the_clips_of_a_protocol_are_printed_as_csv(tmp_path, capsys):
    root = trees.casme2(tmp_path / "data")
    spoil(root / "CASME2_RAW_selected/sub01/EP01_01f/img11.jpg")
    assert main(["inspect", "casme2", "--root", str(root), "--protocol", "casme2-3", "--clips"]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "dataset,subject,clip,target" and len(lines) == 11
    assert not [line for line in lines if line.startswith("casme2,sub01,EP01_01f,")]
    assert {line.split(",")[3] for line in lines} == {"negative", "positive", "surprise"}


def test_an_apex_that_does_not_decode_costs_its_clip(tmp_path, capsys):
    root = trees.casme2(tmp_path / "data")
    spoil(root / "CASME2_RAW_selected/sub01/EP01_01f/img11.jpg")
    content = inspect(capsys, "casme2", "--root", str(root))
    (problem,) = content["problems"]
    assert problem["clip"] == "EP01_01f" and "img11.jpg" in problem["what"] and not problem["used"]
    assert content["clips"] == 14 and content["protocols"]["casme2-5"]["clips"] == 14


@pytest.mark.parametrize("name", ["casme2", "megc2019"])
def test_clips_are_listed_where_none_decodes(name, tmp_path, capsys):
    root = getattr(trees, name)(tmp_path / "data")
    for image in [*root.rglob("*.jpg"), *root.rglob("*.bmp")]:
        content = image.read_bytes()
        image.write_bytes(content[:6] + b"\0" * (len(content) - 8) + content[-2:])
    content = inspect(capsys, name, "--root", str(root))
    assert content["clips"] == 0 and content["left_out"] == {"casme2": 15, "megc2019": 39}[name]
    assert content["frames"] == {} and all(counts["clips"] == 0 for counts in content["protocols"].values())
    assert main(["inspect", name, "--root", str(root)]) == 0


def test_the_text_says_what_was_found(tmp_path, capsys):
    rows = trees.casme2_rows()
    rows[0] = (*rows[0][:4], "/", *rows[0][5:])
    rows[1] = (*rows[1][:8], "boredom")
    assert main(["inspect", "casme2", "--root", str(trees.casme2(tmp_path / "data", rows))]) == 0
    text = capsys.readouterr().out
    for words in ("14 clips of 3 subjects", "casme2-5", "1 left out", "EP02_01f: emotion 'boredom'", "it is spotted"):
        assert words in text


def test_other_unions_are_inspected_by_listing(tmp_path, capsys):
    root = trees.megc2019(tmp_path / "data")
    trees.casme3(root / "casme3")
    content = inspect(capsys, "composite", "--root", str(root), "--data.databases=casme3,samm")
    assert list(content["protocols"]) == ["union-3"] and content["protocols"]["union-3"]["clips"] == 24


def test_flow_maps_are_inspected_too(flow_maps, capsys):
    content = inspect(capsys, "flow_maps", "--root", str(flow_maps))
    assert content["protocols"]["megc2019"] == {
        "clips": 18,
        "subjects": 3,
        "classes": {"negative": 6, "positive": 6, "surprise": 6},
    }


def test_every_flow_map_is_opened(own_flow_maps, capsys):
    (own_flow_maps / "maps/s1_0.png").write_bytes(b"no picture")
    content = inspect(capsys, "flow_maps", "--root", str(own_flow_maps))
    (problem,) = content["problems"]
    assert (problem["subject"], problem["clip"], content["left_out"]) == ("s1", "c0", 1)
    assert "s1_0.png: is not an image" in problem["what"] and "mended" in problem["action"]
    assert content["clips"] == content["protocols"]["megc2019"]["clips"] == 17


@pytest.mark.parametrize("name", ["casme2", "megc2019", "flow_maps"])
def test_nothing_heavy_is_imported(name, flow_maps, tmp_path):
    """An answer takes a second, and the imports of torch and Lightning ten, and a gigabyte."""
    root = flow_maps if name == "flow_maps" else getattr(trees, name)(tmp_path / "data")
    words = ["inspect", name, "--root", str(root), "--data.input_size=32"]
    heavy = ("torch", "lightning", "torchvision", "timm", "scipy", "wandb", "matplotlib")
    check = f"import sys; from experiments.cli import main; assert main({words}) == 0; "
    check += f"assert not [name for name in {heavy} if name in sys.modules]"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_options_of_other_classes_are_taken_and_checked(flow_maps, capsys):
    words = ["flow_maps", "--root", str(flow_maps)]
    assert inspect(capsys, *words, "--trainer.max_steps", "3") == inspect(capsys, *words)
    assert main(["inspect", *words, "--model.lrr=3"]) == 2
    assert "--model.lr" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["casme2", "samm", "smic", "casme3", "megc2019"])
def test_a_missing_folder_is_named(name, tmp_path, capsys):
    assert main(["inspect", name, "--root", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_an_unknown_option_is_named(capsys):
    assert main(["inspect", "casme2", "--data.crp=3"]) == 2
    assert "--data.crop_size" in capsys.readouterr().err


def test_what_was_read_is_said_first(tmp_path, capsys):
    root = trees.casme2(tmp_path / "data")
    assert main(["inspect", "casme2", "--root", str(root), "--data.registered=true"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("raw cropped; 15 clips")
    assert lines[2] == f"frames in {root / 'CASME2_RAW_selected'}"
    assert lines[3] == f"sheet {root / 'CASME2-coding-20140508.xlsx'}, worksheet 'Sheet1'"
    content = inspect(capsys, "megc2019", "--root", str(trees.megc2019(tmp_path / "three")))
    assert [source.split()[:2] for source in content["sources"]] == [
        *(["casme2:", "frames"], ["casme2:", "sheet"], ["samm:", "frames"], ["samm:", "sheet"], ["smic:", "frames"])
    ]


def test_where_no_onset_decodes_all_clips_are_listed(tmp_path, capsys):
    root = trees.casme2(tmp_path / "data")
    for image in root.glob("*/*/*/*.jpg"):
        content = image.read_bytes()
        image.write_bytes(content[:2] + b"\0" * (len(content) - 4) + content[-2:])
    content = inspect(capsys, "casme2", "--root", str(root))
    assert (content["clips"], content["subjects"], content["left_out"], content["frames"]) == (0, 0, 15, {})
    assert main(["inspect", "casme2", "--root", str(root)]) == 0
    assert "15 left out" in capsys.readouterr().out

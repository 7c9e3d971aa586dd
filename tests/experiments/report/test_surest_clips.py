import shutil

import numpy as np
import pytest

from experiments import report
from experiments.cli import main
from experiments.report.kept_maps import mean_maps, thirds
from experiments.report.surest_clips import gallery
from tests.pages import Tables


def test_the_gallery_has_the_surest_right_and_wrong_clips(comparison, root):
    shown = gallery(comparison, root / "cache")
    assert shown
    for model in comparison.models:
        table = model.tables[0]
        table = table.assign(sure=table[[f"p_{name}" for name in comparison.classes]].max(axis=1))
        right = table["target"] == table["prediction"]
        expected = [
            (wanted, rows["sure"].max())
            for wanted in (True, False)
            for name in comparison.classes
            if len(rows := table[(right == wanted) & (table["target"] == name)])
        ]
        clips = shown.clips[model.name]
        assert [(clip.right, max(clip.probabilities.values())) for clip in clips] == expected
        attention = ["attention"] if model.cell.model != "ststnet" else []
        for clip in clips:
            assert [name for name, _ in clip.pictures] == ["onset", "apex", "flow", "strain", *attention]
            assert sum(clip.probabilities.values()) == pytest.approx(1)
            assert clip.right == (clip.clip["target"] == clip.clip["prediction"])


def test_data_only_leaves_faces_out(root, page, tmp_path):
    shutil.copytree(root / "results", tmp_path / "results")
    arguments = ["report", "--results", str(tmp_path / "results"), "--cache", str(root / "cache")]
    assert main([*arguments, "--data-only"]) == 0
    without = (tmp_path / "results/report/index.html").read_text()
    for caption in ("onset", "apex"):
        assert f'alt="{caption}"' in page and f'alt="{caption}"' not in without
    for caption in ("flow", "strain", "attention"):  # from what the folds have kept
        assert f'alt="{caption}"' in without
    assert Tables(page).tables == Tables(without).tables
    assert main(arguments) == 0
    assert (tmp_path / "results/report/index.html").read_text() == page


def test_attention_lies_where_the_face_moves(comparison):
    means = mean_maps(comparison.models[0])
    assert means and mean_maps(comparison.models[2]) is None
    for maps in (means.attention, means.motion):
        assert list(maps) == ["all", *comparison.classes]
        assert all(share.sum() == pytest.approx(1) for share in maps.values())
        places = [int(np.argmax(thirds(maps[name]))) for name in comparison.classes]
        assert places == [0, 2, 1]  # as sweeps.flow moves them


def test_thirds_of_a_map_whose_side_is_no_multiple_of_three():
    assert thirds(np.full((4, 4), 1 / 16)) == pytest.approx([1 / 3] * 3)
    assert thirds(np.eye(1, 4).repeat(4, 0).T / 4) == pytest.approx([1, 0, 0])


def test_a_damaged_picture_is_passed_over(root, tmp_path):
    shutil.copytree(root / "results/megc2019", tmp_path / "megc2019")
    for path in tmp_path.glob("*/*/*/*/seed*/*.safetensors"):
        path.write_bytes(b"no tensors")
    page = report.write(tmp_path, tmp_path / "no-cache").read_text()
    assert "Gallery" not in page and "not kept" in page

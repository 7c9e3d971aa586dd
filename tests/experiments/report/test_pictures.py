import shutil

import numpy as np
import pytest

from experiments import report
from experiments.cli import main
from experiments.report import maps, pictures
from tests.pages import Tables


def test_the_gallery_has_the_surest_right_and_wrong_clips(board, root):
    found = pictures.gallery(board, root / "cache")
    assert found
    for row in board.rows:
        table = row.tables[0].assign(sure=row.tables[0][[f"p_{name}" for name in board.classes]].max(axis=1))
        right = table["target"] == table["prediction"]
        expected = [
            (wanted, rows["sure"].max())
            for wanted in (True, False)
            for name in board.classes
            if len(rows := table[(right == wanted) & (table["target"] == name)])
        ]
        assert [(one.right, max(one.probabilities.values())) for one in found.clips[row.name]] == expected
        attention = ["attention"] if row.cell.model != "ststnet" else []
        for one in found.clips[row.name]:
            assert [name for name, _ in one.pictures] == ["onset", "apex", "flow", "strain", *attention]
            assert sum(one.probabilities.values()) == pytest.approx(1)
            assert one.right == (one.clip["target"] == one.clip["prediction"])


def test_data_only_leaves_faces_out(root, page, tmp_path):
    shutil.copytree(root / "results", tmp_path / "results")
    arguments = ["report", "--results", str(tmp_path / "results"), "--cache", str(root / "cache")]
    assert main([*arguments, "--data-only"]) == 0
    without = (tmp_path / "results/report/index.html").read_text()
    for caption in ("onset", "apex"):
        assert f'alt="{caption}"' in page and f'alt="{caption}"' not in without
    for caption in ("flow", "strain", "attention"):  # from what the folds have kept
        assert f'alt="{caption}"' in without
    assert Tables(page).found == Tables(without).found
    assert main(arguments) == 0
    assert (tmp_path / "results/report/index.html").read_text() == page


def test_attention_lies_where_the_face_moves(board):
    mean = maps.mean(board.rows[0])
    assert mean and maps.mean(board.rows[2]) is None
    for found in (mean.attention, mean.motion):
        assert list(found) == ["all", *board.classes]
        assert all(share.sum() == pytest.approx(1) for share in found.values())
        places = [int(np.argmax(maps.thirds(found[name]))) for name in board.classes]
        assert places == [0, 2, 1]  # as sweeps.flow moves them


def test_thirds_of_a_map_whose_side_is_no_multiple_of_three():
    assert maps.thirds(np.full((4, 4), 1 / 16)) == pytest.approx([1 / 3] * 3)
    assert maps.thirds(np.eye(1, 4).repeat(4, 0).T / 4) == pytest.approx([1, 0, 0])


def test_a_damaged_picture_is_passed_over(root, tmp_path):
    shutil.copytree(root / "results/megc2019", tmp_path / "megc2019")
    for path in tmp_path.glob("*/*/*/*/seed*/*.safetensors"):
        path.write_bytes(b"no tensors")
    page = report.write(tmp_path, tmp_path / "no-cache").read_text()
    assert "Gallery" not in page and "not kept" in page

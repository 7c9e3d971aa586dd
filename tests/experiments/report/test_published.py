import pandas as pd
import pytest

from data_modules import protocols
from experiments import report
from experiments.report.published import PUBLISHED, published_scores
from experiments.results import Cell
from tests import sweeps
from tests.pages import Tables


def clips_of(name):
    """A table with the clips and subjects that the real sheets give."""
    rules = protocols.protocol(name)
    rows = []
    for database, (count, subjects, classes) in rules.parts.items():
        targets = [label for label, times in zip(rules.classes, classes, strict=True) for _ in range(times)]
        rows += [(database, f"s{row % subjects}", f"c{row}", targets[row]) for row in range(count)]
    return pd.DataFrame(rows, columns=["dataset", "subject", "clip", "target"])


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_scores_stand_beside_the_same_clips_alone(name):
    clips = clips_of(name)
    papers = published_scores(name, "loso", clips)
    assert papers == PUBLISHED[name]
    assert all(paper.source and (paper.uf1 is not None or paper.accuracy is not None) for paper in papers)
    assert not published_scores(name, "lodo", clips) and not published_scores(name, "loso", clips[1:])
    assert not published_scores(name, "loso", clips.assign(dataset="synthetic"))


def test_of_some_databases_only_their_own_parts_are_shown(tmp_path):
    clips = clips_of("megc2019")
    clips = clips[clips["dataset"] != "samm"].reset_index(drop=True)
    papers = published_scores("megc2019", "loso", clips)
    assert [paper.method for paper in papers] == [paper.method for paper in PUBLISHED["megc2019"] if paper.parts]
    assert {(paper.uf1, paper.uar, paper.accuracy, *paper.parts) for paper in papers} == {
        (None, None, None, "casme2", "smic")
    }
    assert not published_scores("megc2019", "loso", clips[1:])
    cell = Cell(tmp_path, "flow_maps", "megc2019", "loso", "ststnet", "0123456789ab")
    sweeps.write_cell(cell, clips, 1, 1.0)
    header, *rows = Tables(report.write(tmp_path).read_text()).tables["flow_maps-megc2019-loso-published"]
    assert header == ["method", "casme2 UF1", "casme2 UAR", "smic UF1", "smic UAR", "epoch chosen", "source"]
    assert ["RCN-A", "0.851", "0.812", "0.633", "0.644", "not on the held-out subject"] in [row[:-1] for row in rows]


def test_optimistic_publications_are_marked(tmp_path):
    cell = Cell(tmp_path, "megc2019", "megc2019", "loso", "ststnet", "0123456789ab")
    sweeps.write_cell(cell, clips_of("megc2019").assign(action_units=""), 1, 1.0)
    page = report.write(tmp_path).read_text()
    shown = {line[0]: line for line in Tables(page).tables["megc2019-megc2019-loso-published"][1:]}
    assert "optimistic" in shown["HTNet"][4] and "optimistic" not in shown["STSTNet"][4]
    assert "HTNet (optimistic)" in page and 'class="diamond optimistic"' in page
    assert shown["STSTNet"][1:3] == ["0.735", "0.760"]
    assert "mean precision" in shown["STSTNet"][5] and "UAR 0.7186" in shown["STSTNet"][5]

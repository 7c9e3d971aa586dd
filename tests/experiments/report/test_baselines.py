import numpy as np
import pandas as pd
import pytest

from experiments.report.baselines import action_units, majority

CLASSES = ("negative", "positive", "surprise")


def table(rows):
    """Clips (subject, code, target)."""
    subjects, codes, targets = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "dataset": "casme2",
            "subject": subjects,
            "clip": [f"clip{row}" for row in range(len(rows))],
            "target": targets,
            "action_units": codes,
        }
    )


def test_majority_is_of_the_training_clips():
    clips = table([("a", "", "surprise")] * 3 + [("b", "", "positive")] * 2 + [("c", "", "negative")] * 2)
    assert majority(clips, CLASSES)["prediction"].tolist() == ["negative"] * 3 + ["surprise"] * 4


def test_the_same_code_decides_whatever_its_side_and_order():
    clips = table(
        [("a", "R12+6", "positive"), ("a", "1+2", "surprise"), ("b", "6+12", "positive"), ("b", "L2 + 1B", "surprise")]
    )
    assert action_units(clips, CLASSES)["prediction"].tolist() == clips["target"].tolist()


def test_the_most_similar_code_stands_in_for_one_that_is_new():
    clips = table(
        [("a", "4+7+9", "negative"), ("b", "4+7", "negative"), ("b", "12", "positive"), ("c", "1", "surprise")]
    )
    assert action_units(clips, CLASSES)["prediction"].tolist()[0] == "negative"


def test_its_own_subject_is_not_looked_at():
    clips = table([("a", "4", "surprise")] * 5 + [("b", "4", "negative"), ("c", "4", "negative")])
    assert action_units(clips, CLASSES)["prediction"].tolist() == ["negative"] * 5 + ["surprise"] * 2


@pytest.mark.parametrize("seed", range(3))
def test_the_held_out_labels_change_nothing(seed):
    draws = np.random.default_rng(seed)
    rows = [(f"s{row % 5}", str(draws.integers(1, 6)), str(draws.choice(CLASSES))) for row in range(40)]
    clips = table(rows)
    own = clips["subject"] == "s2"
    changed = clips.assign(target=np.where(own, "surprise", clips["target"]))
    for make in (majority, action_units):
        before, after = make(clips, CLASSES), make(changed, CLASSES)
        assert before["prediction"][own].tolist() == after["prediction"][own].tolist()


def test_only_coded_clips_are_scored():
    clips = table([("a", "4", "negative"), ("a", "?", "negative"), ("b", "4", "negative"), ("b", "", "positive")])
    assert action_units(clips, CLASSES)["clip"].tolist() == ["clip0", "clip2"]
    assert action_units(clips.assign(action_units=""), CLASSES) is None
    assert action_units(clips.drop(columns="action_units"), CLASSES) is None
    assert action_units(clips.assign(action_units=["4", "", "", ""]), CLASSES) is None  # nothing to look it up in

import numpy as np
import pandas as pd
import pytest

from experiments.report.baselines import action_units, average, majority, nearest_class_mean, support_vectors
from tests.sweeps import flow

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


def moving(rows, seed=0):
    """Clips (subject, class) and noisy maps that move where their class does."""
    clips = table([(subject, "", target) for subject, target in rows])
    noise = np.random.default_rng(seed).normal(0, 0.1, (len(rows), 3, 12, 12))
    maps = np.stack([flow(CLASSES.index(target), 12) for target in clips["target"]]) + noise
    return clips, maps.astype(np.float32)


@pytest.mark.parametrize("classify", [support_vectors, nearest_class_mean])
class TestClassifiers:
    def test_tell_motions_of_new_subjects(self, classify):
        clips, maps = moving([(f"s{n % 4}", CLASSES[n % 3]) for n in range(24)])
        predicted = classify(clips, maps, CLASSES)
        assert predicted["prediction"].tolist() == clips["target"].tolist()
        assert predicted["clip"].tolist() == clips["clip"].tolist()

    @pytest.mark.parametrize("seed", range(3))
    def test_the_held_out_labels_and_maps_of_others_held_out_change_nothing(self, classify, seed):
        draws = np.random.default_rng(seed)
        clips, maps = moving([(f"s{n % 5}", str(draws.choice(CLASSES))) for n in range(40)], seed)
        maps += draws.normal(0, 1, maps.shape).astype(np.float32)
        own = np.flatnonzero(clips["subject"] == "s2")
        changed = clips.assign(target=np.where(clips["subject"] == "s2", "surprise", clips["target"]))
        others = maps.copy()
        others[own[1:]] += 5  # a clip's prediction does not depend on other test clips
        before, after = classify(clips, maps, CLASSES), classify(changed, others, CLASSES)
        assert before["prediction"][own[0]] == after["prediction"][own[0]]

    def test_follow_the_folds_of_the_split(self, classify):
        clips, maps = moving([(f"s{n}", CLASSES[n % 2]) for n in range(6)])
        clips["dataset"] = ["casme2"] * 3 + ["smic"] * 3
        clips["target"] = ["positive"] * 3 + ["negative"] * 3  # each database has one class to learn from
        assert classify(clips, maps, CLASSES, "lodo")["prediction"].tolist() == ["negative"] * 3 + ["positive"] * 3


@pytest.mark.parametrize("side", [7, 12, 28, 56])
def test_the_average_is_of_equal_cells(side):
    maps = np.random.default_rng(0).random((2, 3, side, side)).astype(np.float32)
    cells = average(maps)
    assert cells.shape == (2, 3, 7, 7)
    np.testing.assert_allclose(cells.mean((2, 3)), maps.mean((2, 3), dtype=np.float64))
    if side % 7 == 0:
        np.testing.assert_allclose(cells, maps.reshape(2, 3, 7, side // 7, 7, side // 7).mean((3, 5)), rtol=1e-5)

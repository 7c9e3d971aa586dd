import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn

from mer.evaluation.scoring import accuracy, confusion, ensemble, interval, parts, per_class, scores, uar, uf1

CLASSES = ["negative", "positive", "surprise"]


def table_of(pairs, subjects=None, datasets=None):
    targets, predictions = zip(*pairs, strict=True) if pairs else ((), ())
    count = len(targets)
    return pd.DataFrame(
        {
            "dataset": datasets if datasets is not None else ["casme2"] * count,
            "subject": subjects if subjects is not None else [f"sub{i % 5}" for i in range(count)],
            "clip": [f"clip{i}" for i in range(count)],
            "target": list(targets),
            "prediction": list(predictions),
        }
    )


def random_table(seed, clips=300, subjects=20, right=0.6):
    rng = np.random.default_rng(seed)
    targets = rng.choice(CLASSES, clips, p=[0.6, 0.25, 0.15])
    guesses = np.where(rng.random(clips) < right, targets, rng.choice(CLASSES, clips))
    pairs = list(zip(targets.tolist(), guesses.tolist(), strict=True))
    return table_of(pairs, subjects=[f"sub{i}" for i in rng.integers(subjects, size=clips)])


# Counted by hand: 3 of 4 negative are right and 1 of 2 positive, the others are swapped; no surprise, never predicted.
BY_HAND = table_of(
    [("negative", "negative")] * 3 + [("negative", "positive"), ("positive", "positive"), ("positive", "negative")]
)


def test_a_table_counted_by_hand_with_an_absent_class():
    assert confusion(BY_HAND, CLASSES).tolist() == [[3, 1, 0], [1, 1, 0], [0, 0, 0]]
    with pytest.warns(UserWarning, match="no clip of surprise"):
        computed = scores(BY_HAND, CLASSES)
    assert computed == {
        "uf1": pytest.approx((6 / 8 + 2 / 4 + 0) / 3),
        "uar": pytest.approx((3 / 4 + 1 / 2 + 0) / 3),
        "accuracy": pytest.approx(4 / 6),
    }
    assert per_class(BY_HAND, CLASSES) == {
        "negative": {"clips": 4, "f1": pytest.approx(0.75), "recall": pytest.approx(0.75)},
        "positive": {"clips": 2, "f1": pytest.approx(0.5), "recall": pytest.approx(0.5)},
        "surprise": {"clips": 0, "f1": 0.0, "recall": 0.0},
    }


def test_a_class_that_is_absent_but_predicted_counts_0_too():
    table = table_of([("negative", "surprise"), ("negative", "negative"), ("positive", "positive")])
    assert per_class(table, CLASSES)["surprise"] == {"clips": 0, "f1": 0.0, "recall": 0.0}


def test_the_composites_majority_row():
    """megc2019, always negative: UF1 .2408, UAR .3333 as published with the challenge (See et al., FG 2019)."""
    counts = {"negative": 250, "positive": 109, "surprise": 83}
    computed = scores(table_of([(name, "negative") for name, n in counts.items() for _ in range(n)]), CLASSES)
    assert computed["uf1"] == pytest.approx(0.2408, abs=5e-5) and computed["uar"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(3))
def test_against_scikit_learn(seed):
    table = random_table(seed)
    target, prediction = table["target"], table["prediction"]
    computed = scores(table, CLASSES)
    assert (confusion(table, CLASSES) == sklearn.confusion_matrix(target, prediction, labels=CLASSES)).all()
    assert computed["uf1"] == pytest.approx(sklearn.f1_score(target, prediction, average="macro", labels=CLASSES))
    assert computed["uar"] == pytest.approx(sklearn.balanced_accuracy_score(target, prediction))
    assert computed["accuracy"] == pytest.approx(sklearn.accuracy_score(target, prediction))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from(CLASSES)), min_size=1, max_size=40), st.randoms())
def test_scores_hold_for_all_tables(pairs, random):
    table = table_of(pairs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        computed = scores(table, CLASSES)
        shuffled = random.sample(CLASSES, len(CLASSES))
        again = scores(table.sample(frac=1, random_state=random.randrange(2**32)), shuffled)
    by_class = per_class(table, CLASSES).values()
    assert all(0 <= value <= 1 for value in computed.values())
    assert again == pytest.approx(computed)  # neither the order of the rows nor of the classes matters
    assert computed["uf1"] == pytest.approx(np.mean([row["f1"] for row in by_class]))
    assert computed["uar"] == pytest.approx(np.mean([row["recall"] for row in by_class]))
    assert (computed["accuracy"] == 1) == all(target == prediction for target, prediction in pairs)
    expected = sklearn.f1_score(table["target"], table["prediction"], average="macro", labels=CLASSES, zero_division=0)
    assert computed["uf1"] == pytest.approx(expected)
    json.dumps([computed, per_class(table, CLASSES)], allow_nan=False)


def test_parts_are_scored_from_the_same_rows():
    table = random_table(1, clips=90).assign(dataset=["samm"] * 30 + ["casme2"] * 60)
    computed = parts(table, CLASSES)
    assert list(computed) == ["casme2", "samm"]
    assert computed["samm"] == scores(table[:30], CLASSES) and computed["casme2"] == scores(table[30:], CLASSES)


def test_seeds_together_average_the_probabilities_of_each_clip():
    first = BY_HAND.assign(p_negative=0.4, p_positive=0.6, p_surprise=0.0)
    other = BY_HAND.assign(p_negative=0.5, p_positive=0.1, p_surprise=0.4).iloc[::-1].head(4)
    together = ensemble([first, other], CLASSES)
    assert set(together["clip"]) == set(other["clip"]) and set(together["prediction"]) == {"negative"}
    assert together[["p_negative", "p_positive", "p_surprise"]].iloc[0].tolist() == pytest.approx([0.45, 0.35, 0.2])
    assert ensemble([first], CLASSES)["prediction"].tolist() == ["positive"] * len(first)
    for tables in ([], [BY_HAND]):
        with pytest.raises(ValueError, match="p_surprise"):
            ensemble(tables, CLASSES)


def test_another_column_can_be_scored():
    table = random_table(2, clips=60)
    table["optimistic_prediction"] = table["target"]
    assert scores(table, CLASSES, "optimistic_prediction") == {"uf1": 1.0, "uar": 1.0, "accuracy": 1.0}
    assert interval([table], CLASSES, "accuracy", "optimistic_prediction") == (1.0, 1.0)


@pytest.mark.parametrize("score", ["uf1", "uar", "accuracy"])
def test_interval_agrees_with_scipy(score):
    table = random_table(3, clips=200, subjects=15)
    groups = [rows for _, rows in table.groupby("subject")]
    matrices = np.stack([confusion(rows, CLASSES) for rows in groups])
    measure = {"uf1": uf1, "uar": uar, "accuracy": accuracy}[score]

    def statistic(index):
        return measure(matrices[index].sum(0))

    expected = stats.bootstrap(
        (np.arange(len(groups)),), statistic, vectorized=False, method="percentile", n_resamples=4000, rng=0
    ).confidence_interval
    low, high = interval([table], CLASSES, score, samples=4000)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.012)
    assert low < scores(table, CLASSES)[score] < high


def test_interval_is_repeatable_and_over_subjects():
    table = random_table(4)
    assert interval([table], CLASSES) == interval([table.sample(frac=1, random_state=0)], CLASSES)
    assert interval([table], CLASSES) != interval([table], CLASSES, seed=1)
    wide, narrow = interval([table], CLASSES, level=0.99), interval([table], CLASSES, level=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    # Two databases may name two people alike: sub1 of one is not sub1 of the other.
    first = table.assign(subject="sub1")
    assert len(set(interval([first], CLASSES))) == 1
    assert len(set(interval([first.assign(dataset=["casme2", "samm"] * 150)], CLASSES))) == 2
    assert all(type(end) is float for end in wide)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="target 'others'.*negative, positive, surprise"):
        scores(table_of([("others", "negative")]), CLASSES)
    with pytest.raises(ValueError, match="prediction 'nan'"):
        scores(table_of([("negative", None)]).assign(prediction=np.nan), CLASSES)
    with pytest.raises(ValueError, match="no column 'optimistic_prediction'"):
        scores(BY_HAND, CLASSES, "optimistic_prediction")
    with pytest.raises(ValueError, match="twice"):
        confusion(BY_HAND, [*CLASSES, "negative"])
    with pytest.raises(ValueError, match="empty"):
        scores(BY_HAND[:0], CLASSES)
    with pytest.raises(ValueError, match="empty"):
        interval([BY_HAND, BY_HAND[:0]], CLASSES)


def test_interval_of_several_seeds_is_of_their_mean():
    tables = [random_table(seed) for seed in (5, 6)]
    assert interval([tables[0], tables[0]], CLASSES) == interval([tables[0]], CLASSES)
    low, high = interval(tables, CLASSES)
    assert low < np.mean([scores(table, CLASSES)["uf1"] for table in tables]) < high

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from mer.evaluation import scoring
from mer.evaluation.significance import difference, difference_interval, holm, pair, permutation_test

CLASSES = ["negative", "positive", "surprise"]


def predictions(seed, subjects, clips=6, right=0.6, model=0):
    """Clips that are hard for everybody, and chance that each subject's network has of its own."""
    shared, own = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1, model])
    count = subjects * clips
    targets = shared.integers(3, size=count)
    ease = np.log(right / (1 - right)) + shared.normal(0, 1, count) + own.normal(0, 0.5, subjects).repeat(clips)
    hits = own.random(count) < 1 / (1 + np.exp(-ease))
    guesses = np.where(hits, targets, (targets + own.integers(1, 3, count)) % 3)
    return pd.DataFrame(
        {
            "dataset": "casme2",
            "subject": [f"sub{row // clips}" for row in range(count)],
            "clip": [f"clip{row}" for row in range(count)],
            "target": np.array(CLASSES)[targets],
            "prediction": np.array(CLASSES)[guesses],
        }
    )


def models(subjects, seeds=1, better=0.75):
    first = [predictions(1, subjects, right=better, model=seed) for seed in range(seeds)]
    second = [predictions(1, subjects, right=0.55, model=seed + 10) for seed in range(seeds)]
    return pair(first, second, CLASSES)


def scipys(first, second, score):
    """The difference as scipy calls it: with the subjects that stand on the first side, and on the second."""
    both = np.concatenate([first, second])

    def statistic(first_counts, second_counts, axis=-1):
        computed = []
        for side in (first_counts, second_counts):
            matrices = both[np.moveaxis(side, axis, -1)].sum(-4)
            computed.append(scoring.SCORES[score](matrices).mean(-1))
        return computed[0] - computed[1]

    places = np.arange(len(first))
    return (places, places + len(first)), statistic


@pytest.mark.parametrize("score", ["uf1", "uar", "accuracy"])
@pytest.mark.parametrize("better", [0.55, 0.7, 0.85])
def test_where_every_exchange_is_tried_the_p_value_is_scipys(score, better):
    first, second = models(9, seeds=2, better=better)
    sides, statistic = scipys(first, second, score)
    expected = stats.permutation_test(sides, statistic, permutation_type="samples", vectorized=True, n_resamples=9999)
    assert difference(first, second, score) == pytest.approx(expected.statistic)
    assert permutation_test(first, second, score) == pytest.approx(expected.pvalue)


def test_random_exchanges_agree_with_scipy():
    first, second = models(30, better=0.66)
    sides, statistic = scipys(first, second, "uf1")
    expected = stats.permutation_test(
        sides, statistic, permutation_type="samples", vectorized=True, n_resamples=9999, random_state=1, batch=1000
    )
    computed = permutation_test(first, second)
    assert 0.001 < computed < 0.5 and computed == pytest.approx(expected.pvalue, abs=0.02)


@pytest.mark.parametrize("score", ["uf1", "uar", "accuracy"])
def test_the_interval_agrees_with_scipy(score):
    first, second = models(20, seeds=2)

    def statistic(places, axis=-1):
        first_counts, second_counts = (counts[np.moveaxis(places, axis, -1)].sum(-4) for counts in (first, second))
        return (scoring.SCORES[score](first_counts) - scoring.SCORES[score](second_counts)).mean(-1)

    expected = stats.bootstrap(
        (np.arange(20),), statistic, vectorized=True, n_resamples=4000, method="percentile", random_state=1
    ).confidence_interval
    computed = difference_interval(first, second, score, samples=4000)
    assert computed == pytest.approx((expected.low, expected.high), abs=0.02)


def test_the_difference_is_that_of_the_scores():
    first, second = predictions(2, 12, right=0.8), predictions(2, 12, right=0.5, model=1)
    matrices = pair([first], [second], CLASSES)
    expected = scoring.scores(first, CLASSES)["uf1"] - scoring.scores(second, CLASSES)["uf1"]
    assert difference(*matrices) == pytest.approx(expected)
    assert difference(*reversed(matrices)) == pytest.approx(-expected)
    assert permutation_test(*reversed(matrices)) == permutation_test(*matrices)


def test_two_seeds_of_one_model_differ_at_five_per_cent_in_five_of_a_hundred_pairs():
    rejected, pairs = 0, 200
    for draw in range(pairs):
        tables = [[predictions(draw, 24, model=model + 2 * side) for model in range(2)] for side in range(2)]
        rejected += permutation_test(*pair(*tables, CLASSES), permutations=499, seed=draw) <= 0.05
    assert stats.binomtest(rejected, pairs, 0.05).pvalue > 0.01, rejected


def test_a_clear_difference_is_found():
    first, second = models(30, better=0.9)
    assert permutation_test(first, second) == 1 / 10000
    low, high = difference_interval(first, second)
    assert 0 < low < difference(first, second) < high


def test_a_model_does_not_differ_from_itself():
    first, _ = models(8)
    assert permutation_test(first, first) == 1 and difference_interval(first, first) == (0, 0)


def test_only_what_both_have_predicted_is_compared():
    first, second = [predictions(3, 6, model=model) for model in range(3)], [predictions(3, 6, model=9)]
    unfinished = [second[0][second[0]["subject"] != "sub4"].sample(frac=1, random_state=0)]
    first_counts, second_counts = pair(first, unfinished, CLASSES)
    assert first_counts.shape == second_counts.shape == (5, 1, 3, 3)
    rest = first[0][first[0]["subject"] != "sub4"]
    assert (first_counts.sum((0, 1)) == scoring.confusion(rest, CLASSES)).all()
    assert (second_counts.sum((0, 1)) == scoring.confusion(unfinished[0], CLASSES)).all()
    assert (first_counts.sum(-1) == second_counts.sum(-1)).all()  # the same clips, subject by subject


def test_nothing_in_common_is_refused():
    table = predictions(4, 4)
    with pytest.raises(ValueError, match="no clip in common"):
        pair([table], [table.assign(dataset="samm")], CLASSES)
    with pytest.raises(ValueError, match="no predictions"):
        pair([table], [], CLASSES)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1, 1] and holm([0.2]) == [0.2] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.randoms())
def test_holm_holds_for_all_families(values, random):
    corrected = holm(values)
    assert all(value <= p <= min(1, value * len(values) + 1e-12) for value, p in zip(values, corrected))
    order = random.sample(range(len(values)), len(values))
    assert holm([values[index] for index in order]) == pytest.approx([corrected[index] for index in order])
    for a, b in zip(values, corrected):
        assert all(d >= b for c, d in zip(values, corrected) if c > a)

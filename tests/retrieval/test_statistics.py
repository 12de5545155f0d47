"""Intervals against closed forms and plain loops, and what selecting on the test set does."""

import numpy as np
import pytest
from scipy.stats import binom

from sbirlib.retrieval.intervals import bootstrap_accuracy, paired_bootstrap, simulate_selection
from sbirlib.retrieval.scores import accuracy_at


def ranks_of(hits):
    return np.where(hits, 1, 2)


def test_one_sketch_a_photo_and_one_run_give_about_the_binomial_interval():
    hits = np.arange(300) < 180
    estimate = bootstrap_accuracy([ranks_of(hits)], np.arange(300))
    expected = accuracy_at(ranks_of(hits), 1)
    assert estimate.percent == pytest.approx(60)
    assert estimate.low == pytest.approx(expected.low, abs=0.6)
    assert estimate.high == pytest.approx(expected.high, abs=0.6)
    assert str(estimate).startswith("60.0 % (95 % CI 5")


def test_sketches_of_one_photo_that_stand_and_fall_together_widen_the_interval():
    together = np.repeat(np.arange(100) < 60, 3)
    apart = bootstrap_accuracy([ranks_of(together)], np.arange(300))
    grouped = bootstrap_accuracy([ranks_of(together)], np.repeat(np.arange(100), 3))
    ratio = (grouped.high - grouped.low) / (apart.high - apart.low)
    assert ratio == pytest.approx(3**0.5, rel=0.15)


def test_acc_at_k_is_the_mean_over_runs_of_all_queries():
    ranks = np.array([[1, 3, 7, 2], [1, 1, 9, 6]])
    photos = ["a", "a", "b", "c"]
    assert bootstrap_accuracy(ranks, photos, 1).percent == pytest.approx(100 * 3 / 8)
    assert bootstrap_accuracy(ranks, photos, 5).percent == pytest.approx(100 * 5 / 8)


def test_resampling_equals_a_plain_loop():
    rng = np.random.default_rng(5)
    hits, photos = rng.random((3, 12)) < 0.5, np.repeat(np.arange(4), 3)
    # Deviations of runs from their mean, larger by sqrt(3 / 2), as a sample of three shows too little.
    spread = hits.mean(axis=0) + (hits - hits.mean(axis=0)) * 1.5**0.5
    samples = []
    for _ in range(4000):
        runs, drawn = rng.integers(3, size=3), rng.integers(4, size=4)
        samples.append(100 * np.mean([[spread[run, photos == photo] for photo in drawn] for run in runs]))
    estimate = bootstrap_accuracy([ranks_of(row) for row in hits], photos)
    # Both are discrete in steps of about 3 points.
    np.testing.assert_allclose((estimate.low, estimate.high), np.percentile(samples, (2.5, 97.5)), atol=3)


def test_pairing_sees_a_difference_that_intervals_alone_do_not():
    rng = np.random.default_rng(0)
    easy = rng.random(400)
    first, second = ranks_of(easy < 0.60)[None], ranks_of(easy < 0.64)[None]
    photos = np.arange(400)
    difference = paired_bootstrap(first, second, photos)
    assert difference.points == pytest.approx(100 * ((second == 1).mean() - (first == 1).mean()))
    assert 0 < difference.low < difference.points < difference.high
    assert difference.p < 0.01
    assert bootstrap_accuracy(first, photos).high > bootstrap_accuracy(second, photos).low
    assert paired_bootstrap(second, first, photos).points == -difference.points


def test_all_hits_are_not_taken_for_certainty():
    estimate = bootstrap_accuracy(np.ones((3, 40)), np.repeat(np.arange(20), 2))
    assert estimate.percent == 100
    assert estimate.low == pytest.approx(accuracy_at(np.ones(20), 1).low)
    assert bootstrap_accuracy(np.full((1, 40), 9), np.repeat(np.arange(20), 2)).high > 10


def test_runs_that_differ_widen_the_interval():
    rng = np.random.default_rng(0)
    alike = [ranks_of(rng.random(2000) < 0.5) for _ in range(5)]
    apart = [ranks_of(rng.random(2000) < p) for p in (0.4, 0.45, 0.5, 0.55, 0.6)]
    narrow, wide = (bootstrap_accuracy(ranks, np.arange(2000)) for ranks in (alike, apart))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_no_difference_is_no_difference():
    ranks = np.ones((2, 9), dtype=int)
    difference = paired_bootstrap(ranks, ranks, np.arange(9))
    assert difference == (0, 0, 0, 1)
    assert str(difference) == "+0.0 points (95 % CI +0.0 to +0.0, p = 1)"


@pytest.mark.parametrize(("ranks", "photos"), [(np.ones(3), [1, 2, 3]), (np.ones((2, 3)), [1, 2])])
def test_shapes_that_do_not_fit_are_refused(ranks, photos):
    with pytest.raises(ValueError, match=r"expected ranks"):
        bootstrap_accuracy(ranks, photos)
    with pytest.raises(ValueError, match=r"k = 0"):
        paired_bootstrap(np.ones((1, 3)), np.ones((1, 3)), [1, 2, 3], 0)
    with pytest.raises(ValueError, match=r"of the same runs"):
        paired_bootstrap(np.ones((2, 3)), np.ones((1, 3)), [1, 2, 3])


def test_selection_gains_by_luck_alone():
    result = simulate_selection(70, 1.5, 281, 500, repeats=300)
    assert result.typical.mean() == pytest.approx(70, abs=0.6)
    assert result.fresh.mean() == pytest.approx(70, abs=0.6)
    assert result.reported.mean() > 73
    # The queries of a repetition are a sample too: an unselected epoch spreads as a binomial does.
    assert result.typical.std() == pytest.approx(100 * binom(281, 0.7).std() / 281, rel=0.15)


def test_one_epoch_cannot_be_selected_and_more_epochs_mean_more_luck():
    once = simulate_selection(70, 1.5, 281, 1)
    np.testing.assert_array_equal(once.reported, once.typical)
    few, many = (simulate_selection(70, 1.5, 281, epochs).reported.mean() for epochs in (10, 500))
    assert 70.5 < few < many


def test_epochs_move_as_much_as_was_asked_for():
    rng = np.random.default_rng(0)
    spreads = [
        simulate_selection(60, 2.0, 200, 2, repeats=400, seed=int(rng.integers(1e6))) for _ in range(2)
    ]
    # The better of two epochs lies 0.56 standard deviations above the mean of both.
    gain = np.mean([spread.reported.mean() - 60 for spread in spreads])
    assert gain == pytest.approx(2.0 * 0.5642, abs=0.5)


@pytest.mark.parametrize(("accuracy", "spread"), [(70, 9), (100, 1), (70, 0)])
def test_what_cannot_be_simulated_is_refused(accuracy, spread):
    with pytest.raises(ValueError, match="is not possible"):
        simulate_selection(accuracy, spread, 281, 10)

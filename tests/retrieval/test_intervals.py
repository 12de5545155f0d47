"""Intervals against closed forms and plain loops."""

import numpy as np
import pytest
from scipy.stats import norm

from sbirlib.retrieval.intervals import accuracy_at, bootstrap_accuracy, paired_bootstrap


def ranks_of(hits):
    return np.where(hits, 1, 2)


def test_one_sketch_a_photo_and_one_run_give_about_the_binomial_interval():
    hits = np.arange(300) < 180
    estimate = bootstrap_accuracy([ranks_of(hits)], np.arange(300))
    expected = accuracy_at(ranks_of(hits), 1)
    assert estimate.percent == pytest.approx(60)
    assert estimate.low == pytest.approx(expected.low, abs=0.6)
    assert estimate.high == pytest.approx(expected.high, abs=0.6)


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


def tangos_bounds(better, worse, photos):
    """Tango's score interval for the difference of paired proportions, its equation solved point by point."""

    def z(difference):
        b = -better - worse + (2 * photos - better + worse) * difference
        c = -worse * difference * (1 - difference)
        lost = (np.sqrt(b**2 - 8 * photos * c) - b) / (4 * photos)
        variance = photos * (2 * lost + difference * (1 - difference))
        return (better - worse - photos * difference) / np.sqrt(variance)

    grid = np.linspace(-1, 1, 200_002)[1:-1]
    inside = grid[np.abs(z(grid)) <= 1.959964]
    return 100 * inside.min(), 100 * inside.max()


@pytest.mark.parametrize(("better", "worse"), [(0, 0), (9, 0), (0, 9)])
def test_equal_photos_are_not_taken_for_certainty(better, worse):
    first, second = np.ones((2, 2, 18), dtype=int)
    first[:], second[:] = 1 + bool(better), 1 + bool(worse)
    found = paired_bootstrap(first, second, np.repeat(np.arange(9), 2))
    low, high = tangos_bounds(better, worse, 9)
    assert found.points == 100 * (better - worse) / 9
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-3)
    assert found.p == pytest.approx(2 * norm.sf(abs(better - worse) / 9 * 3))  # McNemar's, of 9 photos


def test_no_difference_is_no_difference():
    ranks = np.ones((2, 9), dtype=int)
    assert str(paired_bootstrap(ranks, ranks, np.arange(9))) == "+0.0 points (95 % CI -29.9 to +29.9, p = 1)"


def test_photos_that_agree_in_part_are_not_taken_for_certainty():
    half = ranks_of(np.arange(40) % 2)[None]
    photos = np.repeat(np.arange(20), 2)
    estimate = bootstrap_accuracy(half, photos)
    assert 40 < estimate.low < 45 < estimate.percent < 55 < estimate.high < 60
    difference = paired_bootstrap(half, np.ones((1, 40)), photos)
    assert difference.low < 30 < difference.points == 50 < 55 < difference.high < 60
    assert difference.p == pytest.approx(2 * norm.sf(10**0.5))


@pytest.mark.parametrize("runs", [1, 3])
def test_one_photo_has_no_interval(runs):
    first, second = np.full((runs, 2), 9), np.full((runs, 2), 1)
    second[-1, 1] = 9  # runs that differ say nothing of other photos
    estimate, difference = bootstrap_accuracy(first, [5, 5]), paired_bootstrap(first, second, [5, 5])
    assert estimate.percent == 0
    assert np.isnan([*estimate[1:], *difference[1:]]).all()
    assert str(difference) == f"{difference.points:+.1f} points (no interval: one photo)"


@pytest.mark.parametrize(("ranks", "photos"), [(np.ones(3), [1, 2, 3]), (np.ones((2, 3)), [1, 2])])
def test_shapes_that_do_not_fit_are_refused(ranks, photos):
    with pytest.raises(ValueError, match=r"expected ranks"):
        bootstrap_accuracy(ranks, photos)
    with pytest.raises(ValueError, match=r"of the same runs, found 2 and 1"):
        paired_bootstrap(np.ones((2, 3)), np.ones((1, 3)), [1, 2, 3])

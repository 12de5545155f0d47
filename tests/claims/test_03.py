"""What notebook 3 says of its figures holds, as its own cells compute it."""

import numpy as np
import pandas as pd
import pytest
from tools.cells import Page, working_in

from sbirlib.runs.folder import Run


@pytest.fixture(scope="module")
def page(notebooks):
    return Page("03_evaluate", notebooks)


@pytest.fixture(scope="module")
def missed(page):
    return page["scores"].ranks > 1


def test_guessing_rarely_finds_a_photo_even_among_ten(page):
    assert 10 / page["scores"].gallery < 0.1


def test_validation_comes_out_far_better_than_test(page):
    test, validation = (page[name].accuracy[1].percent for name in ("scores", "checked"))
    assert page["checked"].gallery < page["scores"].gallery / 2
    assert validation > test + 7


def test_validation_is_what_the_training_scored_last(page, notebooks):
    history = Run(notebooks / page["RUN"]).history()
    assert len(page["checked"].ranks) == history["val_queries"][-1]
    assert page["checked"].accuracy[1].percent == pytest.approx(history["val_acc@1"][-1], abs=3)


def test_points_are_lost_as_the_gallery_grows(page):
    assert page["middle"][0] > page["middle"][-1] + 7
    assert (np.diff(page["middle"]) < 2).all()


def test_validation_is_where_the_curve_is_in_so_small_a_gallery(page):
    assert page["sizes"][0] == page["checked"].gallery
    assert page["low"][0] - 2 < page["checked"].accuracy[1].percent < page["high"][0] + 2


def test_only_the_test_gallery_holds_many_pairs_of_twins(page):
    validation, test = (int(line.split()[1]) for line in page.printed["03-49"].splitlines())
    assert test > 10 * max(1, validation)


def test_few_queries_have_a_wide_interval(page):
    few, many = (page["accuracy_of"](hits, queries) for hits, queries in ((6, 10), (600, 1000)))
    assert few.low < 100 / 3
    assert few.high > 80
    assert 8 < (few.high - few.low) / (many.high - many.low) < 10


def test_the_curve_is_steepest_at_the_left_and_flat_from_the_worst_rank(page, missed):
    found = [np.mean(page["scores"].ranks <= k) for k in page["ks"]]
    assert np.argmax(np.diff(found)) == 0
    assert found[2] - found[0] > 0.6 * (found[-1] - found[0])
    assert found[page["scores"].ranks.max() - 1] == found[-1] == 1


def test_each_designer_has_a_seventh_of_the_queries_and_a_long_whisker(page):
    for accuracy in page["scores"].designers.values():
        assert accuracy.queries == pytest.approx(len(page["scores"].ranks) / 7, abs=1)
        assert accuracy.high - accuracy.low > 15


def test_much_of_the_gap_between_designers_is_chance(page):
    assert np.median(page["shuffled"]) > page["gap"](page["hit"]) / 2.5


def test_hands_that_leave_out_the_pattern_are_behind_by_more_than_chance(page):
    assert {"4", "7"} == set(page["hands"][page["flat"]])
    assert page["behind"](page["hit"]) > 6
    assert np.mean(page["by_chance"] >= page["behind"](page["hit"])) < 0.06


def test_failures_are_near_misses(page, missed):
    ranks = page["scores"].ranks
    assert page["near"] > 0.75 * missed.sum()
    assert ranks.max() < page["scores"].gallery / 8
    assert np.sum(ranks == 1) > 2 * missed.sum()


def test_one_query_at_the_end_moves_the_mean_and_not_the_median(page):
    ranks, moved = page["scores"].ranks, page["moved"]
    assert moved.mean() > ranks.mean() + 0.3
    assert np.median(moved) == np.median(ranks) == 1


def shares(page):
    """Percent (beside the true photo, of all photos) by detail, as printed."""
    lines = (line.split() for line in page.printed["03-54"].splitlines())
    return {line[1]: (int(line[2]), int(line[-5])) for line in lines}


def test_what_is_found_together_shares_cut_and_not_colour(page):
    found = shares(page)
    assert set(found) == {"family", "sleeve", "closure", "colour"}
    for detail in ("family", "sleeve", "closure"):
        beside, everywhere = found[detail]
        assert beside > everywhere + 12, detail
    assert abs(found["colour"][0] - found["colour"][1]) < 6


def test_wrong_answers_were_close_calls(page):
    steps, hit = page["steps"], page["hit"]
    assert np.median(steps[~hit]) < 0.6 * np.median(steps[hit])


def test_the_card_shows_a_failure(page, missed, notebooks):
    with working_in(notebooks):
        heading = page["browser"].figure().axes[0].texts[0].get_text()
    assert f"of {missed.sum()})" in heading
    assert "the true photo has rank 1 " not in heading


def test_the_first_photo_of_a_miss_is_mostly_of_the_right_kind(page, missed):
    assert page["same"] > 0.65 * missed.sum()


def test_misses_come_in_bunches(page):
    assert page["missed"] < np.min(page["chance"])


def test_sketches_lie_beside_their_photos_on_the_map(page):
    across = np.ptp(page["places"], axis=0).max()
    assert np.mean(page["lines"] < across / 8) > 0.9


def test_long_lines_on_the_map_are_short_in_the_gallery(page):
    longest = np.argsort(-page["lines"])[:4]
    assert (page["scores"].ranks[longest] <= 10).all()
    cosines = page["similarity"][longest]
    own = np.take_along_axis(cosines, page["own"][longest, None], axis=1)
    assert (own > np.median(cosines, axis=1, keepdims=True) + 0.3).all()


def test_photos_of_one_kind_lie_together_on_the_map(page):
    photos, kind = page["photo_at"], page["kind"]
    away = np.linalg.norm(photos[:, None] - photos[None], axis=-1)
    near = np.argsort(away, axis=1)[:, 1:6]
    assert (kind[near] == kind[:, None]).mean() > 2 * (kind[:, None] == kind).mean()


def test_misses_land_on_the_twin_far_more_often_than_by_chance(page):
    with_twin = page["with_twin"].sum()
    assert with_twin > 15
    assert page["on_twin"] > 20 * with_twin / (page["scores"].gallery - 1)


def test_a_tie_is_lost(page):
    assert page.printed["03-36"].strip() == "[5]"


def test_some_published_neighbours_differ_beyond_chance_and_others_do_not(page):
    said = page.printed["03-60"].splitlines()
    assert len(said) == 6
    assert 2 <= sum("beyond chance" in line for line in said) <= 4
    assert "+3 sketches" in said[-1]
    assert "overlap" in said[-1]


def test_the_wardrobe_is_that_of_the_photos(page):
    assert isinstance(page["garments"], pd.DataFrame)
    assert list(page["garments"]["photo"]) == [photo.id for photo in page["test"].split.photos]

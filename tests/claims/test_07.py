"""What notebook 7 says of frozen features, made drawings and published numbers; of its trainings nothing."""

import numpy as np
import pytest
import torch
from tools.cells import Page

from sbirlib import accuracy_of, paired_bootstrap, published

TRAINED = ('trained("', "evaluate(shop", "baseline, scores", "scores.ranks", 'alone", scores', "all_scores")


@pytest.fixture(scope="module")
def page(notebooks):
    return Page("07_real_drawings", notebooks, lambda source: any(part in source for part in TRAINED))


@pytest.fixture(scope="module")
def hits(page):
    return {cells: found.accuracy[1].hits for cells, found in page["frozen"].items()}


@pytest.fixture(scope="module")
def hits_moved(page):
    return dict(zip(page["frozen"], (found.hits for found in page["again"].values()), strict=True))


def ink(pictures):
    return 1 - pictures.float().mean(dim=(1, 2, 3)).numpy()


def percent(page, kind):
    ranks = page["baseline"].ranks[[one == kind for one in page["kinds"]]]
    return accuracy_of(int((ranks == 1).sum()), len(ranks))


def test_guessing_would_find_one_in_a_hundred_and_twenty(page):
    assert len(page["test"].photos) == 120


def test_one_mean_finds_many_times_more_than_guessing(hits, page):
    queries, photos = len(page["test"].sketches), len(page["test"].photos)
    assert hits[1] > 20 * queries / photos


def test_the_finer_the_grid_the_more_it_finds(hits):
    assert hits[1] + 20 < hits[2] < hits[3] - 8 < hits[6] - 12


def test_every_grid_loses_by_the_move_and_the_finest_by_far_the_most(hits, hits_moved):
    lost = {cells: hits[cells] - hits_moved[cells] for cells in hits}
    assert min(lost.values()) > 5
    assert lost[6] > 2 * max(lost[1], lost[2], lost[3])


def test_a_strip_of_the_drawing_has_left_the_picture(page):
    drawn = 255 - page["test"].sketches.float()
    assert drawn[..., -16:].sum() > 0.02 * drawn.sum()


def test_with_moved_sketches_three_by_three_means_are_the_best_of_the_four(hits_moved):
    assert hits_moved[3] > 8 + max(hits_moved[cells] for cells in (1, 2, 6))


def test_a_patterned_photo_makes_a_drawing_full_of_ink(page):
    test = page["test"]
    dials = (0.3, 0.3, 0.3, 0.3)
    made = [page["drawings"](test, row, dials, 0.35, 0, False)[1:2] for row in range(len(test.photos))]
    patterned = np.array([photo.id in page["patterned"] for photo in test.split.photos])
    drawn = np.concatenate([ink(picture) for picture in made])
    assert patterned[0]
    assert drawn[patterned].mean() > 1.3 * drawn[~patterned].mean()


@pytest.mark.parametrize(("redrawn", "low", "high"), [(0.0, 0.0, 0.01), (1.0, 0.05, 1.0)])
def test_other_hands_draw_what_was_traced_or_far_from_it(page, redrawn, low, high):
    parts = page["drawings"](page["test"], 0, (0.3, 0.3, 0.3, 0.3), redrawn, 0, False)
    assert low <= float((parts[2:5] - parts[1:2]).abs().mean()) <= high


def test_the_interval_of_the_two_grids_does_not_hold_0_yet_one_mean_finds_what_nine_do_not(page):
    one, nine = page["frozen"][1].ranks, page["baseline"].ranks
    ids = [page["test"].split.photos[row].id for row in page["test"].photo_index]
    assert paired_bootstrap([one], [nine], ids).low > 10
    assert ((one == 1) & (nine != 1)).any()


def test_240_hits_leave_35_misses(page):
    assert len(page["test"].sketches) - 240 == 35


def test_sketches_without_their_pattern_are_the_smallest_kind_with_the_widest_interval(page):
    rest = [percent(page, kind) for kind in ("plain garment", "pattern drawn")]
    left_out = percent(page, "pattern left out")
    assert left_out.queries < min(kind.queries for kind in rest)
    assert left_out.high - left_out.low > 5 + max(kind.high - kind.low for kind in rest)


def test_the_interval_of_sketches_without_their_pattern_lies_apart(page):
    rest = [percent(page, kind) for kind in ("plain garment", "pattern drawn")]
    assert percent(page, "pattern left out").high + 5 < min(kind.low for kind in rest)


def test_where_a_pattern_is_left_out_the_photo_has_edges_that_the_sketch_has_not(page):
    test = page["test"]
    drawn, kinds = ink(test.sketches / 255), np.array(page["kinds"])
    dials = torch.full((len(test.photos), 4), 0.3)
    made = ink(page["pseudo_sketches"](test.photos / 255, dials))[test.photo_index.numpy()]
    more = [(made[kinds == kind] / drawn[kinds == kind]).mean() for kind in np.unique(kinds)]
    assert dict(zip(np.unique(kinds), more, strict=True))["pattern left out"] == max(more)


def test_every_published_percentage_is_a_whole_number_of_97():
    for row in published.results("ChairV1").itertuples():
        assert abs(row.acc1 * 97 / 100 - round(row.acc1 * 97 / 100)) < 0.02


def test_even_the_narrowest_interval_is_several_points_wide(page):
    assert min(found.high - found.low for found in page["lines"].values()) > 4


def test_only_the_methods_of_2016_and_2017_lie_apart_from_people_and_below(page):
    lines, people = page["lines"], page["people"]
    below = {name for name, found in lines.items() if found.high < people.low}
    assert below == {"Triplet-SN (CVPR 2016)", "DSSA (ICCV 2017)"}
    assert not [name for name, found in lines.items() if found.low > people.high]
    assert page.printed["07-44"].count("apart from people") == 2


def test_the_interval_of_the_method_above_the_people_overlaps_theirs(page):
    people = page["people"]
    above = [found for found in page["lines"].values() if found.hits > people.hits + 2]
    assert above
    assert all(found.low < people.high for found in above)


def test_the_best_interval_lies_apart_from_people_on_one_of_the_two_other_tables():
    apart = {}
    for name in ("ShoeV1", "HandbagV1"):
        rows = {row.method: row for row in published.results(name).itertuples()}
        found = {m: accuracy_of(round(r.acc1 * r.queries / 100), r.queries) for m, r in rows.items()}
        apart[name] = found["Photo Pre-Training"].low > found["people"].high
        assert found["people"].percent < 70
    assert apart == {"ShoeV1": False, "HandbagV1": True}

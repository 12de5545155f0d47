"""What notebook 2 says of its figures: of the shipped run, and of what is computed without a training."""

import math

import numpy as np
import pytest
from tools.cells import Page

TERMS = ["loss_multi", "loss_inter", "loss_intra_sketch", "loss_intra_photo"]


@pytest.fixture(scope="module")
def page(notebooks):
    """Without the training, and without the cell that lists what it left behind."""
    return Page("02_train", notebooks, skip=lambda source: "panel" in source or "rglob" in source)


def test_the_loss_of_s1_by_hand(page):
    losses = page["losses"](1.0)
    assert losses[0] == pytest.approx(0.93, abs=0.005)
    assert -math.log(2.72 / 6.87) == pytest.approx(losses[0], abs=0.005)


def test_p4_has_the_largest_loss_and_s4_fares_better_with_the_same_cosine(page):
    for temperature in (1.0, 0.07):
        losses = dict(zip(page["names"], page["losses"](temperature), strict=True))
        assert max(losses, key=losses.get) == "p4"
        assert losses["s4"] < losses["p4"] - 0.1
    assert page["cosine"].loc["p4", ["s3", "p3"]].min() > page["cosine"].loc["p4", "s4"] + 0.3


def test_at_temperature_1_even_the_perfect_pairs_have_a_loss_of_about_1(page):
    perfect = page["losses"](1.0)[[0, 1, 2, 4, 5, 6]]
    assert np.abs(perfect - 1).max() < 0.25


def test_at_a_low_temperature_nearly_all_of_the_mean_is_p4s(page):
    losses = page["losses"](0.07)
    assert losses[7] / losses.sum() > 0.85
    assert page["losses"](0.01)[7] / page["losses"](0.01).sum() > 0.99


def test_at_a_high_temperature_all_rows_have_about_the_same_loss(page):
    losses = page["losses"](10.0)
    assert losses.max() < 1.1 * losses.min()


def test_mstr_has_nearly_as_many_weights_as_an_encoder(page):
    counts = [sum(w.numel() for w in page[name].parameters()) for name in ("recycling", "model")]
    assert 0.8 < counts[0] / (counts[1] / 2) < 1
    assert list(page["recycling"].cells_by_scale) == [64, 16, 4]


def test_multi_and_inter_begin_near_knowing_nothing_and_the_intra_terms_lower(page):
    first = page["history"].iloc[0]
    nothing = math.log(2 * page["shipped"].config.optim.batch_size - 1)
    assert (first[TERMS[:2]] > 0.9 * nothing).all()
    assert (first[TERMS[:2]] < 1.1 * nothing).all()
    assert first[TERMS[2:]].max() < first[TERMS[:2]].min()


def test_at_the_end_the_intra_terms_are_lowest_and_inter_is_highest(page):
    last = page["history"][TERMS].tail(3)
    assert (last[TERMS[2:]].max(axis=1) < last[TERMS[:2]].min(axis=1) / 2).all()
    assert (last["loss_inter"] > 1.1 * last["loss_multi"]).all()


def test_the_recycling_terms_are_flat_lines_near_zero(page):
    assert page["history"].filter(like="recyc").to_numpy().max() < 0.2


def test_more_places_find_more_photos(page):
    history = page["history"]
    assert (history["val_acc@1"] <= history["val_acc@5"]).all()
    assert (history["val_acc@5"] <= history["val_acc@10"]).all()


def test_the_held_out_score_jumps_at_first_and_is_flat_at_the_end(page):
    steps = page["history"]["val_acc@1"].diff()
    assert steps.min() < -5
    assert steps.tail(2).abs().max() < 2


def test_the_loss_falls_to_a_quarter_where_the_score_stays_and_stays_where_it_rises(page):
    epoch = page["history"].set_index("epoch")
    loss, score = epoch["loss_multi"], epoch["val_acc@1"]
    assert loss[20] / loss[8] == pytest.approx(0.25, abs=0.03)
    assert abs(score[20] - score[8]) < 2
    assert loss[26] / loss[20] > 0.8
    assert score[26] > score[20] + 3


def test_the_held_out_score_is_much_higher_than_the_test_score(page):
    assert page["ends"] > page["scores"].accuracy[1].percent + 10


def test_the_more_photos_are_searched_the_fewer_are_found_first(page):
    found = page["by_count"]
    assert found.is_monotonic_decreasing
    assert found.index[0] == len(page["held"].photos) == 38


def test_among_as_many_photos_the_two_scores_nearly_meet(page):
    found, test = page["by_count"].iloc[0], page["scores"].accuracy[1].percent
    assert abs(page["ends"] - found) < (page["ends"] - test) / 3


def test_test_photos_have_their_twins_beside_them_and_held_out_photos_do_not(page):
    printed = page.printed["02-24e"].splitlines()
    assert printed[0].startswith("held out: 0 of 38 ")
    assert printed[1].startswith("test: 36 of 120 ")


def test_taking_out_twins_raises_the_score_by_more_than_taking_out_as_many_photos(page):
    alone, found = page["alone"], page["found_first"]
    assert found(alone) > page["mean_of_draws"](alone.sum()) + 1.5


def test_the_seed_alone_moves_a_score_by_several_points(page):
    assert page["seeds"].max() - page["seeds"].min() > 5

"""What notebooks 5a and 5b say of their figures and numbers, on what the pages compute."""

import numpy as np
import pytest
import torch
from tools.cells import Page


@pytest.fixture(scope="module")
def model(notebooks):
    """Notebook 5a: what changes the model."""
    return Page("05a_paper_and_code", notebooks)


@pytest.fixture(scope="module")
def reported(notebooks):
    """Notebook 5b: what changes the scores."""
    return Page("05b_paper_and_scores", notebooks)


# 1


def test_over_the_tokens_an_embedding_does_not_turn(model):
    assert max(model["turned"][name].max() for name in ("tokens, w = 0.1", "tokens, w = 1")) < 0.05


def test_over_the_batch_each_set_of_batch_mates_makes_another_embedding(model):
    turned = model["turned"]
    assert 0.2 < turned["batch, w = 0.1"].min() <= turned["batch, w = 0.1"].max() < 3
    assert np.ptp(turned["batch, w = 1"]) > 0.5


def test_the_recycled_feature_turns_a_good_part_of_the_way_to_another_sketch(model):
    name = "batch, w = 1"
    assert 0.2 < np.median(model["turned"][name]) / model["nearest"][name] < 0.7


def test_the_batch_size_changes_ranks_only_with_attention_over_the_batch(model):
    assert model["depend"]["tokens"] <= 3
    assert model["depend"]["batch"] > 40


# 2


def test_two_evaluations_disagree_with_dropout_and_agree_without(model):
    assert np.mean(model["first"] != model["second"]) > 0.3
    again = int(model.printed["05-13d"].split(": ")[1].split()[0])
    assert again <= 3


def test_a_loaded_model_has_other_transformers(model):
    assert model.printed["05-13"].startswith("0 weights of the transformers in the file")
    assert "model.training is False, that of its first transformer True" in model.printed["05-13"]
    assert np.mean(model["quiet"] != model["other"]) > 0.25


# 3


def test_33_million_parameters_are_not_seen(model):
    counts = [[int(word.replace(",", "")) for word in line.split() if word[0].isdigit()]
              for line in model.printed["05-17"].splitlines()]  # fmt: skip
    assert [round(inside / 1e6, 1) for inside, _ in counts] == [33.1, 33.1]
    assert counts[0][1] > 33e6
    assert counts[1][1] < 1000


def test_all_parts_move_but_the_hidden_transformers(model):
    trained, hidden = (np.array(model["moved"][f"registered={kind}"]) for kind in (True, False))
    assert (trained > 0.05).all()
    assert hidden[1] == 0
    assert (np.delete(hidden, 1) > 0.05).all()
    np.testing.assert_allclose(np.delete(hidden, 1), np.delete(trained, 1), rtol=0.2)
    assert trained.max() < 1


def test_the_loss_falls_in_both_lines(model):
    for losses in model["losses"].values():
        assert losses[-1] < losses[0] - 0.7


# 4


def test_the_topmost_coloured_strip_goes_on_at_the_left_of_the_next_line(model):
    strips = model["cells"]["strips, scale 2"]
    assert np.argwhere(strips == strips[2, 13]).tolist() == [[2, 12], [2, 13], [3, 0], [3, 1]]


def test_a_strip_of_49_is_three_and_a_half_lines_and_a_window_is_a_square(model):
    for name, lines, columns in (("strips", 4, 14), ("windows", 7, 7)):
        cell = np.argwhere(model["cells"][f"{name}, scale 7"] == 0)
        assert len(cell) == 49
        assert np.ptp(cell, axis=0).tolist() == [lines - 1, columns - 1]


# 5


def test_the_released_map_alone_is_asymmetric(model):
    uneven = {name: int((values != values.T).sum()) for name, values in model["maps"].items()}
    assert uneven == {"overlap of windows": 0, "overlap of strips": 0, "released": 110}


def test_the_released_map_has_an_empty_side_and_runs_that_overlap(model):
    pooled = model["maps"]["released"][-53:, -53:]
    assert not pooled[:49, 49:].any()
    runs = pooled[49:, :49] > 0
    assert runs.any(dim=0).all()
    assert (runs.sum(dim=0) > 1).any()
    assert set(pooled[49:, :49].unique().tolist()) == {0, 0.5}
    assert len(model["maps"]["overlap of strips"][-4:, -53:-4].unique()) > 2


def test_the_slips_hardly_move_the_loss(model):
    right, released = model["right"], model["released"]
    alike = [(1 - wanted).square().mean().item() for wanted in (right, released)]
    assert 0 < (right - released).square().mean() < 1e-3
    assert abs(alike[0] - alike[1]) < 1e-3


# 6


def test_a_dot_product_depends_on_the_length_and_a_cosine_does_not(model):
    cosine, dot = model["by_length"]["cosine"], model["by_length"]["dot"]
    assert np.ptp(cosine) < 1e-3
    assert dot[0] * 10 < dot[1] < dot[2] / 10


# 7


def test_doubles_are_no_rare_accident_and_commoner_in_larger_batches(model):
    assert model["doubled"][16] > 0.1
    assert model["doubled"][32] > 2 * model["doubled"][16]


def test_a_perfect_model_is_punished_without_the_mask(model):
    assert model["unmasked"] == pytest.approx(np.log(3) / 8, abs=0.002)
    assert model["masked"] < 0.001


# 8


def test_white_is_1_either_way_and_black_minus_1_or_0(reported):
    released, normal = reported["sketches"], reported["as_expected"]
    assert (released.min(), released.max()) == (0, 1)
    assert (normal.min().item(), normal.max().item()) == pytest.approx((-1, 1), abs=1e-4)


def test_a_scaler_alone_computes_in_fp32(reported):
    assert reported["scaled"] == torch.float32
    assert reported["cast"] == torch.bfloat16


# 9


def test_photos_of_two_shapes_are_squares_in_training_and_here_and_cannot_be_stacked_in_evaluation(reported):
    shapes = {name: [tuple(image.shape[1:]) for image in images] for name, images in reported["ways"].items()}
    assert shapes["training"] == shapes["here"] == [(224, 224)] * 2
    (tall, wide) = shapes["evaluation"]
    assert min(tall) == min(wide) == 224
    assert tall[0] > tall[1]
    assert wide[1] > wide[0]
    assert "torch.stack(evaluated): stack expects each tensor to be equal size" in reported.printed["05-39"]


# 10


def test_a_perfect_model_scores_nothing_once_the_labels_are_off_by_one(reported):
    hits = [accuracy.hits for accuracy in reported["results"].values()]
    queries = len(reported["sketches"])
    assert hits[0] == queries
    assert hits[1] == 0
    assert hits[2] < 0.05 * queries


# 11


def test_the_star_is_about_five_points_above_the_bar(reported):
    assert reported["highest"] == pytest.approx(75.4, abs=0.1)
    assert reported["highest"] - reported["tail"].mean() == pytest.approx(5, abs=0.5)


def test_late_in_training_the_score_hardly_rises_but_moves_by_a_point_or_two(reported):
    means = reported["means"]["ARNet+MSTR"]
    assert means.loc[500] - means.loc[250] < 2
    assert 1 < reported["spread"] < 2


def test_choosing_lifts_the_reported_score_and_not_the_fresh_one(reported):
    luck = reported["luck"].mean()
    assert 3 < luck.reported - luck.typical < 6
    assert abs(luck.fresh - luck.typical) < 1


def test_the_published_best_lies_where_such_luck_puts_it(reported):
    low, high = reported["luck"].reported.quantile([0.1, 0.9])
    assert low < reported["highest"] < high


def test_the_gap_of_two_bests_is_less_than_the_points_of_luck(reported):
    luck = reported["luck"]
    assert reported["published_gap"] < (luck.reported - luck.typical).mean() - 1


def test_the_gap_is_beyond_luck_if_the_same_queries_are_hard_and_everyday_if_others_are(reported):
    luck, gap = reported["luck"], reported["published_gap"]
    assert (luck.reported - luck.same).abs().quantile(0.95) < gap - 0.3
    assert (luck.reported - luck.other).abs().quantile(0.3) < gap
    assert gap < (luck.reported - luck.other).abs().quantile(0.8)


def test_the_sign_of_the_difference_changes_and_the_last_three_rows_favour_mstr(reported):
    difference = reported["means"]["difference"].loc[250:]
    assert (np.sign(difference).diff().iloc[1:3] != 0).all()
    assert len(difference) == 6
    assert (difference.iloc[-3:] > 0.5).all()


# 12


def test_a_pattern_of_one_character_leaves_drawings_out(reported):
    lines = [line.split() for line in reported.printed["05-51b"].splitlines()]
    found = [int(line[line.index("found,") - 1]) for line in lines]
    assert found[:2] == [12, 9]
    assert found[2] == len(reported["sketches"])
    assert found[3] == 0


def test_the_two_intervals_overlap_by_less_than_a_point(reported):
    some, everything = reported["scores"]
    assert 0 < everything.high - some.low < 1
    assert some.percent - everything.percent == pytest.approx(10, abs=0.5)

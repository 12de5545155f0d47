"""What notebook 4 says of its figures holds for the shipped model."""

import pytest
import torch
from tools.cells import Page

from sbirlib import paired_bootstrap


@pytest.fixture(scope="module")
def page(notebooks):
    return Page("04_attention_and_tokens", notebooks)


@pytest.fixture(scope="module")
def asked_by_cls(page):
    """Share of the favourite patch (layer, sketch, head), and of blank paper."""
    read = page["read"]
    return read.amax(dim=(3, 4)), (read * page["blank"][:, None]).sum(dim=(3, 4))


def test_cls_puts_most_of_its_attention_on_one_patch_in_the_last_layer_and_less_in_the_first(asked_by_cls):
    first, last = asked_by_cls[0].mean(dim=(1, 2))
    assert asked_by_cls[0][1].mean(dim=0).min() > 0.55
    assert last > first + 0.15


def test_each_head_of_the_last_layer_has_another_favourite(page):
    favourites = page["read"][-1].flatten(2).argmax(dim=2)
    different = torch.tensor([len(set(sketch.tolist())) for sketch in favourites])
    assert (different == page["heads"]).float().mean() > 0.6


def test_a_patch_that_asks_spreads_its_attention_more_than_cls(page, asked_by_cls):
    asked_by_patch = page["by_patches"].amax(dim=4).mean(dim=(1, 3))
    assert (asked_by_patch < asked_by_cls[0].mean(dim=1) - 0.1).all()


def test_some_heads_read_paper_nearly_always_and_others_mostly_strokes(page, asked_by_cls):
    paper = asked_by_cls[1].mean(dim=1).flatten()
    assert page["blank"].float().mean() < 0.47
    assert (paper > 0.9).any()
    assert (paper < 0.4).any()


def test_rollout_is_flatter_than_either_layer(page):
    *layers, rolled_out = page["maps"].values()
    for layer in layers:
        assert rolled_out.max() < 0.6 * layer.max()
        assert rolled_out.min() > 2 * layer.min()


def test_skip_connections_hand_cls_itself_only_and_the_rest_reaches_the_least_patch_through_others(page):
    tables = page["attention"].maps[:, 0].mean(dim=1)
    rolled_out = page["rolled_out"].flatten()
    through_others = (tables[1] @ tables[0])[0, 1:] / 4
    least = rolled_out.argmin()
    assert through_others[least] > 0.7 * rolled_out[least]
    assert 0.7 < rolled_out.sum() < 0.76


def test_all_heads_look_half_the_picture_far(page):
    assert 48 < page["even"] < 52
    assert (page["distances"]["distance"] - page["even"]).abs().max() < 5
    assert page["variances"]["distance"].max() < 6


def test_a_head_that_reads_a_corner_alone_lies_far_above_the_line(page):
    corner = torch.zeros_like(page["attention"].maps)
    corner[..., 1] = 1
    distance = page["attention_distance"](page["attention"]._replace(maps=corner), 96)
    assert (distance > 1.2 * page["even"]).all()


def test_single_patches_bring_most_windows_of_two_most_each_and_the_coarsest_least(page):
    shares = page["recycling_shares"](page["model"].sketch_encoder, page["data"].sketches / 255)
    whole = [cells.sum(dim=(1, 2)).mean() for cells in shares]
    each = [scale / cells[0].numel() for scale, cells in zip(whole, shares, strict=True)]
    assert whole[0] > whole[1] + 0.1
    assert whole[1] > whole[2] + 0.1
    assert each[1] > 1.3 * each[0]
    assert each[2] < 0.9 * each[0]
    signs = torch.cat([cells.flatten() for cells in page["shares"]]).sign()
    assert {-1, 1} <= set(signs.tolist())


def test_at_scale_one_the_garment_brings_more_than_the_paper_and_paper_counts(page):
    assert 0.2 < page["on_paper"] < page["paper"].float().mean() - 0.05


def test_the_variance_rises_after_recycling(page):
    for variance in page["recycling_variance"](page["model"], page["data"]).values():
        assert variance.after > variance.before + 0.003
    assert page["after"].var(correction=0) > page["before"].var(correction=0) + 0.003


def test_no_blocks_but_neighbours_are_alike(page):
    for table in (page["before"], page["after"]):
        others = table[~torch.eye(len(table), dtype=bool)].mean()
        for steps, neighbours in ((1, 56), (8, 56)):
            near = table.diagonal(steps)
            near = near[torch.arange(len(near)) % 8 < 7] if steps == 1 else near
            assert len(near) == neighbours
            assert near.mean() > others + 0.04


def test_two_patches_of_the_garment_are_a_little_more_alike_and_less_so_afterwards(page):
    before, after = page["every"]
    within = []
    for tokens in (before, after):
        cosines = page["token_similarity"](tokens)
        across, garment = (cosines[page["both"] == count].mean() for count in (1, 2))
        assert across + 0.04 < garment < 0.6
        within.append(garment)
    assert within[1] < within[0] - 0.01


def hits(curve):
    return [found.hits for found in curve.accuracy]


def test_without_half_of_the_tokens_the_search_suffers_at_the_input_and_hardly_at_the_output(page):
    half, whole = page["few"].index(0.5), page["few"].index(1.0)
    at_input, at_output = (hits(page["random"][place]) for place in ("input", "output"))
    assert 0.35 < at_input[half] / at_input[whole] < 0.6
    assert at_output[half] / at_output[whole] > 0.9
    assert (page["random"]["input"].ranks[half] > 5).mean() > 0.2


@pytest.fixture(scope="module")
def rules(page):
    return page["by_rule"]


def test_every_rule_costs(rules):
    for curve in rules.values():
        found = hits(curve)
        assert all(fewer < found[-1] - 8 for fewer in found[:-1])


def test_attention_is_the_best_to_keep_and_the_other_rules_are_alike_with_a_tenth(page, rules):
    best = hits(rules["attention"])
    others = [hits(curve) for rule, curve in rules.items() if rule != "attention"]
    for other in others:
        assert all(one > two + 10 for one, two in zip(best[:-1], other[:-1], strict=True))
    tenth = [found[page["few"].index(0.1)] for found in others]
    assert max(tenth) - min(tenth) < 8


def test_attention_keeps_mostly_paper_and_the_recycled_share_keeps_most_strokes(page):
    kept = {}
    for rule in page["rules"]:
        scores = page["token_scores"](page["encoder"], page["data"].sketches / 255, rule)
        places = page["kept_places"](scores, 0.3)
        kept[rule] = page["paper"].flatten(1).gather(1, places).float().mean()
    assert kept["attention"] > 0.55
    assert all(kept["recycling"] < paper - 0.05 for rule, paper in kept.items() if rule != "recycling")


def test_norm_and_random_differ_though_their_bands_overlap_and_recycling_gains_nothing(page, rules):
    at = page["few"].index(0.3)
    assert rules["random"].accuracy[at].high > rules["norm"].accuracy[at].low + 0.3
    norm, recycling = (
        paired_bootstrap(rules["random"].ranks[[at]], rules[rule].ranks[[at]], page["photo_of"])
        for rule in ("norm", "recycling")
    )
    assert norm.low > 0.5
    assert recycling.low < -2 < 2 < recycling.high


def test_cls_alone_is_level_and_the_recycled_line_close_to_it_with_no_difference_shown(page):
    alone, recycled = page["alone"], page["random"]["output"]
    assert len(set(hits(alone))) == 1
    assert max(abs(one - two) for one, two in zip(hits(alone), hits(recycled), strict=True)) < 20
    for at in (page["few"].index(0.05), page["few"].index(1.0)):
        found = paired_bootstrap(alone.ranks[[at]], recycled.ranks[[at]], page["photo_of"])
        assert found.low < -0.5
        assert found.high > 0.5

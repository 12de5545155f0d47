"""Part-SBIR: the plan against scipy's assignment and plain loops, its invariances, and pair scores."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from tools.batches import batch_of, images, loss_of

from sbirlib.config.methods import PartSBIRConfig
from sbirlib.layers.backbone import block_means
from sbirlib.layers.weights import BackboneError
from sbirlib.methods import PartSBIR
from sbirlib.methods.part_sbir import adjacency_difference, importance, sinkhorn


def model_of(backbone="sbir_mini", *, image_size=48, **settings):
    torch.manual_seed(0)
    config = PartSBIRConfig(**settings)
    return PartSBIR(backbone, image_size=image_size, pool="mean", share_encoders=True, options=config)


def rows(*shape, seed=0):
    """Regions, partly with dot products below zero."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + 0.1


MODEL = model_of()


def by_hand(u, v, epsilon=0.05, iterations=50):
    """Transport distance and adjacency difference of regions (m, d) and (n, d), entry by entry."""
    u, v = u.double().numpy(), v.double().numpy()
    s, d = (np.maximum(one @ two.mean(0), 0) + 1e-3 for one, two in ((u, v), (v, u)))
    s, d = s / s.sum(), d / d.sum()
    similarity = np.array([[np.corrcoef(one, two)[0, 1] for two in v] for one in u])
    kernel, columns = np.exp((similarity - 1) / epsilon), np.ones(len(v))
    for _ in range(iterations):
        columns = d / (kernel.T @ (s / (kernel @ columns)))
    plan = s[:, None] * kernel * columns / (kernel @ columns)[:, None]
    shares, sketch, photo = plan / plan.sum(1, keepdims=True), np.corrcoef(u), np.corrcoef(v)
    seen = np.einsum("ik,kl,jl->ij", shares, photo, shares)
    return ((1 - similarity) * plan).sum(), (np.outer(s, s) * (sketch - seen) ** 2).sum()


def test_the_plan_is_an_assignment_where_weights_are_uniform_and_entropy_vanishes():
    even = torch.full((9,), 1 / 9, dtype=torch.float64)
    for seed in range(2):
        u, v = (torch.nn.functional.normalize(rows(9, 12, seed=seed + k).double(), dim=1) for k in (0, 10))
        cost = 1 - u @ v.T
        plan = sinkhorn(cost, even, even, epsilon=2e-3, iterations=2000)
        best = cost.numpy()[linear_sum_assignment(cost.numpy())].mean()
        assert (cost * plan).sum().item() == pytest.approx(best, abs=2e-3)


def test_rows_and_columns_of_the_plan_add_up_to_the_weights():
    u, v = rows(5, 9, 64), rows(5, 9, 64, seed=1)
    match = MODEL.match(u, v)
    torch.testing.assert_close(match.plan.sum(dim=2), importance(u, v), atol=1e-5, rtol=0)
    torch.testing.assert_close(match.plan.sum(dim=1), importance(v, u), atol=1e-5, rtol=0)
    # A plan costs less than sending everything everywhere.
    cost = torch.rand(5, 9, 9)
    plan = sinkhorn(cost, importance(u, v), importance(v, u), epsilon=0.05, iterations=1000)
    torch.testing.assert_close(plan.sum(dim=1), importance(v, u), atol=1e-5, rtol=0)
    independent = importance(u, v)[:, :, None] * importance(v, u)[:, None]
    assert ((cost * plan).sum(dim=(1, 2)) < (cost * independent).sum(dim=(1, 2))).all()


def test_a_pair_is_compared_as_by_hand():
    sketches, photos = rows(3, 9, 16), rows(3, 9, 16, seed=1)
    match = MODEL.match(sketches, photos)
    distance, adjacency = zip(*map(by_hand, sketches, photos), strict=True)
    assert match.distance.tolist() == pytest.approx(distance, abs=1e-4)
    found = adjacency_difference(sketches, photos, match)
    assert found.tolist() == pytest.approx(adjacency, abs=1e-4)


def test_the_loss_is_a_loop_over_rows_with_their_own_photo_and_one_other():
    ids = torch.tensor([0, 1, 2, 0, 3])
    batch = batch_of([torch.zeros(5)] * 4, ids, seed=7)
    sketches, photos = rows(5, 9, 16), rows(5, 9, 16, seed=1)
    terms = np.zeros(2)
    for row in range(5):
        candidates = [other for other in range(5) if ids[other] != ids[row]]
        negative = candidates[int(batch.numbers[row, 1] * len(candidates))]
        near, far = (np.array(by_hand(sketches[row], photos[place])) for place in (row, negative))
        terms += np.maximum(0, 0.2 + near - far) / 5
    found = model_of(adjacency=0.5).compare({"sketch": sketches, "photo": photos}, batch)
    assert found["transport"].item() == pytest.approx(terms[0], abs=1e-4)
    assert found["adjacency"].item() == pytest.approx(terms[1], abs=1e-4)
    assert found["total"].item() == pytest.approx(terms[0] + 0.5 * terms[1], abs=1e-4)
    alone = batch_of([torch.zeros(2)] * 4, [5, 5])
    assert MODEL.compare({"sketch": sketches[:2], "photo": photos[:2]}, alone)["total"] == 0


def test_a_picture_is_at_no_distance_from_itself():
    x = rows(4, 9, 16)
    exact = model_of(epsilon=2e-3, iterations=1000)
    near = exact.score(x, x)
    torch.testing.assert_close(near.diagonal(), torch.zeros(4), atol=1e-4, rtol=0)
    assert near.masked_fill(torch.eye(4, dtype=torch.bool), -1).max() < -0.1
    match = exact.match(x, x)
    assert adjacency_difference(x, x, match).max() < 1e-3


def test_the_score_is_a_distance_that_no_order_of_regions_changes():
    sketches, photos = rows(5, 9, 16), rows(7, 9, 16, seed=1)
    scores = MODEL.score(sketches, photos)
    assert -2 <= scores.min() < scores.max() <= 0
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    for turned in (MODEL.score(sketches[:, order], photos), MODEL.score(sketches, photos[:, order])):
        torch.testing.assert_close(turned, scores)


def test_pairs_are_scored_in_blocks_and_equal_photos_equally(monkeypatch):
    sketches, photos = rows(18, 4, 8), rows(270, 4, 8, seed=1)
    photos[[3, 261]] = photos[100].clone()
    scores, seen, match = MODEL.score(sketches, photos), [], MODEL.match
    one_by_one = torch.stack([-match(s.double(), photos.double()).distance for s in sketches])
    torch.testing.assert_close(scores, one_by_one.float(), atol=1e-6, rtol=0)
    assert torch.equal(scores[:, 3], scores[:, 100])
    assert torch.equal(scores[:, 261], scores[:, 100])
    monkeypatch.setattr(MODEL, "match", lambda s, p: seen.append((s.shape, p.shape)) or match(s, p))
    MODEL.score(sketches, photos)
    # Once for each block of 16 sketches and 256 photos, as if for one pair.
    assert seen == [((4, 8), (4, 8))] * 4


def test_the_published_cost_favours_the_least_similar_regions():
    sketch, photo = rows(6, 9, 16).abs(), rows(6, 9, 16, seed=1).abs()
    right, published = MODEL.match(sketch, photo), model_of(cost="published").match(sketch, photo)
    assert (published.distance > right.distance + 0.1).all()
    # What is least similar of all takes part in it.
    worst = np.array([[[np.corrcoef(a, b)[0, 1] for b in v] for a in u]
                      for u, v in zip(sketch, photo, strict=True)]).reshape(6, -1).argmin(axis=1)  # fmt: skip
    at_worst = [plan.flatten(1)[range(6), worst] for plan in (right.plan, published.plan)]
    assert (at_worst[1] > 10 * at_worst[0]).all()


def test_rows_are_means_of_regions_as_wide_as_the_map_of_a_cnn_that_is_cut():
    cut = {"image_size": 48, "stride": 16, "pool": "grid", "cells": 2}
    model, batch = PartSBIR("resnet18", **cut).eval(), batch_of(images(4, 2, 3, 48, 48))
    found = model.encode(batch)
    assert {name: row.shape for name, row in found.items()} == dict.fromkeys(found, (2, 9, 256))
    patches = model.photo_encoder.backbone(batch.photo).patches
    torch.testing.assert_close(found["photo"], block_means(patches, 3))


def test_everything_learns():
    model = model_of()
    loss_of(model, batch_of(images(4, 6, 3, 48, 48))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_regions_without_a_direction_have_a_finite_gradient():
    same = torch.ones(2, 4, 8, requires_grad=True)
    loss = MODEL.compare({"sketch": same, "photo": same}, batch_of([torch.zeros(2)] * 4))["total"]
    loss.backward()
    assert loss.isfinite()
    assert same.grad.isfinite().all()


def test_regions_finer_than_the_grid_are_refused():
    words = r"part_sbir\.regions = 5: the map of 'sbir_mini' has 4 x 4 tokens; choose 1 to 4"
    with pytest.raises(BackboneError, match=words):
        model_of(regions=5)

"""CMHM-SBIR: co-attention and merging against plain loops, what a merge may depend on, and pair scores."""

import math

import pytest
import torch
from tools.batches import batch_of, images, loss_of
from torch.nn import functional as F

from sbirlib.config.methods import CMHMConfig
from sbirlib.layers.backbone import BackboneError
from sbirlib.layers.chance import drawing
from sbirlib.methods import CMHM
from sbirlib.methods.cmhm import PairNetwork


def model_of(**settings):
    torch.manual_seed(0)
    options = CMHMConfig(hidden=5, **settings)
    model = CMHM("sbir_mini", image_size=48, pool="mean", share_encoders=True, embed_dim=8, options=options)
    # As if it had learnt something, so that every part counts.
    for weight in model.network.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return model


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


MODEL = model_of().eval()
NETWORK = MODEL.network


def attended(v, t, look_v, look_t, update):
    """Rows v (m, e) after a look at t (n, e), one number at a time."""
    out = torch.zeros_like(v)
    for i, row in enumerate(v):
        weights = [math.exp(look_v(row) @ look_t(other) / math.sqrt(5)) for other in t]
        seen = sum(w * other for w, other in zip(weights, t, strict=True)) / sum(weights)
        gated = torch.stack([(x + y) / (1 + math.exp(-x * y)) for x, y in zip(row, seen, strict=True)])
        out[i] = update(gated).clamp(min=0) + row
    return out


def by_hand(v, t):
    """Squared distance of two sets of rows, and which two were merged in each round, as in the paper."""
    network, merges = NETWORK, ([], [])
    while max(len(v), len(t)) > 1:
        v, t = (
            attended(v, t, network.sketch_view, network.photo_view, network.sketch_update),
            attended(t, v, network.photo_view, network.sketch_view, network.photo_update),
        )
        sides = [list(v), list(t)]
        for side, made in zip(sides, merges, strict=True):
            if len(side) > 1:
                products = {(a, b): side[a] @ side[b] for b in range(len(side)) for a in range(b)}
                a, b = max(products, key=products.get)
                merged = network.combine(torch.cat([side[a], side[b]]))
                side[:] = [row for place, row in enumerate(side) if place not in (a, b)] + [merged]
                made.append([a, b])
        v, t = map(torch.stack, sides)
    return ((v[0] - t[0]) ** 2).sum().item(), merges


@pytest.mark.parametrize(("m", "n"), [(3, 2), (1, 4), (5, 5)])
@torch.no_grad()
def test_a_pair_is_compared_as_in_plain_loops(m, n):
    sketches, photos = rows(6, m, 8), rows(6, n, 8, seed=1)
    found = NETWORK(sketches, photos)
    assert (len(found.sketch_merges), len(found.photo_merges)) == (m - 1, n - 1)
    for pair in range(6):
        distance, merges = by_hand(sketches[pair], photos[pair])
        assert found.distance[pair].item() == pytest.approx(distance, rel=1e-4)
        for made, expected in zip(found[1:], merges, strict=True):
            assert [places[pair].tolist() for places in made] == expected


@pytest.mark.parametrize("windows", [1, 7, 14])
def test_there_is_a_round_less_than_windows(windows, monkeypatch):
    model, rounds, attend = model_of(windows=windows).eval(), [], PairNetwork.attend
    monkeypatch.setattr(PairNetwork, "attend", lambda *sides: rounds.append(sides) or attend(*sides))
    sketch, photo = model.encode(batch_of(images(4, 2, 3, 48, 48)))["sketch"], rows(2, windows, 8)
    distance = model.network(sketch, photo).distance
    assert sketch.shape == photo.shape
    assert len(rounds) == windows - 1
    if windows == 1:
        torch.testing.assert_close(distance, ((sketch - photo) ** 2).sum(dim=(1, 2)))


def test_the_order_of_rows_matters_only_because_a_merge_is_ordered():
    sketches, photos = rows(20, 5, 8), rows(20, 5, 8, seed=1)
    network = model_of().eval().network
    turned = sketches[:, [3, 0, 4, 2, 1]]
    assert not torch.allclose(network(sketches, photos).distance, network(turned, photos).distance)
    with torch.no_grad():
        network.combine.weight[:, 8:] = network.combine.weight[:, :8]
    expected = network(sketches, photos).distance
    torch.testing.assert_close(network(turned, photos).distance, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network(sketches, photos.flip(1)).distance, expected, rtol=1e-4, atol=1e-4)


def test_a_merge_in_training_is_one_choice_with_the_gradient_of_the_soft_one():
    network, x, merges = model_of().network.train(), rows(4, 8).requires_grad_(), []
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    with drawing(3):
        found = network.merge(x, merges)
    with drawing(3):
        gumbels = -torch.empty(6).exponential_().log()
    logits = torch.stack([x[a] @ x[b] for a, b in pairs])
    soft = torch.softmax(logits + gumbels, dim=0)
    chosen = int(soft.argmax())
    assert merges[0].tolist() == list(pairs[chosen])
    results = []
    for a, b in pairs:
        rest = [x[place] for place in range(4) if place not in (a, b)]
        results.append(torch.stack([*rest, network.combine(torch.cat([x[a], x[b]]))]))
    torch.testing.assert_close(found, results[chosen])
    # One-hot forward, and backward that of the mixture by the soft sample.
    weight = rows(3, 8, seed=2)
    constant = torch.stack([(result * weight).sum() for result in results])
    hard = F.one_hot(torch.tensor(chosen), 6)
    expected = torch.autograd.grad((soft * constant.detach()).sum() + (hard * constant).sum(), x)
    torch.testing.assert_close(torch.autograd.grad((found * weight).sum(), x), expected)


def test_chance_chooses_in_training_alone():
    model, batch = model_of(), batch_of(images(4, 6, 3, 48, 48))

    def loss(key):
        with drawing(key):
            return loss_of(model, batch).item()

    assert loss(1) == loss(1) != loss(2)
    model.eval()
    assert loss(1) == loss(2)


@torch.no_grad()
def test_the_loss_is_a_loop_over_rows_with_their_own_photo_and_one_other():
    ids = torch.tensor([0, 1, 2, 0, 3])
    batch = batch_of([torch.zeros(5)] * 4, ids, seed=7)
    sketches, photos, total = rows(5, 3, 8), rows(5, 3, 8, seed=1), 0.0
    for row in range(5):
        candidates = [other for other in range(5) if ids[other] != ids[row]]
        negative = candidates[int(batch.numbers[row, 1] * len(candidates))]
        near, far = (by_hand(sketches[row], photos[place])[0] for place in (row, negative))
        total += max(0, 0.2 + near - far) / 5
    found = MODEL.compare({"sketch": sketches, "photo": photos}, batch)
    assert found["total"].item() == pytest.approx(total, rel=1e-4)
    alone = batch_of([torch.zeros(5)] * 4, [5] * 5)
    assert MODEL.compare({"sketch": sketches, "photo": photos}, alone)["total"] == 0


def test_a_pair_is_scored_by_itself_in_blocks_and_never_by_chance(monkeypatch):
    sketches, photos = rows(18, 3, 8), rows(70, 3, 8, seed=1)
    photos[[3, 66]] = photos[40].clone()
    scores = MODEL.score(sketches, photos)
    one_by_one = torch.stack([-NETWORK(sketch, photos).distance for sketch in sketches])
    torch.testing.assert_close(scores, one_by_one, rtol=1e-4, atol=1e-4)
    assert torch.equal(scores[:, 3], scores[:, 40])
    assert torch.equal(scores[:, 66], scores[:, 40])
    assert not scores.requires_grad
    # A larger gallery, other queries and what the model is doing change nothing.
    torch.testing.assert_close(MODEL.score(sketches[5:7], photos[:9]), scores[5:7, :9])
    assert torch.equal(model_of().train().score(sketches, photos), scores)
    seen, forward = [], PairNetwork.forward
    monkeypatch.setattr(
        PairNetwork, "forward", lambda self, s, p: seen.append((s.shape, p.shape)) or forward(self, s, p)
    )
    MODEL.score(sketches, photos)
    # Once for each block of 16 sketches and 64 photos, as if for one pair.
    assert seen == [((3, 8), (3, 8))] * 4


def test_windows_are_means_of_the_map_of_a_cnn_that_is_cut():
    cut = {"image_size": 64, "stride": 16, "pool": "grid", "cells": 2, "embed_dim": 8}
    model, batch = CMHM("resnet18", **cut).eval(), batch_of(images(4, 2, 3, 64, 64))
    found = model.encode(batch)["photo"]
    cells = model.photo_encoder.backbone(batch.photo).patches.unflatten(1, (4, 4))
    halves = [cells[:, :2], cells[:, 2:]]
    parts = [cells, *halves, *(quarter for half in halves for quarter in (half[:, :, :2], half[:, :, 2:]))]
    expected = model.photo_encoder.embed(torch.stack([part.mean(dim=(1, 2)) for part in parts], dim=1))
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_the_two_sides_begin_alike():
    torch.manual_seed(0)
    network, pictures = PairNetwork(128, 128).eval(), rows(10, 7, 128)
    distances = network(pictures[:, None], pictures).distance
    # Half of them: the sides may merge other rows of a picture.
    others = distances.masked_fill(torch.eye(10) > 0, torch.inf)
    assert distances.diagonal().median() < others.min() / 4


def test_everything_learns():
    torch.manual_seed(0)
    model = CMHM("sbir_mini", image_size=48, pool="mean", share_encoders=True, embed_dim=8)
    loss_of(model, batch_of(images(4, 6, 3, 48, 48))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_windows_finer_than_the_grid_are_refused():
    words = r"cmhm\.windows = 14, whose cells on a side = 3: the map of 'resnet18' has 2 x 2 tokens"
    with pytest.raises(BackboneError, match=words):
        CMHM("resnet18", image_size=64, options=CMHMConfig(windows=14))

"""DSSA: the learned distance by double loops, attention with its shortcut, and the loss."""

import copy

import pytest
import torch
from tools.batches import batch_of, images, loss_of
from torch.nn.functional import normalize

from sbirlib.config.methods import DSSAConfig
from sbirlib.methods import DSSA, fingerprint
from sbirlib.methods.dssa import HOLEF


def small(backbone="sbir_mini", **options):
    torch.manual_seed(0)
    options = {"image_size": 48, "embed_dim": 8, "pool": "mean", "share_encoders": True} | options
    return DSSA(backbone, **{"options": DSSAConfig(hidden=16, noise=0.05)} | options).eval()


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture
def holef():
    torch.manual_seed(1)
    return HOLEF(6, noise=0.05)


def loops(x, y, weights):
    """D_W of two descriptors, term by term."""
    rows = zip(x.tolist(), weights.tolist(), strict=True)
    return sum((a - b) ** 2 * weight for a, row in rows for b, weight in zip(y.tolist(), row, strict=True))


def test_the_distance_is_a_dot_product_of_rows(holef):
    x, y = images(3, 6, seed=2) - 0.5, images(4, 6, seed=3) - 0.5
    found = -holef.sketch_rows(x) @ holef.photo_rows(y).T
    expected = torch.tensor([[loops(a, b, holef.weights) for b in y] for a in x])
    torch.testing.assert_close(found, expected)
    square, other = x * x @ holef.weights.sum(dim=1), y * y @ holef.weights.sum(dim=0)
    torch.testing.assert_close(square[:, None] + other - 2 * x @ holef.weights @ y.T, expected)
    # W is not symmetric: it matters who is the sketch.
    turned = -holef.sketch_rows(y) @ holef.photo_rows(x).T
    assert (turned.T - expected).abs().max() > 0.01


def test_with_the_identity_it_is_euclids_squared_distance_and_costs_nothing(holef):
    assert torch.equal(HOLEF(6).weights, torch.eye(6))
    torch.nn.init.zeros_(holef.departure)
    x, y = images(3, 6, seed=2), images(4, 6, seed=3)
    found = -holef.sketch_rows(x) @ holef.photo_rows(y).T
    torch.testing.assert_close(found, torch.cdist(x, y) ** 2, atol=1e-5, rtol=1e-5)
    assert holef.departure_norms() == 0


def test_what_it_costs_to_leave_the_identity(holef):
    away = (holef.weights - torch.eye(6)).flatten().tolist()
    expected = sum(abs(value) for value in away) + sum(value**2 for value in away) ** 0.5
    assert holef.departure_norms().item() == pytest.approx(expected, rel=1e-5)


def test_attention_with_a_shortcut_makes_a_coarse_and_a_fine_feature(model):
    encoder = model.sketch_encoder
    tokens = encoder.backbone(images(2, 3, 48, 48))
    first, _, second, _ = encoder.attention
    scores = torch.relu(tokens.patches @ first.weight.T + first.bias) @ second.weight[0]
    share = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    torch.testing.assert_close(encoder.attention(tokens.patches), tokens.patches * (1 + share[..., None]))
    torch.testing.assert_close(share.sum(dim=1), torch.ones(2))
    mean = sum(tokens.patches[:, i] * (1 + share[:, i, None]) for i in range(16)) / 16
    expected = torch.cat([normalize(encoder.embed(mean), dim=1), normalize(mean, dim=1)], dim=1)
    torch.testing.assert_close(encoder.embedding(tokens), expected, atol=1e-5, rtol=1e-5)


def test_even_attention_leaves_the_mean_as_it_is():
    model = small()
    torch.nn.init.zeros_(model.sketch_encoder.attention[2].weight)
    tokens = model.sketch_encoder.backbone(images(2, 3, 48, 48))
    fine = model.sketch_encoder.embedding(tokens)[:, 8:]
    torch.testing.assert_close(fine, normalize(tokens.patches.mean(dim=1), dim=1))


@pytest.mark.parametrize("pool", ["cls", "grid"])
def test_the_coarse_feature_pools_as_the_backbone_does(pool):
    model = small(pool=pool, cells=4)
    encoder = model.sketch_encoder
    tokens = encoder.backbone(images(2, 3, 48, 48))
    attended = encoder.attention(tokens.patches)
    whole = {"cls": tokens.cls, "grid": attended.flatten(1)}[pool]
    coarse = encoder.embedding(tokens)[:, :8]
    torch.testing.assert_close(coarse, normalize(encoder.embed(whole), dim=1), atol=1e-5, rtol=1e-5)


def test_the_loss_is_a_loop_over_rows_and_two_norms(model):
    ids = torch.tensor([0, 1, 2, 0, 3])
    pictures = images(4, 5, 3, 48, 48)
    pictures[2, 3] = pictures[2, 0]  # the same photo
    batch = batch_of(pictures, ids, seed=7)
    sketch, photo = batch.flipped(0.5)
    x, y = model.sketch_encoder(sketch), model.photo_encoder(photo)
    weights, total = model.sketch_encoder.distance.weights, 0.0
    for row in range(5):
        candidates = [other for other in range(5) if ids[other] != ids[row]]
        negative = candidates[int(batch.numbers[row, 1] * len(candidates))]
        near, far = (loops(x[row], y[place], weights) for place in (row, negative))
        total += max(0.0, 0.3 + near - far)
    terms = model.compare(model.encode(batch), batch)
    assert terms["triplet"].item() == pytest.approx(total / 5, abs=1e-4)
    away = weights - torch.eye(len(weights))
    assert terms["regular"].item() == pytest.approx(5e-4 * (away.abs().sum() + away.norm()).item(), rel=1e-4)
    assert terms["total"].item() == pytest.approx((terms["triplet"] + terms["regular"]).item())
    assert (loss_of(model, batch_of(pictures, [1] * 5)) - terms["regular"]).abs() < 1e-6


@pytest.mark.parametrize(
    "options",
    [
        {"options": DSSAConfig()},
        {"share_encoders": False, "photo_edges": True},
        {"backbone": "sketch_a_net", "image_size": 129},
    ],
)
def test_every_parameter_learns_and_two_encoders_have_one_distance(options):
    model = small(**options)
    loss_of(model, batch_of(images(4, 6, 3, *[model.image_size] * 2))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert model.photo_encoder.distance.departure is model.sketch_encoder.distance.departure


def test_a_score_is_the_negative_distance_of_one_view_or_the_mean_of_ten(model):
    ten = copy.deepcopy(model)
    ten.options = DSSAConfig(hidden=16, ten_crops=True)
    sketches, photos = images(2, 3, 48, 48, seed=1), images(3, 3, 48, 48, seed=2)
    x, y = model.sketch_encoder(sketches), model.photo_encoder(photos)
    expected = [[-loops(a, b, model.sketch_encoder.distance.weights) for b in y] for a in x]
    found = model.score(model.embed_sketches(sketches), model.embed_photos(photos))
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=1e-4)
    plain = images(2, 3, 1, 1).expand(2, 3, 48, 48)
    assert ten.embed_photos(plain).shape == (2, 10 * model.embed_photos(plain).shape[1])
    one, mean = (way.score(way.embed_sketches(plain), way.embed_photos(plain)) for way in (model, ten))
    torch.testing.assert_close(one, mean, atol=1e-4, rtol=1e-4)


def test_distances_stay_exact_where_encoders_run_in_bf16(holef):
    x, y = images(3, 6, seed=2), images(4, 6, seed=3)
    expected = -holef.sketch_rows(x) @ holef.photo_rows(y).T
    with torch.autocast("cpu", torch.bfloat16):
        rows = holef.sketch_rows(x), holef.photo_rows(y)
    assert torch.equal(-rows[0] @ rows[1].T, expected)


def test_a_gallery_is_of_one_distance(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.photo_encoder.distance.departure.add_(0.01)
    assert fingerprint(other.photo_encoder) != fingerprint(model.photo_encoder)

"""StyleMeUp: its terms in plain loops, what the step does, and what learns through it alone."""

import dataclasses
import math
from functools import partial

import pytest
import torch
from tools.batches import batch_of, images
from torch.nn import functional as F

from sbirlib.config.methods import StyleMeUpConfig
from sbirlib.data import PairFolder, edge_map
from sbirlib.data.batches import Epoch
from sbirlib.data.loading import load_split
from sbirlib.data.splits import PairError
from sbirlib.layers.chance import drawing
from sbirlib.methods import StyleMeUp
from sbirlib.methods.style_me_up import SIDE


@pytest.fixture
def model():
    torch.manual_seed(0)
    own = StyleMeUpConfig(rate=0.1, kl=0.5)
    model = StyleMeUp("sbir_mini", image_size=48, embed_dim=8, pool="mean", photo_edges=True, options=own)
    torch.nn.init.normal_(model.psi, std=0.1)
    return model


@pytest.fixture
def batch():
    """Four rows of three photos; the third sketches are others than the second ones."""
    batch = batch_of(images(4, 4, 3, 48, 48), [0, 1, 0, 2])
    return batch._replace(sketch_third=images(4, 3, 48, 48, seed=5))


def losses(model, sketches, pictures, photo, photo_picture, other):
    """The five terms of one task, without noise: features and pictures of two sketches, and of the photo."""
    size = model.embed_dim
    codes = [model.head(row).split(size) for row in (*sketches, photo, other)]
    shared, style = [code[0] for code in codes], [code[1] for code in codes]

    def apart(code, goal):
        return (model.decoder(code[None])[0] - goal).square().mean()

    def triplet(rows):
        first, second, near, far = (F.normalize(row, dim=0) for row in rows)
        return sum(F.relu(0.2 + (s - near).norm() - (s - far).norm()) for s in (first, second)) / 2

    full = [a + b for a, b in zip(shared, style, strict=True)]
    kl = [(mean**2 + var.exp() - 1 - var) / 2 for _, mean, var in codes]
    return {
        "style": (apart(shared[0] + style[1], pictures[1]) + apart(shared[1] + style[0], pictures[0])) / 2,
        "domain": (
            apart(full[0], photo_picture) + apart(full[1], photo_picture)
            + apart(full[2], pictures[0]) + apart(full[2], pictures[1])
        ) / 4,
        "kl": 0.5 * torch.stack(kl).mean(),
        "triplet": triplet(shared),
        "full_triplet": triplet(full),
    }  # fmt: skip


def test_the_loss_is_that_of_second_and_third_sketch_after_a_step_on_first_and_second(model, batch):
    model.eval()
    rows = model.encode(batch)
    found = model.compare(rows, batch)
    features, pictures = rows["features"], rows["pictures"]
    seen = edge_map(batch.photo)
    for place, view in enumerate((batch.sketch, batch.sketch_second, batch.sketch_third, seen)):
        torch.testing.assert_close(pictures[:, place], view.mean(dim=1), atol=1e-6, rtol=0)
    weights, expected = {k: v.detach().clone() for k, v in model.head.state_dict().items()}, []
    for row in range(4):
        candidates = [other for other in range(4) if batch.photo_ids[other] != batch.photo_ids[row]]
        other = features[candidates[int(batch.numbers[row, 1] * len(candidates))], 3]
        task = partial(losses, model, photo=features[row, 3], photo_picture=pictures[row, 3], other=other)
        model.head.load_state_dict(weights)
        support = sum(task(features[row, [0, 1]], pictures[row, [0, 1]]).values())
        shared = torch.cat([model.head.weight, model.head.bias[:, None]], dim=1)[:8]
        support = support + (model.psi * shared.abs()).sum()
        gradients = torch.autograd.grad(support, [model.head.weight, model.head.bias], retain_graph=True)
        with torch.no_grad():
            model.head.weight -= 0.1 * gradients[0]
            model.head.bias -= 0.1 * gradients[1]
        expected.append(task(features[row, [1, 2]], pictures[row, [1, 2]]))
    model.head.load_state_dict(weights)
    for name in model.terms[1:]:
        mean = sum(terms[name].item() for terms in expected) / 4
        assert found[name].item() == pytest.approx(mean, rel=1e-3)
    assert found["total"].item() == pytest.approx(sum(found[name].item() for name in model.terms[1:]))


def test_without_a_rate_nothing_adapts(model, batch):
    model.options = dataclasses.replace(model.options, rate=0.0)
    rows = model.eval().encode(batch)
    found = model.compare(rows, batch)
    model.options = dataclasses.replace(model.options, rate=0.1)
    other_support = rows | {"features": rows["features"].clone()}
    other_support["features"][:, 0] += 1.0
    assert model.compare(rows, batch)["total"] != found["total"]
    assert model.compare(other_support, batch)["total"] != model.compare(rows, batch)["total"]
    model.options = dataclasses.replace(model.options, rate=0.0)
    assert model.compare(other_support, batch)["total"] == found["total"]


def test_the_terms_do_not_mind_which_sketch_is_the_first(model):
    weights = {name: weight[None].expand(3, *weight.shape) for name, weight in model.head.named_parameters()}
    width = model.sketch_encoder.backbone.dim
    features, pictures, there = images(3, 4, width), images(3, 3, SIDE, SIDE), torch.ones(3)
    one = model.eval()._terms(weights, features, pictures, there)
    other = model._terms(weights, features[:, [1, 0, 2, 3]], pictures[:, [1, 0, 2]], there)
    torch.testing.assert_close(one, other)


def test_the_divergence_is_that_of_its_closed_form(model):
    model.train()
    width = model.sketch_encoder.backbone.dim
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias[8:] = torch.tensor([0.5] * 8 + [math.log(4.0)] * 8)
    weights = {name: weight[None] for name, weight in model.head.named_parameters()}
    terms = model._terms(weights, images(1, 4, width), images(1, 3, SIDE, SIDE), torch.ones(1))
    # Mean 1/2 and variance 4.
    assert terms["kl"].item() == pytest.approx(0.5 * (0.25 + 4 - math.log(4) - 1) / 2)


def test_psi_and_the_made_up_hands_learn_through_the_step_alone(model, batch, monkeypatch):
    rows = model.train().encode(batch)
    own = [model.psi, model.spreads]
    with drawing(1):
        second = torch.autograd.grad(model.compare(rows, batch)["total"], own, retain_graph=True)
    assert all(gradient.any() for gradient in second)
    # To first order the step is a constant.
    grad = torch.autograd.grad
    monkeypatch.setattr(
        torch.autograd,
        "grad",
        lambda *args, create_graph=False: [g.detach() for g in grad(*args, retain_graph=True)],
    )
    with drawing(1):
        total = model.compare(rows, batch)["total"]
    assert grad(total, own, allow_unused=True) == (None, None)


def test_everything_learns(model, batch):
    model.train().compare(model.encode(batch), batch)["total"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_chance_makes_up_hands_and_styles_in_training_alone(model, batch):
    def total(key):
        with drawing(key):
            return model.compare(model.encode(batch), batch)["total"].item()

    assert total(1) == total(1) != total(2)
    features = torch.ones(4000, 2, model.spreads.shape[1])
    with torch.no_grad():
        made_up = model._by_other_hands(features)
    assert torch.equal(made_up[:, 0], made_up[:, 1])
    # 1 + N(0, 0.3) + N(0, 0.5)
    assert made_up[:, 0].std().item() == pytest.approx(math.hypot(0.3, 0.5), rel=0.05)
    model.eval()
    assert total(1) == total(2)


@torch.no_grad()
def test_styles_are_swapped_in_pictures(model):
    first, second = images(2, 3, 3, 60, 40)
    drawn = model.eval().swapped(first, second)
    assert drawn.shape == (3, 2, SIDE, SIDE)
    torch.testing.assert_close(model.swapped(second, first), drawn.flip(1))
    shared, style, _ = model.head(model.sketch_encoder.backbone(model._square(first)).cls).chunk(3, dim=-1)
    torch.testing.assert_close(model.swapped(first, first)[:, 0], model.decoder(shared + style))
    torch.testing.assert_close(model.embed_sketches(first), F.normalize(shared, dim=-1))


def test_third_sketches_are_others_than_the_second_ones(pairs, tiny):
    data = load_split(pairs.split("train"), tiny.data, 48)
    config = dataclasses.replace(tiny.data, second_view="A0")
    plan, rows = Epoch(data, config, seed=0, epoch=1, sisters=2), torch.arange(len(data.sketches))
    batch, numbers = plan.batch(rows, "cpu"), data.photo_index.bincount()
    shown = {
        row: [i for i in rows.tolist() if torch.equal(data.sketches[i] / 255, batch.sketch_third[row])]
        for row in rows.tolist()
    }
    for row, third in shown.items():
        assert third
        assert all(data.photo_index[i] == data.photo_index[row] for i in third)
        if numbers[data.photo_index[row]] > 1:
            assert not torch.equal(batch.sketch_second[row], batch.sketch_third[row])
    assert any(row not in third for row, third in shown.items())
    assert not len(Epoch(data, config, seed=0, epoch=1, sisters=1).batch(rows, "cpu").sketch_third)


def test_photos_with_one_sketch_each_are_refused(pairs, tiny, tmp_path):
    names = {sketch.photo_id: sketch.path for sketch in pairs.split("train").sketches}
    for side in ("testA", "testB", "trainB"):
        (tmp_path / side).symlink_to(pairs.root / side)
    (tmp_path / "trainA").mkdir()
    for path in names.values():
        (tmp_path / "trainA" / path.name).symlink_to(path)
    with pytest.raises(
        PairError, match="style_me_up needs photos with two or three sketches; .* one sketch of each"
    ):
        StyleMeUp.needs.check("style_me_up", PairFolder(tmp_path), tiny)

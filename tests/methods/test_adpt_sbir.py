"""Adpt-SBIR: its loss in plain loops, its step, and what comes back through it."""

import dataclasses
import math

import pytest
import torch
from tools.batches import batch_of, images
from torch.nn import functional as F

from sbirlib.config.methods import AdptSBIRConfig
from sbirlib.data import load_split, to_float
from sbirlib.methods import AdptSBIR
from sbirlib.methods.adpt_sbir import mean_where, reversed_gradient


def model_of(**options):
    torch.manual_seed(0)
    own = AdptSBIRConfig(rate=2.0, domain=0.3, designer=0.5)
    shape = {"image_size": 48, "embed_dim": 8, "pool": "mean", "share_encoders": True}
    return AdptSBIR("sbir_mini", options=own, **(shape | options))


@pytest.fixture
def model():
    return model_of()


@pytest.fixture
def batch():
    """Seven rows of five photos by three designers, one of whom has a single sketch."""
    ids, designers = [0, 1, 0, 2, 3, 4, 4], [2, 0, 2, 0, 2, 1, 0]
    batch = batch_of(images(4, 7, 3, 48, 48), ids)
    return batch._replace(designers=torch.tensor(designers))


def triplet(head, sketch, near, far):
    """|s - p| - |s - n| of unit embeddings."""
    s, p, n = (F.normalize(head(row), dim=0) for row in (sketch, near, far))
    return (s - p).norm() - (s - n).norm()


def test_the_loss_is_that_of_each_sketch_after_a_step_on_the_others_by_its_designer(model, batch):
    rows = model.encode(batch)
    found = model.compare(rows, batch)
    sketch, photo = rows["sketch"].detach(), rows["photo"].detach()
    ids, designers, head = batch.photo_ids.tolist(), batch.designers.tolist(), model.head
    others = {row: [other for other in range(7) if ids[other] != ids[row]] for row in range(7)}
    weights, losses = {name: value.clone() for name, value in head.state_dict().items()}, []
    for query in range(7):
        head.load_state_dict(weights)
        support = [
            F.softplus(0.2 + triplet(head, sketch[row], photo[row], photo[other]), beta=10)
            for row in range(7)
            for other in others[row]
            if row != query and designers[row] == designers[query]
        ]
        if support:
            gradients = torch.autograd.grad(torch.stack(support).mean(), list(head.parameters()))
            with torch.no_grad():
                for weight, gradient in zip(head.parameters(), gradients, strict=True):
                    weight -= 2 * gradient
        with torch.no_grad():
            further = [triplet(head, sketch[query], photo[query], photo[other]) for other in others[query]]
        losses += [max(0.0, 0.2 + one.item()) for one in further]
    head.load_state_dict(weights)
    assert found["triplet"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    logits = model.discriminator(torch.cat([sketch, photo])).tolist()
    domain = [math.log1p(math.exp(one if place < 7 else -one)) for place, one in enumerate(logits)]
    assert found["domain"].item() == pytest.approx(sum(domain) / 14, rel=1e-4)
    hands = F.normalize(sketch, dim=1)
    apart = torch.cdist(hands, hands)
    by_hand = [
        max(0.0, 0.2 + (apart[a, b] - apart[a, c]).item())
        for a in range(7) for b in range(7) for c in range(7)
        if a != b and designers[a] == designers[b] != designers[c]
    ]  # fmt: skip
    assert found["designer"].item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-3)
    total = found["triplet"] + found["domain"] + 0.5 * found["designer"]
    torch.testing.assert_close(found["total"], total)


def test_without_a_rate_nothing_adapts(model, batch):
    model.options = dataclasses.replace(model.options, rate=0.0)
    rows = model.encode(batch)
    others = batch.photo_ids[:, None] != batch.photo_ids
    sketch, photo = (F.normalize(model.head(rows[name]), dim=1) for name in ("sketch", "photo"))
    apart = torch.cdist(sketch, photo)
    expected = mean_where(F.relu(0.2 + apart.diagonal()[:, None] - apart), others)
    torch.testing.assert_close(model.compare(rows, batch)["triplet"], expected)


def test_the_margin_of_the_step_is_learnt_through_it(model, batch):
    rows = model.encode(batch)
    terms = model.compare(rows, batch)
    [gradient] = torch.autograd.grad(terms["triplet"], [model.margin], retain_graph=True)
    assert gradient.isfinite()
    assert gradient != 0
    assert model.margin.sigmoid().item() == pytest.approx(0.2)
    model.options = dataclasses.replace(model.options, rate=0.0)
    [still] = torch.autograd.grad(model.compare(rows, batch)["total"], [model.margin], allow_unused=True)
    assert still is None or still == 0


def test_the_discriminators_gradient_comes_back_reversed(model, batch):
    rows = model.encode(batch)
    both = torch.cat([rows["sketch"], rows["photo"]])
    assert torch.equal(reversed_gradient(both, 0.3), both)
    is_photo = torch.arange(14) >= 7
    plain = F.binary_cross_entropy_with_logits(model.discriminator(both), is_photo.float())
    domain = model.compare(rows, batch)["domain"]
    torch.testing.assert_close(domain, plain)
    trunk, own = list(model.sketch_encoder.backbone.parameters()), list(model.discriminator.parameters())
    for parts, factor in ((trunk, -0.3), (own, 1.0)):
        found, expected = (
            torch.autograd.grad(loss, parts, retain_graph=True, allow_unused=True) for loss in (domain, plain)
        )
        for one, other in zip(found, expected, strict=True):
            if other is not None:
                torch.testing.assert_close(one, factor * other, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_a_small_step_lowers_the_loss_on_what_was_shown(pairs, tiny, seed):
    model = model_of().eval()
    data, device = load_split(pairs.split("test"), tiny.data, 48), "cpu"
    support = torch.randperm(len(data.sketches), generator=torch.Generator().manual_seed(seed))[:4]
    model.options = dataclasses.replace(model.options, rate=0.01)
    adapted = model.adapt(data, support)
    own = data.photo_index[support]
    others = own[:, None] != torch.arange(len(data.photos))

    @torch.no_grad()
    def loss(model):
        sketch = model.embed_sketches(to_float(data.sketches[support], device))
        photo = model.embed_photos(to_float(data.photos, device))
        apart = torch.cdist(sketch, photo)
        further = apart.gather(1, own[:, None]) - apart
        return mean_where(F.softplus(0.2 + further, beta=10), others).item()

    assert loss(adapted) < loss(model)


@pytest.mark.parametrize("share", [True, False])
def test_adapting_moves_the_head_of_a_copy_alone(pairs, tiny, share):
    model = model_of(share_encoders=share).eval()
    data, before = load_split(pairs.split("test"), tiny.data, 48), model.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    with torch.no_grad():
        adapted = model.adapt(data, torch.tensor([0, 3]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    moved = {name for name, value in adapted.state_dict().items() if not torch.equal(value, before[name])}
    heads = ("head.1.", "sketch_encoder.embed.1.", "photo_encoder.embed.1.")
    assert moved == {head + part for head in heads for part in ("weight", "bias")}
    assert adapted.photo_encoder.embed is adapted.sketch_encoder.embed
    nothing = model.adapt(data, torch.tensor([], dtype=torch.int64))
    assert all(torch.equal(value, before[name]) for name, value in nothing.state_dict().items())


def test_among_bf16_features_the_step_is_taken_in_full_precision(pairs, tiny):
    model, data = model_of().eval(), load_split(pairs.split("test"), tiny.data, 48)
    whole = model.adapt(data, torch.tensor([0, 3]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.adapt(data, torch.tensor([0, 3]))
    for before, one, other in zip(*(some.head.parameters() for some in (model, whole, half)), strict=True):
        assert other.dtype == torch.float32
        assert (other - one).norm() < 0.1 * (one - before).norm()


def test_everything_learns(model, batch):
    model.compare(model.encode(batch), batch)["total"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_batch_by_one_designer_or_of_one_photo_is_no_trouble(model, batch):
    one = batch._replace(designers=torch.zeros(7, dtype=torch.int64))
    assert model.compare(model.encode(one), one)["designer"] == 0
    alone = batch._replace(photo_ids=torch.zeros(7, dtype=torch.int64))
    terms = model.compare(model.encode(alone), alone)
    assert terms["triplet"] == 0
    terms["total"].backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)

"""B-Siamese: the triplet in closed form, a loop over rows, and a run from the first step to a search."""

import math

import pytest
import torch
from tools.batches import batch_of, images, loss_of

from sbirlib import Gallery, evaluate, load_run, train
from sbirlib.config.methods import BSiameseConfig
from sbirlib.methods import BSiamese, build
from sbirlib.runs.folder import describe


def unit(*degrees):
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([angle.cos(), angle.sin()], dim=1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return BSiamese("sbir_mini", image_size=48, embed_dim=8, pool="mean", share_encoders=True).eval()


def triplets(sketches, photos, ids, model):
    batch = batch_of([torch.zeros(len(ids))] * 4, ids)
    return model.compare({"sketch": sketches, "photo": photos}, batch)["total"].item()


# Two rows: the sketch is at 0 degrees, its own photo and the other one at these angles.
@pytest.mark.parametrize(("own", "other", "loss"), [(60, 90, 0.0), (90, 60, 0.3 + math.sqrt(2) - 1)])
def test_the_triplet_in_closed_form(model, own, other, loss):
    sketches, photos = unit(0, 0), unit(own, other)
    there_and_back = triplets(sketches, photos, [0, 1], model)
    back = max(0.0, 0.3 + 2 * math.sin(math.radians(other) / 2) - 2 * math.sin(math.radians(own) / 2))
    assert there_and_back == pytest.approx((loss + back) / 2, abs=1e-4)


def test_it_is_a_loop_over_rows_with_a_negative_of_another_photo(model):
    ids = torch.tensor([0, 1, 2, 0, 3])
    batch = batch_of([torch.zeros(5)] * 4, ids, seed=7)
    sketches, photos = (torch.nn.functional.normalize(images(5, 8, seed=s) - 0.5, dim=1) for s in (1, 2))
    photos[3] = photos[0]  # the same photo
    total = 0.0
    for row in range(5):
        candidates = [other for other in range(5) if ids[other] != ids[row]]
        negative = candidates[int(batch.numbers[row, 1] * len(candidates))]
        near, far = ((sketches[row] - photos[place]).norm().item() for place in (row, negative))
        total += max(0.0, 0.3 + near - far)
    found = model.compare({"sketch": sketches, "photo": photos}, batch)["total"].item()
    assert found == pytest.approx(total / 5, abs=1e-4)


def test_a_batch_of_one_photo_has_nothing_to_learn(model):
    assert triplets(unit(0, 10), unit(80, 80), [5, 5], model) == 0


def test_a_sketch_on_its_photo_has_a_finite_gradient(model):
    rows = unit(0, 120).requires_grad_()
    loss = model.compare({"sketch": rows, "photo": rows}, batch_of([torch.zeros(2)] * 4))["total"]
    loss.backward()
    assert rows.grad.isfinite().all()


def test_sketch_and_photo_are_flipped_together(model):
    batch = batch_of(images(4, 6, 3, 48, 48))
    rows = model.encode(batch)
    flipped = batch.numbers[:, 0] < 0.5
    assert 0 < flipped.sum() < 6
    for name, embed in (("sketch", model.embed_sketches), ("photo", model.embed_photos)):
        views = getattr(batch, name)
        expected = torch.where(flipped[:, None], embed(views.flip(-1)), embed(views))
        torch.testing.assert_close(rows[name], expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(rows[name].norm(dim=1), torch.ones(6))
    never = BSiamese("sbir_mini", image_size=48, embed_dim=8, options=BSiameseConfig(flip=0.0)).eval()
    torch.testing.assert_close(never.encode(batch)["sketch"], never.embed_sketches(batch.sketch))


def test_every_parameter_learns():
    model = BSiamese("sbir_mini", image_size=48, embed_dim=8)
    loss_of(model, batch_of(images(4, 6, 3, 48, 48))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.fixture(scope="module")
def siamese(tiny):
    return tiny.updated({"method": "b_siamese", "run.device": "cpu"})


def test_one_word_changes_the_method_and_brings_its_defaults(tiny, siamese):
    assert (siamese.method, siamese.model.share_encoders, siamese.model.embed_dim) == ("b_siamese", True, 16)
    assert siamese.model.image_size == tiny.model.image_size
    assert (
        siamese.updated({"method": "arnet"}).flat()
        == tiny.updated({"run.device": "cpu", "model.pool": "cls"}).flat()
    )
    model = build(siamese)
    assert isinstance(model, BSiamese)
    assert model.photo_encoder.backbone.encoder is model.sketch_encoder.backbone.encoder


@pytest.mark.parametrize(
    "changes",
    [{}, {"optim.chunk": 3}, {"model.share_encoders": False, "model.photo_edges": False}],
    ids=["as it is", "in chunks", "two encoders"],
)
def test_trained_stopped_resumed_scored_and_searched(siamese, pairs, tmp_path, changes):
    config = siamese.updated({"run.save_minutes": 0, **changes})
    whole = list(train(pairs, config, out=tmp_path / "whole"))
    assert all(set(record.losses) == {"total"} for record in whole)
    records = train(pairs, config, out=tmp_path / "half")
    next(records)
    records.close()
    assert len(list(train(pairs, config, out=tmp_path / "half", resume=True))) == 1
    one, two = (load_run(tmp_path / name, "last") for name in ("whole", "half"))
    assert isinstance(two, BSiamese)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    scores = evaluate(two, pairs)
    gallery = Gallery.from_folder(two, pairs.root / "testB")
    gallery.save(tmp_path / "gallery.safetensors")
    hits = Gallery.load(tmp_path / "gallery.safetensors", two).search(
        pairs.split("test").sketches[0].path, k=3
    )
    first = pairs.split("test").photos[scores.order[0, 0]]
    assert hits[0].path == first.path
    text = describe(tmp_path / "half")
    assert "half, method b_siamese" in text
    assert "mstr." not in text

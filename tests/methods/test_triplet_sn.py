"""Triplet-SN: the triplet in closed form, a loop over rows, shared weights on edge maps, ten views."""

import pytest
import torch
from tools.batches import batch_of, images, loss_of

from sbirlib import Gallery
from sbirlib.config.methods import TripletSNConfig
from sbirlib.data.splits import PairError
from sbirlib.data.transforms import edge_map, fit_square
from sbirlib.methods import TripletSN


def unit(*degrees):
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def small(**own):
    torch.manual_seed(0)
    options = {"image_size": 48, "embed_dim": 8, "pool": "mean", "share_encoders": True, "photo_edges": True}
    return TripletSN("sbir_mini", options=TripletSNConfig(hidden=16, **own), **options).eval()


@pytest.fixture(scope="module")
def model():
    return small()


def triplets(sketches, photos, ids, model, seed=0):
    batch = batch_of([torch.zeros(len(ids))] * 4, ids, seed=seed)
    return model.compare({"sketch": sketches, "photo": photos}, batch)["total"].item()


# Both sketches lie at 0 degrees. Between unit vectors at 60 and 90 degrees the squared distances are 1 and 2.
@pytest.mark.parametrize(
    ("own", "other", "loss", "back"), [(60, 90, 0.0, 1.3), (90, 60, 1.3, 0.0), (0, 60, 0.0, 1.3)]
)
def test_the_triplet_in_closed_form(model, own, other, loss, back):
    found = triplets(unit(0, 0), unit(own, other), [0, 1], model)
    assert found == pytest.approx((loss + back) / 2, abs=1e-5)


def test_it_is_a_loop_over_rows_with_a_negative_of_another_photo(model):
    ids = torch.tensor([0, 1, 2, 0, 3])
    sketches, photos = (torch.nn.functional.normalize(images(5, 8, seed=s) - 0.5, dim=1) for s in (1, 2))
    photos[3] = photos[0]  # the same photo
    batch, total = batch_of([torch.zeros(5)] * 4, ids, seed=7), 0.0
    for row in range(5):
        candidates = [other for other in range(5) if ids[other] != ids[row]]
        negative = candidates[int(batch.numbers[row, 1] * len(candidates))]
        near, far = (((sketches[row] - photos[place]) ** 2).sum().item() for place in (row, negative))
        total += max(0.0, 0.3 + near - far)
    assert triplets(sketches, photos, ids, model, seed=7) == pytest.approx(total / 5, abs=1e-5)


def test_a_batch_of_one_photo_has_nothing_to_learn(model):
    assert triplets(unit(0, 10), unit(80, 80), [5, 5], model) == 0


def test_a_photo_is_embedded_as_a_sketch_of_its_edges(model):
    photos = images(3, 3, 48, 48)
    torch.testing.assert_close(model.embed_sketches(edge_map(photos)), model.embed_photos(photos))
    assert (model.embed_sketches(photos) - model.embed_photos(photos)).abs().max() > 0.01


def test_every_parameter_learns_from_one_view_of_pictures_flipped_together():
    model = small(ten_crops=True)
    batch = batch_of(images(4, 6, 3, 48, 48))
    rows = model.encode(batch)
    flipped = batch.numbers[:, 0] < 0.5
    assert 0 < flipped.sum() < 6
    for name, encoder in (("sketch", model.sketch_encoder), ("photo", model.photo_encoder)):
        view = getattr(batch, name)
        view = torch.where(flipped[:, None, None, None], view.flip(-1), view)
        expected = torch.nn.functional.normalize(encoder(view), dim=1)
        torch.testing.assert_close(rows[name], expected, atol=1e-5, rtol=0)
    loss_of(model, batch).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_ten_views_are_searched_by_the_mean_of_their_squared_distances(model):
    ten = small(ten_crops=True)
    sketches, photos = images(2, 3, 48, 48, seed=1), images(3, 3, 48, 48, seed=2)
    size = 55  # 256/225 of 48
    corners = [(0, 0), (0, size - 48), (size - 48, 0), (size - 48, size - 48), (4, 4)]

    def views(pictures):
        large = fit_square(pictures, size, "stretch")
        ways = (large, large.flip(-1))
        return [way[..., top : top + 48, left : left + 48] for way in ways for top, left in corners]

    distance = 0.0
    for sketch, photo in zip(views(sketches), views(photos), strict=True):
        s, p = model.embed_sketches(sketch), model.embed_photos(photo)
        distance = distance + ((s[:, None] - p[None]) ** 2).sum(dim=2) / 10
    rows = ten.embed_sketches(sketches), ten.embed_photos(photos)
    assert [value.shape for value in rows] == [(2, 80), (3, 80)]
    # Unit rows again: the larger the cosine, the smaller the distance.
    torch.testing.assert_close(2 - 2 * ten.score(*rows), distance, atol=1e-5, rtol=0)


def test_ten_views_of_a_plain_picture_are_as_far_from_another_as_one(model):
    plain = images(2, 3, 1, 1).expand(2, 3, 48, 48)
    ten = small(ten_crops=True)
    # As two sketches: the edge map of either is white paper.
    found, expected = (way.score(*[way.embed_sketches(plain)] * 2) for way in (ten, model))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert expected[0, 1] < 0.99


def test_a_gallery_of_one_view_is_not_searched_with_ten(tmp_path, pairs):
    one, ten = small().eval(), small(ten_crops=True).eval()
    ten.load_state_dict(one.state_dict())
    Gallery.from_folder(one, pairs.root / "testB").save(tmp_path / "photos.safetensors")
    assert len(Gallery.load(tmp_path / "photos.safetensors", one).paths) == 8
    with pytest.raises(PairError, match="was embedded by another model"):
        Gallery.load(tmp_path / "photos.safetensors", ten)

"""Exact search: the best of all blocks, equal scores by row, as a sort would give it; rows that are kept."""

import pytest
import torch

from sbirlib import RetrievalBrowser, evaluate, load_run, load_split
from sbirlib.errors import InputError
from sbirlib.methods import build
from sbirlib.methods.base import Method
from sbirlib.retrieval.gallery import Gallery
from sbirlib.retrieval.search import embed_split, score_all

BLANK = torch.ones(3, 4, 4)


def dot(queries, gallery):
    return Method.score(None, queries, gallery)


def rows(count, size=16, seed=0):
    values = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=1)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("sbirlib.retrieval.search.ROWS", 7)
    monkeypatch.setattr("sbirlib.retrieval.search.QUERIES", 3)


class Drawn(torch.nn.Module):
    """Stands for a method whose sketches all have the row `query` (1, ...)."""

    image_size, fit = 4, "pad"

    def __init__(self, query, score=dot):
        super().__init__()
        self.query, self.score = torch.nn.Parameter(query), score

    def embed_sketches(self, images):
        return self.query


def search(query, gallery, k, score=dot):
    """The rows that a gallery finds, and their scores."""
    hits = Gallery(Drawn(query, score), list(map(str, range(len(gallery)))), gallery).search(BLANK, k)
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    return [int(hit.path.name) for hit in hits], [hit.similarity for hit in hits]


@pytest.mark.parametrize(("gallery", "k"), [(1, 1), (30, 5), (50, 50), (20, 99), (8, 3)])
def test_the_best_of_all_blocks(small_blocks, gallery, k):
    sketch, photos = rows(1, seed=1), rows(gallery, seed=2)
    found, scores = search(sketch, photos, k)
    expected = dot(sketch, photos)[0].sort(descending=True, stable=True)
    assert found == expected.indices[:k].tolist()
    assert scores == expected.values[:k].tolist()


def test_equal_scores_come_in_the_order_of_their_rows(small_blocks):
    places = [2, 0, 1, 0, 2, 0, 1, 0, 2, 1, 0, 0, 2, 1, 0, 1, 2, 0]
    found, _ = search(rows(3)[:1], rows(3)[places], 18)
    assert found[:7] == [1, 3, 5, 7, 10, 11, 14]


def test_zeros_of_either_sign_are_equal():
    photos = torch.tensor([[-0.0], [0.0], [-1.0], [-0.0]])
    assert search(torch.ones(1, 1), photos, 4, lambda q, g: q @ g.T)[0] == [0, 1, 3, 2]


def test_negative_and_tiny_scores_keep_their_order():
    values = torch.tensor([-3.5, 1e-30, -1e-30, 2.0, 0.0, -0.25])
    _, scores = search(torch.ones(1, 1), values[:, None], 6, lambda q, g: g.T.expand(len(q), -1))
    assert scores == sorted(values.tolist(), reverse=True)


def test_equal_photos_score_the_same_wherever_they_stand():
    photo, sketches = rows(1, 512, seed=3), rows(5, 512, seed=4)
    gallery = torch.cat([rows(9_000, 512, seed=5), photo, rows(301, 512, seed=6), photo])
    for scores in score_all(dot, sketches, torch.cat([photo, gallery])):
        assert len(set(scores[[0, 9001, 9303]].tolist())) == 1


def test_rows_of_any_shape_are_scored_in_blocks(small_blocks):
    asked = []

    def score(sketches, photos):
        asked.append((len(sketches), len(photos)))
        return -(sketches[:, None] - photos[None]).square().sum(dim=(2, 3))

    sketches, photos = rows(4, 6).reshape(4, 2, 3), rows(15, 6, seed=1).reshape(15, 2, 3)
    whole = score(sketches, photos)
    asked.clear()
    assert torch.equal(score_all(score, sketches, photos), whole)
    assert asked == [(3, 7), (3, 7), (3, 1), (1, 7), (1, 7), (1, 1)]
    assert search(sketches[:1], photos, 2, score)[0] == whole[0].topk(2).indices.tolist()


def test_fewer_than_one_photo_is_refused():
    with pytest.raises(InputError, match="k = 0: ask for at least one photo"):
        search(rows(1), rows(4), 0)


@pytest.fixture
def counted(run, pairs):
    """A model with its test split, and the numbers of pictures that its encoders have embedded."""
    model, seen = load_run(run), []
    for encoder in (model.sketch_encoder, model.photo_encoder):
        encoder.register_forward_hook(lambda _layer, images, _rows: seen.append(len(images[0])))
    return model, load_split(pairs.split("test"), model.config.data, model.image_size), seen


def test_a_model_embeds_the_same_pictures_once(counted, pairs):
    model, data, seen = counted
    rows = embed_split(model, data)
    assert seen == [16, 8]
    evaluate(model, pairs)
    RetrievalBrowser(model, data, evaluate(model, pairs))
    assert seen == [16, 8]
    rows.photos.zero_()  # whoever changes what he was given changes nobody else's
    assert embed_split(model, data).photos.norm(dim=1).numpy() == pytest.approx(1)
    embed_split(model, data._replace(sketches=255 - data.sketches))
    assert seen == [16, 8, 16]


def test_other_weights_embed_again(counted):
    model, data, seen = counted
    before = embed_split(model, data)
    with torch.no_grad():
        model.photo_encoder.embed.weight += torch.randn_like(model.photo_encoder.embed.weight)
    after = embed_split(model, data)
    assert seen == [16, 8, 16, 8]
    assert torch.equal(before.sketches, after.sketches)
    assert not torch.equal(before.photos, after.photos)


def test_another_setting_embeds_again(counted):
    model, data, seen = counted
    embed_split(model, data)
    model.fit = "stretch"
    embed_split(model, data)
    assert seen == [16, 8, 16, 8]
    with torch.autocast("cpu", torch.bfloat16):
        embed_split(model, data)
    assert seen == [16, 8, 16, 8, 16, 8]


def test_nothing_is_kept_of_a_model_in_training(counted):
    model, data, seen = counted
    model.train()
    embed_split(model, data)
    embed_split(model, data)
    assert model.training
    assert seen == [16, 8, 16, 8]


def test_dropout_that_stays_on_is_drawn_anew_each_time(tiny, pairs):
    released = {"mstr.enabled": True, "mstr.registered": False, "mstr.scales": [1, 2], "mstr.dropout": 0.5}
    model = build(tiny.updated(released)).eval()
    data = load_split(pairs.split("test"), tiny.data, model.image_size)
    assert not torch.equal(embed_split(model, data).sketches, embed_split(model, data).sketches)

"""Exact search: the best of all blocks, equal scores by row, as a sort of all scores would give it."""

import pytest
import torch

from sbirlib.errors import InputError
from sbirlib.methods.base import Method
from sbirlib.retrieval.search import best_matches, score_all


def dot(queries, gallery):
    return Method.score(None, queries, gallery)


def rows(count, size=16, seed=0):
    values = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(values, dim=1)


def by_sorting(score, queries, gallery, k):
    """What a stable sort of the whole matrix gives: scores and rows."""
    best = torch.sort(score(queries, gallery), dim=1, descending=True, stable=True)
    return best.values[:, :k], best.indices[:, :k]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("sbirlib.retrieval.search.ROWS", 7)
    monkeypatch.setattr("sbirlib.retrieval.search.QUERIES", 3)


@pytest.mark.parametrize(
    ("queries", "gallery", "k"), [(1, 1, 1), (4, 30, 5), (10, 50, 50), (3, 20, 99), (7, 8, 3)]
)
def test_the_best_of_all_blocks(small_blocks, queries, gallery, k):
    sketches, photos = rows(queries, seed=1), rows(gallery, seed=2)
    found = best_matches(dot, sketches, photos, k)
    scores, places = by_sorting(dot, sketches, photos, k)
    assert torch.equal(found.rows, places)
    assert torch.equal(found.scores, scores)


def test_equal_scores_come_in_the_order_of_their_rows(small_blocks):
    photos = rows(3)[torch.tensor([2, 0, 1, 0, 2, 0, 1, 0, 2, 1, 0, 0, 2, 1, 0, 1, 2, 0])]
    found = best_matches(dot, rows(3), photos, 18)
    _, places = by_sorting(dot, rows(3), photos, 18)
    assert torch.equal(found.rows, places)
    assert found.rows[0, :7].tolist() == [1, 3, 5, 7, 10, 11, 14]


def test_zeros_of_either_sign_are_equal():
    photos = torch.tensor([[-0.0], [0.0], [-1.0], [-0.0]])
    found = best_matches(lambda q, g: q @ g.T, torch.ones(1, 1), photos, 4)
    assert found.rows.tolist() == [[0, 1, 3, 2]]


def test_negative_and_tiny_scores_keep_their_order():
    values = torch.tensor([-3.5, 1e-30, -1e-30, 2.0, 0.0, -0.25])
    found = best_matches(lambda q, g: g.T.expand(len(q), -1), torch.ones(1, 1), values[:, None], 6)
    assert found.scores[0].tolist() == sorted(values.tolist(), reverse=True)


def test_equal_photos_score_the_same_wherever_they_stand():
    photo, sketches = rows(1, 512, seed=3), rows(5, 512, seed=4)
    gallery = torch.cat([rows(9_000, 512, seed=5), photo, rows(301, 512, seed=6), photo])
    found = best_matches(dot, sketches, torch.cat([photo, gallery]), 9303)
    copies = (found.rows == 0) | (found.rows == 9001) | (found.rows == 9303)
    for row, scores in zip(copies, found.scores, strict=True):
        places = row.nonzero().flatten()
        assert places.tolist() == list(range(int(places[0]), int(places[0]) + 3))
        assert len(set(scores[row].tolist())) == 1


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
    assert torch.equal(best_matches(score, sketches, photos, 2).rows, whole.topk(2).indices)


def test_fewer_than_one_photo_is_refused():
    with pytest.raises(InputError, match="k = 0: ask for at least one photo"):
        best_matches(dot, rows(1), rows(4), 0)

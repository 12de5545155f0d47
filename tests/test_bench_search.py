"""The rows of the search benchmark; how fast a machine is, no test says."""

import importlib.util

import pytest
import torch

from sbirlib import bench_search
from sbirlib.bench_search import FAISS, NO_FAISS, check_agreement, clustered, read_bandwidth, search_rows
from sbirlib.measure import Ceilings
from sbirlib.nearest import Nearest

LIMITS = Ceilings(fp32=1e11, bf16=2e11, memory=1e10)
needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The bandwidth is not measured for every test, and no gallery counts as cached."""
    monkeypatch.setattr(bench_search, "read_bandwidth", lambda repeats: 1e12)
    monkeypatch.setattr(bench_search, "CACHED", 0)


@needs_faiss
def test_a_row_for_each_gallery_and_number_of_queries():
    rows = search_rows(LIMITS, sizes=(20, 1500), queries=(1, 3), dim=16, repeats=2)
    assert [row.part for row in rows] == [
        "search 2e1 x 16, 1 query", "search 2e1 x 16, 3 queries", "memory of search 2e1 x 16",
        "search 1.5e3 x 16, 1 query", "search 1.5e3 x 16, 3 queries", "memory of search 1.5e3 x 16"]
    assert [row.unit for row in rows[:3]] == ["ms", "ms", "MiB"]
    for row in rows:
        assert (row.better, row.against) == ("lower", FAISS)
        assert 0 < row.kit.low <= row.kit.median <= row.kit.high
        assert row.released.low > 0
        assert row.ratio > 0
    assert all(0 < row.share_of_ceiling < 1 for row in rows if row.unit == "ms")


@needs_faiss
def test_a_gallery_of_fewer_photos_than_are_asked_for():
    assert len(search_rows(LIMITS, sizes=(4,), queries=(2,), dim=8, repeats=1)) == 2


def test_without_faiss_the_rows_stand_alone(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rows = search_rows(LIMITS, sizes=(50,), queries=(1,), dim=16, repeats=1)
    assert [(row.released, row.ratio, row.against) for row in rows] == [(None, None, NO_FAISS)] * 2
    assert rows[0].kit.median > 0


def test_the_ceiling_is_the_slower_of_reading_and_multiplying(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    def bound(bandwidth, flops):
        monkeypatch.setattr(bench_search, "read_bandwidth", lambda repeats: bandwidth)
        row = search_rows(LIMITS._replace(bf16=flops), sizes=(100,), queries=(2,), dim=16, repeats=1)[0]
        return row.share_of_ceiling * row.kit.median / 1000

    assert bound(1e3, 1e12) == pytest.approx(100 * 16 * 4 / 1e3)
    assert bound(1e12, 1e3) == pytest.approx(2 * 2 * 100 * 16 / 1e3)


def test_a_gallery_that_fits_the_cache_has_no_ceiling(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(bench_search, "CACHED", 100 * 16 * 4)
    rows = search_rows(LIMITS, sizes=(100, 101), queries=(1,), dim=16, repeats=1)
    assert [row.share_of_ceiling is None for row in rows if row.unit == "ms"] == [True, False]


def test_memory_counts_the_rows_and_the_copy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    memory = search_rows(LIMITS, sizes=(100,), queries=(), dim=16, repeats=1)[0]
    assert memory.kit.median == 100 * 16 * 4 / 2**20


def test_another_photo_than_the_other_search_found_is_an_error(monkeypatch):
    centres = torch.eye(8)[:2]
    gallery, sketches = (clustered(count, 8, centres=centres, seed=seed) for count, seed in ((40, 0), (3, 1)))
    index, right = Nearest(gallery), torch.topk(sketches @ gallery.T, 10).values
    check_agreement(index, lambda queries: right, sketches)
    for wrong in (right + 2e-5, right.flip(1), torch.full_like(right, torch.nan)):
        with pytest.raises(RuntimeError, match="differ"):
            check_agreement(index, lambda queries, wrong=wrong: wrong, sketches)
    monkeypatch.setattr(Nearest, "search", lambda self, queries, k, search=Nearest.search: search(self, -queries, k))
    with pytest.raises(RuntimeError, match="differ"):
        check_agreement(index, lambda queries: right, sketches)


def test_the_gallery_lies_in_clusters_and_is_the_same_every_time():
    centres = torch.eye(16)[:4]
    rows = clustered(300, 16, centres=centres, seed=5)
    assert torch.equal(rows, clustered(300, 16, centres=centres, seed=5))
    assert torch.allclose(rows.norm(dim=1), torch.ones(300))
    assert (rows @ centres.T).amax(dim=1).median() > 0.5


def test_reading_has_a_bandwidth():
    assert read_bandwidth(1) > 0

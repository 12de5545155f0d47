"""The rows of the search benchmark; how fast a machine is, no test says."""

import importlib.util

import pytest
import torch

from sbirlib.bench import search as bench_search
from sbirlib.bench.measure import Ceilings, Failed
from sbirlib.bench.search import FAISS, NO_FAISS, check_agreement, clustered, read_bandwidth, search_rows
from sbirlib.retrieval.nearest import Nearest

LIMITS = Ceilings(fp32=1e11, bf16=2e11, memory=1e10)
needs_faiss = pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="faiss is not installed")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The bandwidth is not measured for every test, and no gallery counts as cached."""
    monkeypatch.setattr(bench_search, "read_bandwidth", lambda repeats: 1e12)
    monkeypatch.setattr(bench_search, "CACHED", 0)


@needs_faiss
def test_a_row_for_each_gallery_and_number_of_queries():
    rows = list(search_rows(LIMITS, sizes=(20, 1500), queries=(1, 3), dim=16, repeats=2))
    assert [row.part for row in rows] == [
        f"{what} {size} x 16{queries}"
        for size in ("2e1", "1.5e3")
        for what, queries in (
            ("build", ""),
            ("search", ", 1 query"),
            ("search", ", 3 queries"),
            ("memory of search", ""),
        )
    ]
    assert [row.unit for row in rows[:4]] == ["ms", "ms", "ms", "MiB"]
    for row in rows:
        assert (row.better, row.against) == ("lower", FAISS)
        assert 0 < row.kit.low <= row.kit.median <= row.kit.high
        assert row.beside.low > 0
        assert row.ratio > 0
    assert all(0 < row.share_of_ceiling < 1 for row in rows if row.part.startswith("search"))


@needs_faiss
def test_a_gallery_of_fewer_photos_than_are_asked_for():
    assert len(list(search_rows(LIMITS, sizes=(4,), queries=(2,), dim=8, repeats=1))) == 3


def test_without_faiss_the_rows_stand_alone(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    rows = list(search_rows(LIMITS, sizes=(50, 60), queries=(1,), dim=16, repeats=1))
    assert [(row.beside, row.ratio, row.as_dict()["against"]) for row in rows] == [(None, None, None)] * 6
    assert all(row.kit.median > 0 for row in rows)
    assert capsys.readouterr().err == f"{NO_FAISS}\n"


@needs_faiss
def test_each_is_built_and_searched_as_often_as_asked(monkeypatch):
    calls = []
    for owner, name in ((Nearest, "pack"), (Nearest, "search"), (bench_search, "_faiss_search")):
        method = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *values, name=name, method=method: calls.append(name) or method(*values)
        )
    rows = search_rows(LIMITS, sizes=(40,), queries=(17,), dim=16, repeats=3)
    # A row comes as soon as it is measured, and the copy has been made before any search.
    assert next(rows).part == "build 4e1 x 16"
    assert calls == ["pack", "_faiss_search"] * 3
    assert next(rows).part == "search 4e1 x 16, 17 queries"
    # One to compare with faiss, one to warm up.
    assert calls[6:] == ["search"] * (3 + 2)


def test_a_gallery_without_memory_for_it_is_left_out(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    first, *rows = search_rows(LIMITS, sizes=(2**53, 40), queries=(1,), dim=16, repeats=1)
    assert isinstance(first, Failed)
    assert first.part == "search 9.0072e15 x 16"
    assert [row.part for row in rows] == [
        "build 4e1 x 16",
        "search 4e1 x 16, 1 query",
        "memory of search 4e1 x 16",
    ]


def test_the_ceiling_is_the_slower_of_reading_and_multiplying(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    def bound(bandwidth, flops):
        monkeypatch.setattr(bench_search, "read_bandwidth", lambda repeats: bandwidth)
        row = list(search_rows(LIMITS._replace(bf16=flops), sizes=(100,), queries=(2,), dim=16, repeats=1))[1]
        return row.share_of_ceiling * row.kit.median / 1000

    assert bound(1e3, 1e12) == pytest.approx(100 * 16 * 4 / 1e3)
    assert bound(1e12, 1e3) == pytest.approx(2 * 2 * 100 * 16 / 1e3)


def test_a_gallery_that_fits_the_cache_has_no_ceiling(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(bench_search, "CACHED", 100 * 16 * 4)
    rows = search_rows(LIMITS, sizes=(100, 101), queries=(1,), dim=16, repeats=1)
    assert [row.share_of_ceiling is None for row in rows if row.part.startswith("search")] == [True, False]


def test_memory_counts_the_rows_and_the_copy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    _, memory = search_rows(LIMITS, sizes=(100,), queries=(), dim=16, repeats=1)
    assert memory.kit.median == 100 * 16 * 4 / 2**20


def test_another_photo_than_the_other_search_found_is_an_error(monkeypatch):
    centres = torch.eye(8)[:2]
    gallery, sketches = (clustered(count, 8, centres=centres, seed=seed) for count, seed in ((40, 0), (3, 1)))
    index, right = Nearest(gallery), torch.topk(sketches @ gallery.T, 10).values
    check_agreement(index, lambda queries: right, sketches)
    for wrong in (right + 2e-5, right.flip(1), torch.full_like(right, torch.nan)):
        with pytest.raises(RuntimeError, match="differ"):
            check_agreement(index, lambda queries, wrong=wrong: wrong, sketches)
    monkeypatch.setattr(
        Nearest, "search", lambda self, queries, k, search=Nearest.search: search(self, -queries, k)
    )
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

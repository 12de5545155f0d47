"""The nearest photos are those of a full sort, whatever is scanned, and however the gallery lies."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from sbirlib.errors import InputError
from sbirlib.retrieval import nearest
from sbirlib.retrieval.nearest import Nearest

PACKS = torch.backends.quantized.engine in ("x86", "fbgemm")
SCANS = ["plain", "bf16", *(["packed"] if PACKS else [])]
CONSTANTS = {
    # Blocks of 32 rows and groups of 8, so that small galleries have several of both.
    "plain": {"ROWS": 32, "GROUPED_FROM": 0},
    "packed": {"ROWS": 32, "GROUPED_FROM": 0, "PACKED_FROM": 0, "FEW": 1000},
    "bf16": {
        "ROWS": 32,
        "GROUPED_FROM": 0,
        "PACKED_FROM": 0,
        "FEW": 0,
        "wants_bf16": lambda precision, device: True,
    },
}
KINDS = ["spread", "collapsed", "ulps", "copies", "equal", "steps", "long", "short"]


@pytest.fixture(params=SCANS)
def scan(request, monkeypatch):
    for name, value in CONSTANTS[request.param].items():
        monkeypatch.setattr(nearest, name, value)
    return request.param


def unit(rows, size, seed):
    return normalize(torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)), dim=1)


def gallery_of(kind, rows, size, seed):
    """A gallery: random; nearly the same, to 1e-4 and to 1e-7; few rows often, or one; of two values; long; short."""
    spread = unit(rows, size, seed)
    chosen = torch.randint(min(rows, 3), (rows,), generator=torch.Generator().manual_seed(seed))
    return {
        "spread": spread,
        "collapsed": normalize(spread[:1] + 1e-4 * spread, dim=1),
        "ulps": spread[:1] + 1e-7 * spread,
        "copies": spread[chosen],
        "equal": spread[:1].repeat(rows, 1),
        "steps": spread.sign() * size**-0.5,
        "long": 1e5 * spread,
        "short": 1e-25 * spread,
    }[kind]


def sorted_in_full(embeddings, queries, k):
    """The k best of each query by fp64 products rounded to fp32, one query and one row at a time."""
    products = torch.stack([(embeddings.double() * query.double()).sum(dim=1).float() for query in queries])
    best = torch.sort(products, dim=1, descending=True, stable=True)
    return best.values[:, :k], best.indices[:, :k]


def assert_exact(embeddings, queries, k):
    index = Nearest(embeddings)
    index.pack()
    found = index.search(queries, k)
    similarities, rows = sorted_in_full(embeddings, queries, k)
    assert torch.equal(found.rows, rows)
    assert torch.equal(found.similarities, similarities)


def watch(monkeypatch, name):
    """A list that grows by one with every call of the method."""
    calls, method = [], getattr(Nearest, name)
    monkeypatch.setattr(Nearest, name, lambda self, *given: (calls.append(name), method(self, *given))[1])
    return calls


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 200),
    size=st.integers(2, 40),
    count=st.integers(1, 5),
    k=st.integers(1, 220),
    seed=st.integers(0, 99),
    constants=st.sampled_from([CONSTANTS[name] for name in SCANS]),
)
def test_it_finds_what_a_full_sort_finds(kind, rows, size, count, k, seed, constants):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in constants.items():
            patch.setattr(nearest, name, value)
        assert_exact(gallery_of(kind, rows, size, seed), unit(count, size, seed + 1), k)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_and_groups_may_end_anywhere(scan, rows, kind):
    assert_exact(gallery_of(kind, rows, 16, rows), unit(3, 16, 1000), 10)


@pytest.mark.parametrize("size", [2, 3, 2048])
@pytest.mark.parametrize("count", [1, 256, 257])
def test_any_size_of_embedding_and_number_of_queries(scan, size, count):
    assert_exact(unit(300, size, 1), unit(count, size, 2), 5)


def test_a_photo_equal_to_the_query_is_first_and_twins_come_in_order(scan):
    embeddings = unit(500, 64, 0)
    embeddings[[40, 333, 499]] = embeddings[7].clone()
    found = Nearest(embeddings).search(embeddings[7][None], 4)
    assert found.rows.tolist() == [[7, 40, 333, 499]]
    assert found.similarities[0].tolist() == pytest.approx([1.0] * 4, abs=1e-6)


def test_it_is_what_topk_of_the_plain_product_gives(scan):
    embeddings, queries = unit(5000, 128, 3), unit(20, 128, 4)
    found, plain = Nearest(embeddings).search(queries, 10), torch.topk(queries @ embeddings.T, 10)
    assert torch.equal(found.rows, plain.indices)
    assert torch.allclose(found.similarities, plain.values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("step", [2.0**-24, 2.0**-12, 2.0**-9, 2.0**-8])
def test_rows_that_rounding_would_put_in_another_order(scan, step):
    # The products differ by less than fp16 or bf16 can tell: rows rounded down are better than rows rounded up.
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.full((640, 2), 0.7) + step * torch.rand(640, 2, generator=generator)
    assert_exact(embeddings, torch.tensor([[0.6, 0.8], [0.8, -0.6], [-0.6, -0.8]]), 10)


def test_two_rows_that_rounding_moves_against_each_other_as_far_as_it_can(scan):
    # The best row is rounded down in every number, the next one up, along the query: by half an ulp of fp16 or bf16.
    for ulp in (2.0**-13, 2.0**-10):
        embeddings = -unit(900, 64, 0).abs()
        embeddings[100] = 0.125 + 0.51 * ulp
        embeddings[500] = 0.125 + 0.49 * ulp
        embeddings[500, 0] += 2 * ulp
        query = torch.full((1, 64), 0.125)
        assert sorted_in_full(embeddings, query, 2)[1].tolist() == [[500, 100]]
        assert_exact(embeddings, query, 1)


@pytest.mark.parametrize("lossy", ["rows", "queries", "products", "all", "queries against rows"])
def test_no_product_of_a_scan_is_further_off_than_its_error(scan, lossy):
    embeddings, queries = unit(400, 64, 0).abs(), unit(20, 64, 1).abs()
    if lossy in ("queries", "products"):
        embeddings = embeddings.bfloat16().float()
    if lossy in ("rows", "products"):
        queries = queries.bfloat16().float()
    if lossy == "queries against rows":  # products near 0, so that rounding these allows for nothing
        signs = unit(400, 64, 0).sign()
        embeddings, queries = 0.125 * signs, 0.125 + 0.49 * 2.0**-10 * signs[:20]
    index = Nearest(embeddings)
    index.pack()
    for scanned in (index._fine(), *([index._coarse()] if scan == "bf16" else [])):
        products = torch.cat(list(scanned.blocks(queries))).T.double()
        exact, error = queries.double() @ embeddings.double().T, scanned.error(queries)[:, None]
        assert (nearest._lowered(products, scanned.rounding) - error <= exact).all()
        assert (nearest._lowered(exact - error, scanned.rounding) <= products).all()


@pytest.mark.parametrize("name", SCANS[1:])
def test_without_the_bound_photos_are_lost(name, monkeypatch):
    """That the tests above would see a wrong bound: without any, the scan decides, and decides wrongly."""
    for constant, value in CONSTANTS[name].items():
        monkeypatch.setattr(nearest, constant, value)
    embeddings, queries = gallery_of("collapsed", 640, 64, 0), unit(20, 64, 1)
    monkeypatch.setattr(Nearest, "_error", lambda self, lengths, lost, residual: 0 * lengths)
    monkeypatch.setattr(nearest, "_lowered", lambda values, rounding: values)
    with pytest.raises(AssertionError):
        assert_exact(embeddings, queries, 10)


@pytest.mark.skipif(not PACKS, reason="torch packs no fp16 for this processor")
def test_the_packed_copy_multiplies_the_very_numbers_of_fp16():
    rows = torch.tensor([[1e-8, 6e-8, 3e-5, -6.1e-5, 1 / 3, 1.0]]).repeat(70, 1)
    packed = torch.ops.quantized.linear_prepack_fp16(rows.half().float(), None)
    products = torch.ops.quantized.linear_dynamic_fp16(torch.eye(6), packed)
    assert torch.equal(products.T, rows.half().float())


def test_a_collapsed_gallery_goes_on_to_higher_precision(scan, monkeypatch):
    scans, rest = watch(monkeypatch, "_scan"), watch(monkeypatch, "_all")
    embeddings = gallery_of("equal", 3000, 16, 0)
    assert_exact(embeddings, unit(2, 16, 1), 5)
    assert (len(scans), len(rest)) == (2 if scan == "bf16" else 1, 1)


def test_only_those_with_too_many_candidates_are_scanned_again(monkeypatch):
    for name, value in CONSTANTS["bf16"].items():
        monkeypatch.setattr(nearest, name, value)
    asked, scan = [], Nearest._scan
    monkeypatch.setattr(
        Nearest,
        "_scan",
        lambda self, scan_, queries, left, found: (
            asked.append(left.tolist()),
            scan(self, scan_, queries, left, found),
        )[1],
    )
    # Rows around one centre that bf16 cannot tell apart, and others far from it.
    centre, near, far = unit(1, 64, 0), unit(2000, 64, 1), unit(2000, 64, 2)
    embeddings = torch.cat([normalize(centre + 1e-2 * near, dim=1), normalize(far - 5 * centre, dim=1)])
    assert_exact(embeddings, torch.stack([far[5], centre[0], far[9] - centre[0]]), 10)
    assert asked[0] == [0, 1, 2]
    assert 0 < len(asked[1]) < 3


@pytest.mark.parametrize("limit", [1, 500])
def test_limits_of_memory_change_nothing(scan, limit, monkeypatch):
    monkeypatch.setattr(nearest, "CANDIDATES", limit)
    monkeypatch.setattr(nearest, "TOGETHER", limit)
    assert_exact(unit(400, 16, 0), unit(9, 16, 1), 10)


def test_fp32_products_of_lower_precision_are_allowed_for(scan):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert_exact(unit(700, 64, 0), unit(3, 64, 1), 10)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("scale", [1e-10, 1e-24, 1e-38])
def test_queries_of_any_length(scan, scale):
    assert_exact(gallery_of("collapsed", 640, 64, 0), scale * unit(3, 64, 1), 10)


def test_precision_set_for_one_backend_alone_is_allowed_for(scan, monkeypatch):
    def mixed():
        raise RuntimeError("the precision differs between backends")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", mixed)
    assert_exact(unit(700, 64, 0), unit(3, 64, 1), 10)


@pytest.mark.skipif(not PACKS, reason="torch packs no fp16 for this processor")
def test_the_copy_is_counted_and_small_galleries_have_none(monkeypatch):
    embeddings = unit(100, 8, 0)
    index = Nearest(embeddings)
    index.pack()
    assert index.nbytes == 100 * 8 * 4
    monkeypatch.setattr(nearest, "PACKED_FROM", 0)
    index.pack()
    assert index.nbytes == 100 * 8 * (4 + 2)


@pytest.mark.skipif(not PACKS, reason="torch packs no fp16 for this processor")
def test_the_second_search_makes_the_copy(monkeypatch):
    monkeypatch.setattr(nearest, "PACKED_FROM", 0)
    index = Nearest(unit(100, 8, 0))
    first = index.search(unit(2, 8, 1), 3)
    assert index.nbytes == 100 * 8 * 4
    second = index.search(unit(2, 8, 1), 3)
    assert index.nbytes == 100 * 8 * (4 + 2)
    assert torch.equal(first.rows, second.rows)
    assert torch.equal(first.similarities, second.similarities)


def test_an_index_is_freed_as_soon_as_it_is_forgotten(scan):
    index = Nearest(unit(100, 8, 0))
    index.search(unit(2, 8, 1), 3)
    seen = weakref.ref(index)
    gc.disable()
    try:
        del index
        assert seen() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "embeddings", [torch.ones(3), torch.ones(0, 4), torch.ones(3, 0), torch.ones(2, 2).double()]
)
def test_a_gallery_of_another_form_is_refused(embeddings):
    with pytest.raises(InputError, match="float32 row a photo"):
        Nearest(embeddings)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
def test_what_is_not_finite_is_refused(value):
    broken = unit(50, 4, 0)
    broken[31, 2] = value
    with pytest.raises(InputError, match=r"row of length (nan|inf|3e\+38)"):
        Nearest(broken)
    with pytest.raises(InputError, match=r"rows of length .(nan|inf|3\.0\d*e\+38)\]"):
        Nearest(unit(50, 4, 0)).search(broken, 3)


def test_queries_of_another_form_are_refused():
    index = Nearest(unit(5, 4, 0))
    for queries in (torch.ones(4), torch.ones(1, 5), torch.ones(0, 4), torch.ones(1, 4).half()):
        with pytest.raises(InputError, match="float32 rows of 4"):
            index.search(queries, 1)
    with pytest.raises(InputError, match="k = 0"):
        index.search(torch.ones(1, 4), 0)

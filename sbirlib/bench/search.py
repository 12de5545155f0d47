"""Time and memory of exact search, beside faiss's flat index and what the machine allows."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sbirlib.bench.measure import (
    Ceilings,
    Result,
    Row,
    Spread,
    alone,
    attempt,
    in_turn,
    in_turn_warm,
    seconds,
)
from sbirlib.retrieval.nearest import ROWS, Nearest

FAISS = "faiss IndexFlatIP"
NO_FAISS = "search: nothing to measure beside, faiss is not installed (pip install faiss-cpu)"
BEST = 10
CACHED = 2**26  # bytes; a gallery of fewer may lie in the processor's cache, and is not bound by its memory
NEAR = 1e-5  # two sums of the same 512 products in fp32 differ by less
Search = Callable[[Tensor], Tensor]


def search_rows(
    limits: Ceilings,
    sizes: Sequence[int] = (1_000, 100_000, 1_000_000),
    queries: Sequence[int] = (1, 256),
    dim: int = 512,
    repeats: int = 5,
) -> Iterator[Result]:
    """Milliseconds to build, and to find the exact best 10 by photos in the gallery and sketches at once; MiB held.

    Building includes the copy in half precision, which the kit by itself makes at the second search. The
    ceiling is the time to read once what one query scans, at the measured bandwidth, or, if that is
    longer, to multiply all pairs in bf16; there is none for what fits in a cache. Without faiss the rows
    stand alone, which is said on stderr. Raises RuntimeError if the two find different photos.
    """
    if _has_faiss():
        importlib.import_module("faiss")  # before it is timed
    else:
        print(NO_FAISS, file=sys.stderr, flush=True)
    bandwidth = read_bandwidth(repeats)
    for size in sizes:
        name = f"{_power(size)} x {dim}"
        yield from attempt(
            f"search {name}", partial(_rows, name, limits.bf16, bandwidth, size, queries, dim, repeats)
        )


def read_bandwidth(repeats: int = 5) -> float:
    """Bytes a second that all threads together can read, the best of several.

    A search reads and hardly writes, so that a copy, which writes as much as it reads, would tell too
    little of it. The sum of int64 needs one addition for eight bytes: it waits for the memory alone.
    """
    numbers = torch.ones(2**26, dtype=torch.int64)
    numbers.sum()
    return numbers.nbytes / min(seconds(numbers.sum) for _ in range(repeats))


def clustered(count: int, dim: int, *, centres: Tensor, seed: int) -> Tensor:
    """(count, dim) float32 unit rows around `centres` (n, dim), as photos of like garments lie."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.empty(count, dim)
    for block in rows.split(ROWS):
        chosen = torch.randint(len(centres), (len(block),), generator=generator)
        noise = torch.randn(block.shape, generator=generator) * dim**-0.5
        block.copy_(normalize(centres[chosen] + 0.7 * noise, dim=1))
    return rows


def _rows(
    name: str, flops: float, bandwidth: float, size: int, queries: Sequence[int], dim: int, repeats: int
) -> Iterator[Row]:
    draw = torch.Generator().manual_seed(0)
    centres = normalize(torch.randn(max(1, size // 200), dim, generator=draw), dim=1)
    gallery = clustered(size, dim, centres=centres, seed=1)
    built: dict[str, Any] = {}

    def build(who: str, make: Callable[[Tensor], Any]) -> float:
        built.pop(who, None)  # one of them at a time is large enough
        return 1000 * seconds(lambda: built.update({who: make(gallery)}))

    if _has_faiss():
        kit, beside = in_turn_warm(
            lambda: build("kit", _nearest), lambda: build("faiss", _faiss_search), repeats
        )
    else:
        kit, beside = alone(lambda: build("kit", _nearest), repeats), None
    yield Row(f"build {name}", "ms", "lower", kit, beside, against=FAISS)
    index, other = built["kit"], built.get("faiss")
    copied = index.nbytes - gallery.nbytes
    scanned = copied or gallery.nbytes
    for count in queries:
        sketches = clustered(count, dim, centres=centres, seed=2)
        bound = max(scanned / bandwidth, 2 * count * gallery.numel() / flops)
        kit, beside = _times(index, other, sketches, repeats)
        share = bound * 1000 / kit.median if scanned > CACHED else None
        yield Row(
            f"search {name}, {count} {'query' if count == 1 else 'queries'}",
            "ms",
            "lower",
            kit,
            beside,
            share,
            FAISS,
        )
    yield Row(
        f"memory of search {name}",
        "MiB",
        "lower",
        Spread.of([index.nbytes / 2**20]),
        Spread.of([gallery.nbytes / 2**20]) if other else None,
        against=FAISS,
    )


def _times(
    index: Nearest, other: Search | None, sketches: Tensor, repeats: int
) -> tuple[Spread, Spread | None]:
    def kit() -> float:
        return 1000 * seconds(lambda: index.search(sketches, BEST))

    if other is None:
        return alone(kit, repeats), None
    check_agreement(index, other, sketches)
    return in_turn(kit, lambda: 1000 * seconds(lambda: other(sketches)), repeats)


def check_agreement(index: Nearest, other: Search, sketches: Tensor) -> None:
    """Raises RuntimeError unless the kit's photos are as similar as those of `other`, place by place.

    Similarities are compared, not rows: which of two equal photos comes first means nothing.
    """
    rows, expected = index.search(sketches, BEST).rows, other(sketches)
    similarities = (index.embeddings[rows] * sketches[:, None]).sum(dim=2)
    difference = float((similarities - expected).abs().max())
    if not difference < NEAR:
        raise RuntimeError(
            f"the kit's photos differ from those of {FAISS}, by up to {difference:.2g} in similarity"
        )


def _nearest(gallery: Tensor) -> Nearest:
    index = Nearest(gallery)
    index.pack()
    return index


def _has_faiss() -> bool:
    return importlib.util.find_spec("faiss") is not None


def _faiss_search(gallery: Tensor) -> Search:
    """The similarities (q, k) that faiss finds in the gallery, with as many threads as torch."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    flat = faiss.IndexFlatIP(gallery.shape[1])
    flat.add(gallery.numpy())
    best = min(BEST, len(gallery))
    return lambda sketches: torch.from_numpy(flat.search(sketches.numpy(), best)[0])


def _power(count: int) -> str:
    """1000 as 1e3, 1500 as 1.5e3."""
    mantissa, exponent = f"{count:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"

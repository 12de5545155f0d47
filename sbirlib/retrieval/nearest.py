"""The photos nearest to a sketch, exactly: a scan in half precision leaves few to compare in full."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import embedding, pad

from sbirlib.errors import InputError, brief
from sbirlib.layers.precision import wants_bf16

ROWS = 8192  # of the gallery in a block: its products with all queries stay in the cache
QUERIES = 256  # at a time
GROUP = 8  # rows of which a scan keeps only the greatest product; ROWS is a multiple of it
GROUPED_FROM = 2**14  # rows; of fewer, every product is kept
PACKED_FROM = (
    2**24
)  # numbers in a gallery; the plain product of fewer takes no longer than a few milliseconds
FEW = 16  # queries up to which the packed half precision is faster than a product in bf16
MORE = 4  # times k: with more candidates than that, and 64 more, the next higher precision pays
CANDIDATES = 2**22  # numbers; the most that are gathered for one query
TOGETHER = 2**17  # numbers; those of several queries are gathered at once if they fit the cache
LONGEST = torch.finfo(torch.float32).max ** 0.5  # row: products of longer ones may be infinite
_HALF_MOST = torch.finfo(torch.float16).max
_FP32_ROUNDING, _BF16_ROUNDING = 2.0**-24, 2.0**-8


class Found(NamedTuple):
    """For each query the k greatest inner products, (q, k) float32, and their gallery rows, (q, k) int64."""

    similarities: Tensor
    rows: Tensor


class _Scan(NamedTuple):
    """Approximate products and how wrong they can be.

    `blocks` gives (n, q) for each block of the gallery; |approximate - exact| <= `error` (q,) before
    the result was rounded, by at most the share `rounding` of itself.
    """

    blocks: Callable[[Tensor], Iterator[Tensor]]
    error: Callable[[Tensor], Tensor]
    rounding: float


class Nearest:
    """Exact search for the greatest inner products with the rows of `embeddings` (g, e) float32, on the CPU.

    Inner products are those of fp64 rounded to fp32, so that the order in which a processor sums does not
    show, and equal ones come in the order of their rows. A scan in lower precision leaves out the rows that
    cannot be among the best, since its error is bounded by Cauchy-Schwarz: |q . (x - x')| <= |q| |x - x'|,
    where x' is the rounded row and the greatest |x - x'| is measured. Up to 16 queries scan a copy in fp16;
    more scan the rows in bf16, made block by block, where the processor multiplies it faster than fp32. If
    that leaves too many (a collapsed model), a scan of higher precision follows, and in the end one in fp64.

    Memory: the copy takes g e 2 bytes beside the g e 4 of `embeddings`; galleries below 2**24 numbers, and
    processors for which torch has no packed fp16, do without. It takes far longer to make than a search
    without it does, so the second search with few queries makes it, not the first. A search needs
    g q / 8 * 4 bytes for up to 256 queries at a time, and some 100 MB for its blocks.

    Raises InputError if there are no rows, or if one is not of finite length. Source: ours.
    """

    def __init__(self, embeddings: Tensor) -> None:
        if embeddings.ndim != 2 or not embeddings.numel() or embeddings.dtype != torch.float32:
            raise InputError(
                f"embeddings of shape {tuple(embeddings.shape)}, {embeddings.dtype}: "
                "give one float32 row a photo, (g, e), and at least one"
            )
        self.embeddings = embeddings
        self._longest = float(
            torch.stack([_lengths(block).amax() for block in embeddings.split(ROWS)]).amax()
        )
        if not self._longest < LONGEST:
            raise InputError(
                f"embeddings with a row of length {self._longest:g}: embed the photos with a sound model"
            )
        self._group = GROUP if len(embeddings) >= GROUPED_FROM else 1
        self._packed: list = []
        self._half_residual = 0.0
        self._searched = False

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and of their copy, without what a search needs for a while."""
        return self.embeddings.nbytes + (self.embeddings.numel() * 2 if self._packed else 0)

    def pack(self) -> None:
        """Makes the copy in half precision now, if there is to be one and is none yet."""
        if (
            self._packed
            or self.embeddings.numel() < PACKED_FROM
            or (torch.backends.quantized.engine not in ("x86", "fbgemm"))
        ):
            return
        # Twice as long: torch's threads meet after each. Longer ones take much more time to pack.
        for block in self.embeddings.split(2 * ROWS):
            # What fp16 cannot hold would become infinite.
            half = block.clamp(-_HALF_MOST, _HALF_MOST).half()
            self._half_residual = max(self._half_residual, _residual(block, half))
            self._packed.append(torch.ops.quantized.linear_prepack_fp16(half.float(), None))

    @torch.no_grad()
    def search(self, queries: Tensor, k: int) -> Found:
        """The k rows with the greatest inner products with each of `queries` (q, e) float32, best first.

        A gallery of fewer than k rows gives all of them. Raises InputError for k < 1 and for queries of
        another size, or that are not finite.
        """
        if k < 1:
            raise InputError(f"k = {k}: at least one photo must be asked for")
        size = self.embeddings.shape[1]
        if (
            queries.ndim != 2
            or not len(queries)
            or queries.shape[1] != size
            or queries.dtype != torch.float32
        ):
            raise InputError(
                f"queries of shape {tuple(queries.shape)}, {queries.dtype}: give float32 rows of {size}, "
                "at least one"
            )
        lengths = _lengths(queries)
        unsound = lengths[~(lengths < LONGEST)]
        if len(unsound):
            raise InputError(
                f"queries with rows of length {brief(unsound.tolist())}: "
                "embed the sketches with a sound model"
            )
        if len(queries) <= FEW:
            if self._searched:
                self.pack()
            self._searched = True
        k = min(k, len(self.embeddings))
        parts = [self._search(part, k) for part in queries.split(QUERIES)]
        return Found(*map(torch.cat, zip(*parts, strict=True)))

    def _search(self, queries: Tensor, k: int) -> Found:
        found = Found(queries.new_empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.int64))
        left = torch.arange(len(queries))
        scans = [self._fine()]
        if (
            len(queries) > FEW
            and self.embeddings.numel() >= PACKED_FROM
            and wants_bf16("auto", self.embeddings.device)
        ):
            scans.insert(0, self._coarse())
        for scan in scans:
            left = left[self._scan(scan, queries, left, found)]
            if not len(left):
                return found
        similarities, rows = self._all(queries[left], k)
        found.similarities[left], found.rows[left] = similarities, rows
        return found

    def _scan(self, scan: _Scan, queries: Tensor, asked: Tensor, found: Found) -> Tensor:
        """Fills in `found` for the queries `asked` (n,); True (n,) for those that have too many candidates."""
        chosen, k, group = queries[asked], found.rows.shape[1], self._group
        maxima, start = torch.empty(len(chosen), -(-len(self.embeddings) // group)), 0
        for products in scan.blocks(chosen):
            greatest = _greatest(products, group)
            maxima[:, start : start + len(greatest)] = rearrange(greatest, "n q -> q n")
            start += len(greatest)
        # One more than can be candidates: if it is among them, there are too many.
        width = min(MORE * k + 64, CANDIDATES // (group * queries.shape[1]), maxima.shape[1] - 1) + 1
        best = torch.topk(maxima, width)
        counts = (best.values >= self._floor(scan, chosen, best.values, k)).sum(dim=1)
        too_many = (counts == width) & (width < maxima.shape[1])
        if too_many.all():
            return too_many
        few = (~too_many).nonzero().flatten()
        few = few[counts[few].argsort()]  # those with as many candidates together
        for part in few.split(max(1, TOGETHER // (int(counts[few[-1]]) * group * queries.shape[1]))):
            first = best.indices[part, : int(counts[part].max())] * group
            rows = rearrange(first[..., None] + torch.arange(group), "q n group -> q (n group)")
            found.similarities[asked[part]], found.rows[asked[part]] = self._compare(chosen[part], rows, k)
        return too_many

    def _floor(self, scan: _Scan, queries: Tensor, greatest: Tensor, k: int) -> Tensor:
        """(q, 1): the approximate product below which no row can be among the best k.

        The k greatest maxima, the first of `greatest` (q, n), are products of k different rows. Each of these
        is exactly at least the least of them less its error, and so are the best k; in the scan they may
        come out lower by as much again.
        """
        if greatest.shape[1] < k:
            return torch.full((len(queries), 1), -torch.inf)
        least = _lowered(greatest[:, k - 1].double(), scan.rounding)
        return _lowered(least - 2 * scan.error(queries), scan.rounding)[:, None].float()

    def _compare(self, queries: Tensor, rows: Tensor, k: int) -> Found:
        """The best k of some rows (q, n) for each query; those beyond the gallery's end do not count."""
        beyond, rows = rows >= len(self.embeddings), rows.clamp(max=len(self.embeddings) - 1)
        if rows.shape[1] > MORE * k:
            # In fp32 first: it leaves hardly more than k rows to the slower fp64.
            products = self._products(queries, rows).masked_fill_(beyond, -torch.inf)
            floor = torch.topk(products, k).values[:, -1] - 2 * self._plain_error(queries)
            kept = torch.topk(products, int((products >= floor[:, None]).sum(dim=1).max())).indices
            rows, beyond = rows.gather(1, kept), beyond.gather(1, kept)
        exact = self._products(queries.double(), rows).float().masked_fill_(beyond, -torch.inf)
        return _found(torch.topk(_keys(exact, rows), k).values)

    def _products(self, queries: Tensor, rows: Tensor) -> Tensor:
        """(q, n): of each query with rows of its own, in the precision of the queries."""
        # For so few rows an indexed tensor and a matrix product would take several times as long.
        return (embedding(rows, self.embeddings) * queries[:, None]).sum(dim=2)

    def _all(self, queries: Tensor, k: int) -> Found:
        """The best k of all rows by fp64, for queries that no scan helps."""
        best = torch.empty(len(queries), 0, dtype=torch.int64)
        for start in range(0, len(self.embeddings), ROWS):
            block = self.embeddings[start : start + ROWS]
            exact = (queries.double() @ block.double().T).float()
            keys = torch.cat([best, _keys(exact, torch.arange(start, start + len(block)))], dim=1)
            best = torch.topk(keys, min(k, keys.shape[1])).values
        return _found(best)

    def _fine(self) -> _Scan:
        if not self._packed:
            return _Scan(
                lambda q: (block @ q.T for block in self.embeddings.split(ROWS)), self._plain_error, 0.0
            )
        return _Scan(self._packed_products, lambda q: self._error(_lengths(q), 0.0, self._half_residual), 0.0)

    def _packed_products(self, queries: Tensor) -> Iterator[Tensor]:
        # For few queries, several blocks at once: each costs some microseconds to go on with.
        several = max(1, FEW // len(queries))
        for start in range(0, len(self._packed), several):
            blocks = self._packed[start : start + several]
            products = [torch.ops.quantized.linear_dynamic_fp16(queries, block) for block in blocks]
            yield rearrange(torch.cat(products, dim=1), "q n -> n q")

    def _coarse(self) -> _Scan:
        return _Scan(
            lambda q: (block.bfloat16() @ q.bfloat16().T for block in self.embeddings.split(ROWS)),
            lambda q: self._error(_lengths(q), _lengths(q - q.bfloat16().float()), self._bf16_residual),
            _BF16_ROUNDING,
        )

    @cached_property
    def _bf16_residual(self) -> float:
        return max(_residual(block, block.bfloat16()) for block in self.embeddings.split(ROWS))

    def _plain_error(self, queries: Tensor) -> Tensor:
        share = 0.0 if _multiplies_in_full() else _BF16_ROUNDING
        lengths = _lengths(queries)
        return self._error(lengths, share * lengths, share * self._longest)

    def _error(self, lengths: Tensor, lost: Tensor | float, residual: float) -> Tensor:
        """(q,) float64: how far a product of the rounded query and a rounded row can be from the true one.

        `lengths` (q,) of the queries; `lost` and `residual`: how far the rounded queries and rows are from
        the true ones. q . x - q' . x' = q . (x - x') + (q - q') . x', and the sum of e products in fp32, in
        any order, is wrong by less than e roundings of |q'| |x'|. Twice that, and some, covers processors
        that round otherwise, and the roundings of this bound itself.
        """
        accumulated = (2 * self.embeddings.shape[1] + 8) * _FP32_ROUNDING * (lengths + lost)
        # What lies below the smallest normal number may become 0.
        vanished = self.embeddings.shape[1] * torch.finfo(torch.float32).tiny
        return 1.001 * (lengths * residual + (lost + accumulated) * (self._longest + residual)) + vanished


def _multiplies_in_full() -> bool:
    """Whether torch rounds neither factor of a product in fp32."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:
        # Set for one backend alone, by torch's newer switches: which one, this question does not tell.
        return False


def _lengths(rows: Tensor) -> Tensor:
    # In fp64, in which the squares of small numbers do not vanish.
    return vector_norm(rows, dim=1, dtype=torch.float64)


def _residual(block: Tensor, rounded: Tensor) -> float:
    return float(_lengths(block - rounded.float()).amax())


def _greatest(products: Tensor, group: int) -> Tensor:
    """The greatest of each `group` rows, the last group being what is left: (n, q) -> (n / group, q)."""
    lacking = -len(products) % group
    if lacking:
        products = pad(products, (0, 0, 0, lacking), value=-torch.inf)
    # In this order of axes the maximum is taken of whole rows of products, ten times as fast.
    return reduce(products, "(n group) q -> n q", "max", group=group)


def _lowered(values: Tensor, rounding: float) -> Tensor:
    """No more than what a rounding by this share can have turned into `values`, or `values` into."""
    if not rounding:
        return values
    # The last term is for numbers so small that they are rounded by more than their share.
    return values - values.abs() * (1.01 * rounding) - rounding * 2.0**-110


def _keys(similarities: Tensor, rows: Tensor) -> Tensor:
    """One int64 for each (similarity, row), greater for a greater similarity, then for a smaller row."""
    bits = (similarities + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return (ordered << 32) + (0xFFFFFFFF - rows)


def _found(keys: Tensor) -> Found:
    """What `_keys` packed."""
    ordered = (keys >> 32).int()
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    return Found(bits.view(torch.float32), 0xFFFFFFFF - (keys & 0xFFFFFFFF))

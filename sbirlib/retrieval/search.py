"""Exact search for the photos that match a sketch best: scores in blocks, and the best of all blocks."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from sbirlib.errors import InputError

QUERIES, ROWS = 256, 8192  # in a block: what a method's `score` is given at a time

Score = Callable[[Tensor, Tensor], Tensor]


class Found(NamedTuple):
    """For each query the k best scores, (q, k) float32, and their gallery rows, (q, k) int64."""

    scores: Tensor
    rows: Tensor


@torch.inference_mode()
def score_all(score: Score, queries: Tensor, gallery: Tensor) -> Tensor:
    """Scores (q, g) of rows (q, ...) and (g, ...), in blocks, so that `score` needs little memory."""
    # Rows are compared in full precision, whatever the encoders run in.
    with torch.autocast(queries.device.type, enabled=False):
        parts = gallery.split(ROWS)
        return torch.cat([torch.cat([score(q, g) for g in parts], dim=1) for q in queries.split(QUERIES)])


@torch.inference_mode()
def best_matches(score: Score, queries: Tensor, gallery: Tensor, k: int) -> Found:
    """The k gallery rows (g, ...) that `score` ranks highest for each of `queries` (q, ...), best first.

    Equal scores come in the order of their rows; a gallery of fewer than k rows gives all. Raises InputError
    for k < 1.
    """
    if k < 1:
        raise InputError(f"k = {k}: ask for at least one photo")
    parts = []
    for part in queries.split(QUERIES):
        best = torch.empty(len(part), 0, dtype=torch.int64)
        for start in range(0, len(gallery), ROWS):
            scores = score_all(score, part, gallery[start : start + ROWS])
            keys = torch.cat([best, _keys(scores, start)], dim=1)
            best = keys.topk(min(k, keys.shape[1])).values
        parts.append(best)
    keys = torch.cat(parts)
    return Found(_ordered(keys >> 32).int().view(torch.float32), 0xFFFFFFFF - (keys & 0xFFFFFFFF))


def _keys(scores: Tensor, start: int) -> Tensor:
    """One int64 for each score (q, n) and its row, from `start`: larger if better, then if earlier."""
    bits = _ordered((scores.float() + 0.0).view(torch.int32).long())  # -0.0 becomes 0.0
    return (bits << 32) + (0xFFFFFFFF - torch.arange(start, start + scores.shape[1]))


def _ordered(bits: Tensor) -> Tensor:
    """Bits of a float32 as a number in the same order, and back."""
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)

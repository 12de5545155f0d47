"""What the released code does otherwise than the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor


def slipped_contrast_map(grid: tuple[int, int], scales: Sequence[int]) -> Tensor:
    """The contrast map of the released code: for strips, all or nothing, and asymmetric.

    Between two scales that are both pooled, one side is left empty and the strips of the other run
    past their ends where their sizes are no multiples of each other. Source: released code.
    """
    counts = [math.prod(grid) // scale**2 for scale in scales]
    starts = [sum(counts[:i]) for i in range(len(counts))]
    result = torch.eye(sum(counts))
    for fine, coarse in combinations(range(len(counts)), 2):
        ratio = counts[fine] / counts[coarse]
        for k in range(counts[coarse]):
            is_last = k == counts[coarse] - 1
            covered = slice(
                starts[fine] + k * math.floor(ratio),
                starts[fine] + (counts[fine] if is_last else (k + 1) * math.ceil(ratio)),
            )
            result[starts[coarse] + k, covered] = 0.5
            if fine == 0:
                result[covered, starts[coarse] + k] = 0.5
    return result

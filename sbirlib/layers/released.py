"""MSTR as the paper's released code has it, each departure from the paper an option.

Source: github.com/ExponentiAI/ARNet.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, Literal, Self

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

from sbirlib.layers.mstr import MSTR, contrast_map


class ReleasedMSTR(MSTR):
    """MSTR with what the released code does otherwise; the other value of each option is the paper's.

    `attention="batch"` lets the images of one batch see each other; `pooling="strips"` averages runs of
    s * s tokens in raster order; `registered=False` keeps the transformers in a plain list, so that they are
    neither trained nor saved and never leave training mode; `contrast="slipped"` takes the asymmetric
    contrast map; `similarity="dot"` compares cells as they are. `options` and errors as for `MSTR`.
    """

    hidden: Sequence[nn.Module] = ()  # layers that torch does not see

    def __init__(
        self, dim: int, grid: tuple[int, int], scales: Sequence[int] = (1, 2, 7), *,
        similarity: Literal["cosine", "dot"] = "dot", attention: Literal["tokens", "batch"] = "batch",
        pooling: Literal["windows", "strips"] = "strips", contrast: Literal["overlap", "slipped"] = "slipped",
        registered: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        super().__init__(dim, grid, scales, **options)
        self.similarity, self.attention, self.makes_maps = similarity, attention, pooling == "windows"
        if contrast == "slipped":
            self.contrast = slipped_contrast_map(grid, self.scales)
        elif pooling == "strips":
            self.contrast = contrast_map(grid, self.scales, pool_strips)
        if not registered:
            # A plain list hides its modules from torch: no parameters, no state, no eval mode.
            self.hidden = list(self.transformers)
            del self.transformers
            self.transformers = self.hidden

    def pool(self, patches: Tensor, scale: int) -> Tensor:
        """Windows as in the paper, or strips."""
        return super().pool(patches, scale) if self.makes_maps else pool_strips(patches, self.grid, scale)

    def attend(self, transformer: nn.Module, cells: Tensor) -> Tensor:
        """Over the cells of one image, or over the images of the batch."""
        if self.attention == "tokens":
            return transformer(cells)
        # The axis that attention takes for the sequence holds the images of the batch instead.
        return rearrange(transformer(rearrange(cells, "b m d -> m b d")), "m b d -> b m d")

    def similarities(self, cells: Tensor) -> Tensor:
        """Cosines, or plain products."""
        if self.similarity == "cosine":
            return super().similarities(cells)
        features = self.averaged(cells)
        return features @ rearrange(features, "b m channels -> b channels m")

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        # Hidden transformers must follow to a GPU all the same.
        for transformer in self.hidden:
            transformer._apply(fn, recurse)
        return super()._apply(fn, recurse)


def pool_strips(patches: Tensor, grid: tuple[int, int], scale: int) -> Tensor:
    """Patch tokens (b, h * w, d) -> (b, h * w / scale^2, d), the means of scale^2 tokens in raster order."""
    return reduce(patches, "b (m strip) d -> b m d", "mean", strip=scale**2)


def slipped_contrast_map(grid: tuple[int, int], scales: Sequence[int]) -> Tensor:
    """The contrast map of the released code: for strips, all or nothing, and asymmetric.

    Between two scales that are both pooled, one side stays empty, and the strips of the other run past their
    ends where the sizes are no multiples of each other.
    """
    counts = [math.prod(grid) // scale**2 for scale in scales]
    starts = [sum(counts[:i]) for i in range(len(counts))]
    result = torch.eye(sum(counts))
    for fine, coarse in combinations(range(len(counts)), 2):
        ratio = counts[fine] / counts[coarse]
        for k in range(counts[coarse]):
            end = counts[fine] if k == counts[coarse] - 1 else (k + 1) * math.ceil(ratio)
            covered = slice(starts[fine] + k * math.floor(ratio), starts[fine] + end)
            result[starts[coarse] + k, covered] = 0.5
            if fine == 0:
                result[covered, starts[coarse] + k] = 0.5
    return result

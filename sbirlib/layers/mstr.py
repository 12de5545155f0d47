"""Multi-Scale Token Recycling: the patch tokens that a ViT discards, put back to use.

Three steps: pool the grid of patch tokens at several scales, let the cells of each scale attend to
one another, and mix a weighted sum of all of them into the global token. A loss of its own keeps
cells that share no ground unlike each other. Source: paper, section 3 (figure 4).

Where the released code departs from that, an option of `MSTR` restores what it does, so that the
two can be compared; every such option is off by default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional as F

from sbirlib.errors import InputError
from sbirlib.layers.released import slipped_contrast_map

Similarity = Literal["cosine", "dot"]
Attention = Literal["tokens", "batch"]
Pooling = Literal["windows", "strips"]
Contrast = Literal["overlap", "slipped"]


class MSTRError(InputError):
    """Sizes that MSTR cannot work with; the message names them and those that it can."""


class Recycled(NamedTuple):
    """Global token with the patch tokens mixed in (b, d), and the cells of all scales (b, m, d)."""

    fused: Tensor
    cells: Tensor


class MSTR(nn.Module):
    """Recycles a (h, w) `grid` of patch tokens of width `dim`, behind any backbone that has one.

    `scales` are window sides in tokens; at each the grid is averaged over windows and a transformer
    of `depth` layers with `heads` heads attends over the windows of one image. `weight` w in [0, 1]
    is the share of the recycled feature in (1 - w) * cls + w * recycled, learned if `learn_weight`.
    The loss compares cells by `channels` averaged channels.

    Released behaviours: `attention="batch"` lets images of one batch see each other;
    `pooling="strips"` averages runs of s * s tokens in raster order; `registered=False` keeps the
    transformers in a plain list, so that they are neither trained nor saved and never leave training
    mode; `contrast="slipped"` takes the asymmetric contrast map; `similarity="dot"` compares cells
    without normalising them.

    Raises MSTRError if a scale does not divide the grid, or heads or channels do not divide `dim`.
    Source: paper, section 3; options from the released code.
    """

    def __init__(
        self,
        dim: int,
        grid: tuple[int, int],
        scales: Sequence[int] = (1, 2, 7),
        *,
        depth: int = 2,
        heads: int = 8,
        feedforward: int = 2048,
        dropout: float = 0.1,
        weight: float = 0.1,
        learn_weight: bool = False,
        channels: int = 16,
        similarity: Similarity = "cosine",
        attention: Attention = "tokens",
        pooling: Pooling = "windows",
        contrast: Contrast = "overlap",
        registered: bool = True,
    ) -> None:
        super().__init__()
        _check_sizes(dim, grid, scales, heads, channels)
        self.grid, self.scales, self.channels = grid, tuple(scales), channels
        self.similarity, self.attention, self.pooling = similarity, attention, pooling
        # A plain list hides its modules from torch: no parameters, no state, no eval mode.
        self.transformers = (nn.ModuleList if registered else list)(
            nn.TransformerEncoder(
                nn.TransformerEncoderLayer(dim, heads, feedforward, dropout, batch_first=True),
                depth,
                enable_nested_tensor=False,
            )
            for _ in self.scales
        )
        self.mix = nn.Linear(sum(self.cells_by_scale), 1)
        self.weight = nn.Parameter(torch.tensor(float(weight))) if learn_weight else weight
        wanted = (
            contrast_map(grid, self.scales, pooling)
            if contrast == "overlap"
            else slipped_contrast_map(grid, self.scales)
        )
        self.register_buffer("contrast", wanted, persistent=False)

    @property
    def cells_by_scale(self) -> list[int]:
        """How many cells each scale contributes to the m of `Recycled.cells`."""
        return [math.prod(self.grid) // scale**2 for scale in self.scales]

    def forward(self, cls: Tensor, patches: Tensor) -> Recycled:
        """Global token (b, d) and patch tokens (b, h * w, d), row by row -> Recycled."""
        cells = torch.cat(
            [
                self._attend(transformer, pool(patches, self.grid, scale, self.pooling))
                for scale, transformer in zip(self.scales, self.transformers, strict=True)
            ],
            dim=1,
        )
        recycled = rearrange(self.mix(rearrange(cells, "b m d -> b d m")), "b d 1 -> b d")
        return Recycled((1 - self.weight) * cls + self.weight * recycled, cells)

    def _attend(self, transformer: nn.Module, cells: Tensor) -> Tensor:
        if self.attention == "tokens":
            return transformer(cells)
        # The axis that attention takes for the sequence holds the images of the batch.
        return rearrange(transformer(rearrange(cells, "b m d -> m b d")), "m b d -> b m d")

    def loss(self, cells: Tensor) -> Tensor:
        """L_recyc of cells (b, m, d): mean squared difference of their similarities and the contrast map."""
        # In full precision: the differences of similarities are small.
        with torch.autocast(cells.device.type, enabled=False):
            return F.mse_loss(self.similarities(cells.float()), self.contrast.expand(len(cells), -1, -1))

    def similarities(self, cells: Tensor) -> Tensor:
        """Cells (b, m, d) -> (b, m, m): how alike they are by their averaged channels."""
        features = reduce(cells, "b m (channels width) -> b m channels", "mean", channels=self.channels)
        if self.similarity == "cosine":
            features = F.normalize(features, dim=-1)
        return features @ rearrange(features, "b m channels -> b channels m")

    def _apply(self, fn: Callable, recurse: bool = True) -> MSTR:
        # Transformers in a plain list are hidden from torch, but must follow to a GPU all the same.
        if isinstance(self.transformers, list):
            for transformer in self.transformers:
                transformer._apply(fn, recurse)
        return super()._apply(fn, recurse)


def pool(patches: Tensor, grid: tuple[int, int], scale: int, pooling: Pooling = "windows") -> Tensor:
    """Patch tokens (b, h * w, d) of an (h, w) grid -> (b, h * w / scale^2, d), the means of its cells.

    Cells are windows of scale x scale tokens, or, as in the released code, strips of scale^2 tokens
    in raster order.
    """
    if pooling == "strips":
        return reduce(patches, "b (m strip) d -> b m d", "mean", strip=scale**2)
    return reduce(patches, "b (h s1 w s2) d -> b (h w) d", "mean", s1=scale, s2=scale, w=grid[1] // scale)


def contrast_map(grid: tuple[int, int], scales: Sequence[int], pooling: Pooling = "windows") -> Tensor:
    """How alike the cells of all scales ought to be: (m, m), symmetric, 1 on the diagonal.

    Cells of different scales: half the fraction of the smaller cell that lies inside the larger;
    cells of one scale: 0. Source: paper, section 3.
    """
    patches = math.prod(grid)
    # Pooling the identity tells which patches a cell covers, each with weight 1 / scale^2.
    shares = [pool(torch.eye(patches)[None], grid, scale, pooling)[0] for scale in scales]
    rows = []
    for i, first in enumerate(shares):
        rows.append(
            torch.cat(
                [
                    torch.eye(len(first))
                    if i == j
                    else 0.5
                    * max(scales[i], scales[j]) ** 2
                    * first
                    @ rearrange(second, "m patches -> patches m")
                    for j, second in enumerate(shares)
                ],
                dim=1,
            )
        )
    return torch.cat(rows)


def _check_sizes(dim: int, grid: tuple[int, int], scales: Sequence[int], heads: int, channels: int) -> None:
    side = math.gcd(*grid)
    bad = [scale for scale in scales if scale < 1 or side % scale]
    if bad or not scales:
        fitting = ", ".join(str(scale) for scale in range(1, side + 1) if side % scale == 0)
        raise MSTRError(
            f"mstr.scales = {tuple(scales)}: {', '.join(map(str, bad)) or 'none'} does not divide the "
            f"{grid[0]} x {grid[1]} grid of this backbone; scales that do: {fitting}"
        )
    for name, value in (("heads", heads), ("channels", channels)):
        if dim % value:
            raise MSTRError(f"mstr.{name} = {value} does not divide the {dim} channels of this backbone")

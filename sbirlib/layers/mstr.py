"""Multi-Scale Token Recycling: the patch tokens that a ViT discards, put back to use.

Three steps: average the grid of patch tokens at several scales, let the cells of each scale attend to
one another, and mix a weighted sum of all cells into the global token. A loss of its own keeps cells
that do not overlap unlike each other. Source: paper, section 3 (figure 4).

What the released code does otherwise is in `layers.released`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional as F

from sbirlib.errors import InputError


class MSTRError(InputError):
    """Sizes that MSTR cannot work with; the message names them, and those that would do."""


class Recycled(NamedTuple):
    """Global token with the patch tokens mixed in (b, d), and the cells of all scales (b, m, d)."""

    fused: Tensor
    cells: Tensor


class MSTR(nn.Module):
    """Recycles an (h, w) `grid` of patch tokens of width `dim`, behind any backbone that has one.

    `scales` are window sides in tokens; at each, the grid is averaged over windows, and a transformer of
    `depth` layers with `heads` heads attends over the windows of one image. `weight` w in [0, 1] is the
    share of the recycled feature in (1 - w) * cls + w * recycled. The loss compares cells by
    `channels` averaged channels. A global token that is pooled over a grid has several `tokens` of width
    `dim`, each with a mix of its own; the paper has one.

    Raises MSTRError if a scale does not divide the grid, or heads or channels do not divide `dim`.
    Source: paper, section 3.
    """

    contrast: Tensor

    def __init__(
        self, dim: int, grid: tuple[int, int], scales: Sequence[int] = (1, 2, 7), *, depth: int = 2,
        heads: int = 8, feedforward: int = 2048, dropout: float = 0.1, weight: float = 0.1,
        channels: int = 16, tokens: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        _check_sizes(dim, grid, scales, heads, channels)
        self.grid, self.scales, self.channels, self.weight = grid, tuple(scales), channels, weight
        # How many each scale contributes to the m of `Recycled.cells`.
        self.cells_by_scale = [math.prod(grid) // scale**2 for scale in scales]
        layer = partial(nn.TransformerEncoderLayer, dim, heads, feedforward, dropout, batch_first=True)
        transformers = (nn.TransformerEncoder(layer(), depth, enable_nested_tensor=False) for _ in scales)
        self.transformers: Iterable[nn.Module] = nn.ModuleList(transformers)
        self.mix = nn.Linear(sum(self.cells_by_scale), tokens)
        self.register_buffer("contrast", contrast_map(grid, self.scales), persistent=False)

    def forward(self, cls: Tensor, patches: Tensor) -> Recycled:
        """Global token (b, d) and patch tokens (b, h * w, d), the grid row by row -> Recycled."""
        levels = zip(self.scales, self.transformers, strict=True)
        cells = torch.cat([self.attend(layers, self.pool(patches, scale)) for scale, layers in levels], dim=1)
        recycled = rearrange(self.mix(rearrange(cells, "b m d -> b d m")), "b d t -> b (t d)")
        return Recycled((1 - self.weight) * cls + self.weight * recycled, cells)

    def pool(self, patches: Tensor, scale: int) -> Tensor:
        """Patch tokens (b, h * w, d) -> (b, h * w / scale^2, d), the cells of one scale."""
        return pool(patches, self.grid, scale)

    def attend(self, transformer: nn.Module, cells: Tensor) -> Tensor:
        """Cells (b, m, d) of one scale, each having seen the others of its image."""
        return transformer(cells)

    def loss(self, cells: Tensor) -> Tensor:
        """L_recyc of cells (b, m, d): mean squared difference of similarities and contrast map."""
        # In full precision: the differences of similarities are small.
        with torch.autocast(cells.device.type, enabled=False):
            return F.mse_loss(self.similarities(cells.float()), self.contrast.expand(len(cells), -1, -1))

    def similarities(self, cells: Tensor) -> Tensor:
        """Cells (b, m, d) -> (b, m, m): cosines of their averaged channels."""
        features = F.normalize(self.averaged(cells), dim=-1)
        return features @ rearrange(features, "b m channels -> b channels m")

    def averaged(self, cells: Tensor) -> Tensor:
        """Cells (b, m, d) -> (b, m, channels), the means of neighbouring channels."""
        return reduce(cells, "b m (channels width) -> b m channels", "mean", channels=self.channels)


def pool(patches: Tensor, grid: tuple[int, int], scale: int) -> Tensor:
    """Patch tokens (b, h * w, d) of an (h, w) grid -> (b, h * w / scale^2, d), means of square windows."""
    return reduce(patches, "b (h s1 w s2) d -> b (h w) d", "mean", s1=scale, s2=scale, w=grid[1] // scale)


def contrast_map(grid: tuple[int, int], scales: Sequence[int], pool: Callable[..., Tensor] = pool) -> Tensor:
    """How alike the cells of all scales ought to be: (m, m), symmetric, 1 on the diagonal.

    Cells of different scales: half the fraction of the smaller cell that lies inside the larger; cells of
    one scale: 0. `pool` makes the cells, like the function of that name. Source: paper, section 3.
    """
    # Pooling the identity shows which patches a cell covers, each with weight 1 / scale^2.
    shares = [pool(torch.eye(math.prod(grid))[None], grid, scale)[0] for scale in scales]

    def block(i: int, j: int) -> Tensor:
        if i == j:
            return torch.eye(len(shares[i]))
        larger = max(scales[i], scales[j]) ** 2
        return 0.5 * larger * shares[i] @ rearrange(shares[j], "m patches -> patches m")

    levels = range(len(scales))
    return torch.cat([torch.cat([block(i, j) for j in levels], dim=1) for i in levels])


def _check_sizes(dim: int, grid: tuple[int, int], scales: Sequence[int], heads: int, channels: int) -> None:
    side = math.gcd(*grid)
    bad = [scale for scale in scales if scale < 1 or side % scale]
    if bad or not scales:
        fitting = ", ".join(str(scale) for scale in range(1, side + 1) if side % scale == 0)
        wrong = f"{', '.join(map(str, bad)) or 'none'} does not divide the {grid[0]} x {grid[1]} grid"
        raise MSTRError(f"mstr.scales = {tuple(scales)}: {wrong} of this backbone; scales that do: {fitting}")
    for name, value in (("heads", heads), ("channels", channels)):
        if dim % value:
            raise MSTRError(f"mstr.{name} = {value} does not divide the {dim} channels of this backbone")

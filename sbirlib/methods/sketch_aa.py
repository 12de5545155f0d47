"""SketchAA (Yang et al., ICCV 2021): a picture as a hierarchy of averaged blocks, from coarse to fine."""

from einops import rearrange
from torch import Tensor, nn

from sbirlib.config.methods import SketchAAConfig
from sbirlib.layers.backbone import Backbone, block_means
from sbirlib.methods.b_siamese import BSiamese
from sbirlib.methods.base import PatchEncoder


class SketchAA(BSiamese):
    """The grid of patch tokens averaged over 1, 4 and 16 blocks, and the levels combined (a reconstruction).

    Abstraction is the point: inside a block there is nothing but the mean. From the paper's abstract are the
    hierarchy from coarse to fine and the means; it has three ways to combine the levels and does not say
    which, so ours, the layers, the triplet loss (that of B-Siamese) and every default are the kit's own.
    """

    name = "sketch_aa"

    def make_encoder(self, trunk: Backbone) -> PatchEncoder:
        trunk.check_blocks("sketch_aa.levels", max(self.options.levels))
        return PatchEncoder(trunk, Hierarchy(trunk.width, self.embed_dim, self.options))


class Hierarchy(nn.Module):
    """Patch tokens (b, n, d) of a square grid -> (b, e), through `levels` of block means.

    The means of a level, side by side, go through a linear layer of its own. A gated recurrent unit sees one
    level after the other and hands on its state.
    """

    def __init__(self, dim: int, embed_dim: int, settings: SketchAAConfig) -> None:
        super().__init__()
        self.levels = settings.levels
        self.layers = nn.ModuleList(nn.Linear(dim * side**2, embed_dim) for side in self.levels)
        self.step = nn.GRUCell(embed_dim, embed_dim)

    def forward(self, patches: Tensor) -> Tensor:
        means = [rearrange(block_means(patches, side), "b k d -> b (k d)") for side in self.levels]
        state, *finer = (layer(level) for layer, level in zip(self.layers, means, strict=True))
        for level in finer:
            state = self.step(level, state)
        return state

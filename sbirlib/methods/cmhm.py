"""CMHM-SBIR (Sain et al., BMVC 2020): windows of a pair look at each other and are merged, two at a time."""

import copy
from typing import Any, NamedTuple

import torch
from einops import einsum, rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from sbirlib.data.batches import Batch
from sbirlib.layers import Backbone, other_photos
from sbirlib.methods.base import Method, PatchEncoder

# Rows and columns of the grids that a picture is cut into, by the number of windows.
GRIDS = {1: ((1, 1),), 7: ((1, 1), (2, 1), (2, 2)), 14: ((1, 1), (2, 2), (3, 3))}


class Comparison(NamedTuple):
    """A sketch of m windows compared with a photo of n.

    A merge is the places of two rows, (..., 2) int64, among those of its round: all windows in the first,
    later what the round before left, in the same order, and last the row that it made.
    """

    distance: Tensor  # (...), squared, between the last row of either
    sketch_merges: list[Tensor]  # m - 1 of them
    photo_merges: list[Tensor]  # n - 1


class CMHM(Method):
    """Means of patch tokens over windows, and two pictures compared by a network that sees both.

    The windows are the same in all pictures: the whole, then halves, quarters or finer cells from left to
    right and top to bottom. Authors' code: VGG16 at 256 px, its map max-pooled in boxes of a sketch's strokes
    and in those that Selective Search finds in a photo, Adam at 1e-4, batches of 16, 200 epochs. The
    gate is that of the code; on the authors' slides it has weights of its own.
    """

    name = "cmhm"
    vectors = False

    def __init__(self, backbone: str, **options: Any) -> None:
        super().__init__(backbone, **options)
        self.network = PairNetwork(self.embed_dim, self.options.hidden)
        self.indivisible = "cmhm's network learns from pairs of the whole batch"

    def make_encoder(self, trunk: Backbone) -> PatchEncoder:
        grids = GRIDS[self.options.windows]
        trunk.check_blocks(f"cmhm.windows = {self.options.windows}, whose cells on a side", grids[-1][0])
        return PatchEncoder(trunk, nn.Linear(trunk.width, self.embed_dim), grids)

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Mean of [margin + D(s, p) - D(s, n)]+ over rows, n another photo of the batch."""
        negatives, there = other_photos(batch.photo_ids, batch.numbers[:, 1])
        sketch, photo = rows["sketch"].float(), rows["photo"].float()
        own, other = self.network(sketch, torch.stack([photo, photo[negatives]])).distance
        return {"total": (F.relu(self.options.margin + own - other) * there).mean()}

    def score(self, sketches: Tensor, photos: Tensor) -> Tensor:
        """Squared distances with the sign turned, (q, g) float32, 0 or less, larger is better.

        In fp64, so that equal photos get equal scores wherever they stand, and on the device of the model;
        nothing is left to chance.
        """
        network = copy.deepcopy(self.network).double().eval().requires_grad_(False)
        rows = (some.to(network.combine.weight) for some in (sketches, photos))
        # A block of pairs at a time: only the result grows with q * g.
        of_photos = torch.vmap(lambda *pair: network(*pair).distance, (None, 0), chunk_size=64)
        return -torch.vmap(of_photos, (0, None), chunk_size=16)(*rows).float().to(sketches.device)


class PairNetwork(nn.Module):
    """Co-attention and merging in turns, until one row is left of a sketch and one of a photo.

    In training chance chooses what is merged, by the straight-through Gumbel softmax at temperature 1; in
    eval mode it is the two rows with the largest dot product.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.sketch_view, self.photo_view = (nn.Linear(dim, hidden, bias=False) for _ in range(2))
        self.sketch_update, self.photo_update = (nn.Linear(dim, dim) for _ in range(2))
        self.combine = nn.Linear(2 * dim, dim)
        # Our own choice: the two sides begin alike. With torch's weights their differences drown the pair's.
        for layer in (self.sketch_update, self.photo_update):
            nn.init.normal_(layer.weight, std=0.005)
            nn.init.zeros_(layer.bias)

    def forward(self, sketches: Tensor, photos: Tensor) -> Comparison:
        """Rows (..., m, e) and (..., n, e), whose first axes broadcast; max(m, n) - 1 rounds."""
        merges: tuple[list[Tensor], list[Tensor]] = ([], [])
        while max(sketches.shape[-2], photos.shape[-2]) > 1:
            sketches, photos = self.attend(sketches, photos)
            sketches, photos = self.merge(sketches, merges[0]), self.merge(photos, merges[1])
        return Comparison((sketches - photos).square().sum(dim=(-2, -1)), *merges)

    def attend(self, sketches: Tensor, photos: Tensor) -> tuple[Tensor, Tensor]:
        """Each row looks at those of the other picture, and adds what the gate lets through."""
        views = self.sketch_view(sketches), self.photo_view(photos)
        affinity = einsum(*views, "... m h, ... n h -> ... m n") / views[0].shape[-1] ** 0.5
        seen, shown = affinity.softmax(dim=-1) @ photos, affinity.mT.softmax(dim=-1) @ sketches
        gated = torch.sigmoid(sketches * seen) * (sketches + seen)
        gated_photos = torch.sigmoid(photos * shown) * (photos + shown)
        sketches = F.relu(self.sketch_update(gated)) + sketches
        return sketches, F.relu(self.photo_update(gated_photos)) + photos

    def merge(self, rows: Tensor, merges: list[Tensor]) -> Tensor:
        """Two rows a, b become W_c [a ; b], the last row; their places are added to `merges`."""
        count = rows.shape[-2]
        if count == 1:
            return rows
        pairs = torch.combinations(torch.arange(count, device=rows.device))
        logits = (rows @ rows.mT)[..., pairs[:, 0], pairs[:, 1]]
        if self.training:
            choice = F.gumbel_softmax(logits, hard=True)
        else:
            choice = F.one_hot(logits.argmax(dim=-1), len(pairs)).to(rows)
        merges.append(pairs[choice.argmax(dim=-1)])
        # For each pair the order in which it comes last. A product with them hands the choice its gradient.
        orders = F.one_hot(F.one_hot(pairs, count).sum(dim=1).argsort(dim=1, stable=True), count)
        rows = einsum(choice, orders.to(rows), "... pair, pair to of -> ... to of") @ rows
        merged = self.combine(rearrange(rows[..., -2:, :], "... two e -> ... 1 (two e)"))
        return torch.cat([rows[..., :-2, :], merged], dim=-2)

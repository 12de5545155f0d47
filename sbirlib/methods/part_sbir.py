"""Part-SBIR (Chowdhury et al., CVPR 2022): sets of regions, matched by transport; some may be left out."""

from typing import NamedTuple

import torch
from einops import einsum, rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional as F

from sbirlib.data.batches import Batch
from sbirlib.layers import Backbone, other_photos
from sbirlib.methods.base import Method, PatchEncoder


class Match(NamedTuple):
    """The m regions of a sketch matched with the n of a photo."""

    distance: Tensor  # (...), 0 to 2: the mean of 1 - similarity under the plan
    plan: Tensor  # (..., m, n), how much of a sketch's region goes to a photo's; in all 1
    weights: Tensor  # (..., m), what the rows of the plan add up to


class PartSBIR(Method):
    """The patch tokens averaged over 3 x 3 regions, and two pictures compared region by region.

    Rows are regions as wide as the backbone's patch tokens, so `model.embed_dim` has no part in this method.
    The score is the transport distance alone, as in the authors' code; the adjacency term shapes the features
    only. Authors' code: VGG16 at 224 px, Adam at 1e-4, batches of 16 (eight of them to a step), a quadratic
    program for the plan, which Sinkhorn's algorithm replaces here, and no adjacency term, whose form is our
    own. Weights add up to 9 there and to 1 here, where its margin of 0.2 would be 0.022. It gives its solver
    the similarity for a cost (`part_sbir.cost`), and the solver makes the square of the sum small.
    """

    name = "part_sbir"
    vectors = False

    def make_encoder(self, trunk: Backbone) -> PatchEncoder:
        side = self.options.regions
        trunk.check_blocks("part_sbir.regions", side)
        return PatchEncoder(trunk, nn.Identity(), [(side, side)])

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Means of [margin + D(s, p) - D(s, n)]+ over rows, n another photo of the batch.

        D is the transport distance in one term, the difference of adjacencies in the other.
        """
        negatives, there = other_photos(batch.photo_ids, batch.numbers[:, 1])
        sketch, photo = rows["sketch"].float(), rows["photo"].float()
        both = torch.stack([photo, photo[negatives]])
        match = self.match(sketch, both)
        apart, margin = (match.distance, adjacency_difference(sketch, both, match)), self.options.margin
        transport, adjacency = ((F.relu(margin + own - other) * there).mean() for own, other in apart)
        total = transport + self.options.adjacency * adjacency
        return {"total": total, "transport": transport, "adjacency": adjacency}

    def score(self, sketches: Tensor, photos: Tensor) -> Tensor:
        """Transport distances with the sign turned, (q, g) float32 in [-2, 0], larger is better.

        In fp64, so that equal photos get equal scores wherever they stand.
        """
        # A block of pairs at a time: only the result grows with q * g.
        of_photos = torch.vmap(lambda *pair: self.match(*pair).distance, (None, 0), chunk_size=256)
        return -torch.vmap(of_photos, (0, None), chunk_size=16)(sketches.double(), photos.double()).float()

    def match(self, sketches: Tensor, photos: Tensor) -> Match:
        """Regions (..., m, d) of sketches and (..., n, d) of photos, whose first axes broadcast."""
        settings, weights, wanted = self.options, importance(sketches, photos), importance(photos, sketches)
        similarity = einsum(unit(sketches), unit(photos), "... m d, ... n d -> ... m n")
        cost = similarity if settings.cost == "published" else 1 - similarity
        plan = sinkhorn(cost, weights, wanted, epsilon=settings.epsilon, iterations=settings.iterations)
        return Match(reduce((1 - similarity) * plan, "... m n -> ...", "sum"), plan, weights)


def importance(regions: Tensor, others: Tensor) -> Tensor:
    """Weights (..., m), which add up to 1: how much each region is like the mean of the other picture."""
    mean = reduce(others, "... n d -> ... d", "mean")
    weights = F.relu(einsum(regions, mean, "... m d, ... d -> ... m")) + 1e-3
    return weights / weights.sum(dim=-1, keepdim=True)


def unit(regions: Tensor) -> Tensor:
    """Regions (..., m, d) less their mean over channels, of length 1: dot products are correlations."""
    return F.normalize(regions - regions.mean(dim=-1, keepdim=True), dim=-1)


def sinkhorn(cost: Tensor, rows: Tensor, columns: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """The plan T >= 0 (..., m, n) that makes sum(cost * T) - epsilon * entropy(T) small.

    Its columns add up to `columns` (..., n), after enough `iterations`, and its rows to `rows` (..., m),
    always. In the log domain: a small `epsilon` does not underflow. Source: Cuturi, NeurIPS 2013.
    """
    gain, log_rows, log_columns = -cost / epsilon, rows.log(), columns.log()
    down = torch.zeros_like(log_columns)
    for _ in range(iterations):
        across = log_rows - torch.logsumexp(gain + rearrange(down, "... n -> ... 1 n"), dim=-1)
        down = log_columns - torch.logsumexp(gain + rearrange(across, "... m -> ... m 1"), dim=-2)
    shares = torch.softmax(gain + rearrange(down, "... n -> ... 1 n"), dim=-1)
    return rearrange(rows, "... m -> ... m 1") * shares


def adjacency_difference(sketches: Tensor, photos: Tensor, match: Match) -> Tensor:
    """How else the regions of a sketch relate to each other than those of the photo do, (...), 0 to 4.

    Similarities A within the sketch against T A' T^t, those within the photo seen through the plan T, its
    rows brought to 1: the squared difference, averaged with the weights of both regions.
    """
    within = "... i d, ... j d -> ... i j"
    first, second = unit(sketches), unit(photos)
    shares = match.plan / rearrange(match.weights, "... m -> ... m 1")
    seen = shares @ einsum(second, second, within) @ shares.mT
    apart = (einsum(first, first, within) - seen) ** 2
    return einsum(apart, match.weights, match.weights, "... i j, ... i, ... j -> ...")

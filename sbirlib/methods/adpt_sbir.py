"""Adpt-SBIR (Bhunia et al., ECCV 2022): a step on a few pairs by one designer fits the model to that hand."""

import copy
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sbirlib.data import Batch, LoadedSplit, to_float
from sbirlib.layers.backbone import Backbone
from sbirlib.methods.b_siamese import Unit
from sbirlib.methods.base import Method
from sbirlib.methods.inner_loop import Weights, in_tasks, inner_step
from sbirlib.methods.on_the_fly import PooledEncoder

SHARP = 10  # of the inner loss, a softplus of triplets: the smooth corner is about 2 / SHARP wide


class AdptSBIR(Method):
    """Backbone and attention for all, and one head for both domains that adapts to a designer in one step.

    A task is a sketch of a batch, and the other ones by its designer are its support; every other photo is a
    negative. The margin of the step is learnt through it, for which the positive part is a softplus: the
    gradient of a hinge does not know its margin. Before the head, a triplet draws sketches by one designer
    together, and a discriminator of sketches and photos sends back its gradient reversed.

    The authors' code has baselines only: 64 dimensions, Adam at 1e-4, a margin of 0.2, terms weighted by 0.1
    or 0.01. The rate of the step and the discriminator's form are our own.
    """

    name = "adpt_sbir"
    sketch_encoder: PooledEncoder
    photo_encoder: PooledEncoder

    def __init__(self, backbone: str, **options: Any) -> None:
        super().__init__(backbone, **options)
        self.head = self.photo_encoder.embed = self.sketch_encoder.embed
        self.margin = nn.Parameter(torch.tensor(self.options.margin).logit())  # behind a sigmoid
        width = next(self.head.parameters()).shape[1]
        self.discriminator = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 1), nn.Flatten(0))
        self.indivisible = "adpt_sbir's head learns from the whole batch"

    def make_encoder(self, trunk: Backbone) -> PooledEncoder:
        size = trunk.dim if trunk.pool == "grid" else trunk.width
        return PooledEncoder(trunk, nn.Sequential(Unit(), nn.Linear(size, self.embed_dim)))

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Features before the head, (b, d) each."""
        sketch, photo = self.sketch_encoder, self.photo_encoder
        return {"sketch": sketch.features(batch.sketch), "photo": photo.features(batch.photo)}

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """L = L_triplet after the step + L_domain + designer * L_designer, over all triplets of the batch."""
        sketch, photo = rows["sketch"].float(), rows["photo"].float()
        places = torch.arange(len(sketch), device=sketch.device)
        others = batch.photo_ids[:, None] != batch.photo_ids
        query, same = places[:, None] == places, batch.designers[:, None] == batch.designers
        support = same & ~query
        weights = self._step(sketch, photo, places, support[..., None] & others)
        further = self._nearer(weights, sketch, photo, places).diagonal().mT
        triplet = mean_where(F.relu(self.options.margin + further), others)
        guess = self.discriminator(reversed_gradient(torch.cat([sketch, photo]), self.options.domain))
        is_photo = torch.cat([torch.zeros(len(sketch)), torch.ones(len(photo))]).to(guess)
        domain = F.binary_cross_entropy_with_logits(guess, is_photo)
        apart = distances(sketch, sketch)
        loss = F.relu(self.options.margin + apart[:, :, None] - apart[:, None, :])
        designer = mean_where(loss.flatten(1), (support[:, :, None] & ~same[:, None, :]).flatten(1))
        total = triplet + domain + self.options.designer * designer
        return {"total": total, "triplet": triplet, "domain": domain, "designer": designer}

    def adapt(self, data: LoadedSplit, support: Tensor) -> Self:
        """A copy after a step on these sketches (k,) of a split, or as it is without any."""
        adapted, device = copy.deepcopy(self), self.margin.device
        with torch.no_grad():
            sketch = self.sketch_encoder.features(to_float(data.sketches[support], device)).float()
            parts = (to_float(part, device) for part in data.photos.split(128))
            photo = torch.cat([self.photo_encoder.features(part).float() for part in parts])
        own = data.photo_index[support].to(device)
        others = own[:, None] != torch.arange(len(photo), device=device)
        with torch.enable_grad(), torch.autocast(device.type, enabled=False):
            weights = self._step(sketch, photo, own, others[None])
        adapted.head.load_state_dict({name: weight[0] for name, weight in weights.items()})
        return adapted

    def _step(self, sketch: Tensor, photo: Tensor, own: Tensor, triplets: Tensor) -> Weights:
        """The head's weights after the step on the triplets (tasks, b, g) bool of each task."""

        def support_loss(weights: Weights) -> Tensor:
            further = self.margin.sigmoid() + self._nearer(weights, sketch, photo, own)
            return mean_where(F.softplus(further, beta=SHARP), triplets)

        return inner_step(self.head, support_loss, len(triplets), self.options.rate)

    def _nearer(self, weights: Weights, sketch: Tensor, photo: Tensor, own: Tensor) -> Tensor:
        """|s - p| - |s - n|, (tasks, b, g), of sketches (b, d), photos n (g, d), of these p at `own`."""
        tasks = len(next(iter(weights.values())))
        rows = [in_tasks(self.head, weights, some.expand(tasks, -1, -1)) for some in (sketch, photo)]
        apart = distances(*rows)
        return apart.take_along_dim(own[None, :, None], dim=2) - apart


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Distances (..., n, m) of rows (..., n, e) and (..., m, e), brought to length 1."""
    first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    # The mode that has a second derivative.
    return torch.cdist(first, second, compute_mode="use_mm_for_euclid_dist")


def mean_where(values: Tensor, there: Tensor) -> Tensor:
    """The mean over the last two axes of the values that are `there`, (...); 0 without any."""
    return (values * there).sum(dim=(-2, -1)) / there.sum(dim=(-2, -1)).clamp(min=1)


def reversed_gradient(rows: Tensor, strength: float) -> Tensor:
    """The same rows, through which a gradient comes back with its sign turned, times `strength`."""
    return rows.detach() - strength * (rows - rows.detach())

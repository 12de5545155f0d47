"""OnTheFly (Bhunia et al., CVPR 2020): rewarded for finding the photo while the sketch is being drawn."""

import copy
import math
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from sbirlib.data import Batch, LoadedSplit, to_float
from sbirlib.layers.backbone import Backbone, Tokens
from sbirlib.methods.b_siamese import BSiamese
from sbirlib.methods.base import Encoder, Stage
from sbirlib.methods.dssa import SpatialAttention
from sbirlib.methods.ppo import SMALL, clipped_surrogate, old_policy, ranks
from sbirlib.methods.recordings import drawn_so_far


class OnTheFly(BSiamese):
    """B-Siamese with attention on complete sketches, then a policy that embeds them at any time of drawing.

    An episode is a sketch from its first strokes to its last; an action is the embedding of what is drawn so
    far, rewarded by the rank of the true photo among those that are trained on. The mean of the policy is the
    last layer of the sketch encoder, and all that still learns; so sketches and photos have a last layer
    each, also where they share an encoder. Sketches are searched with by that mean.

    Authors' code: InceptionV3 at 299 px without attention, 64 dimensions, a policy that begins at random,
    REINFORCE with 1 / rank alone, Adam at 1e-3 and then 1e-4, gradients up to 40, 16 sketches a step.
    """

    name = "on_the_fly"
    sketch_encoder: "PooledEncoder"

    def __init__(self, backbone: str, **options: Any) -> None:
        super().__init__(backbone, **options)
        photo = self.photo_encoder = copy.copy(self.photo_encoder)
        photo._modules = photo._modules | {"embed": copy.deepcopy(photo.embed)}
        self.policy = Policy(self.sketch_encoder.embed, self.embed_dim, self.options.spread)
        self.old = old_policy(self.policy, self.options.refresh)
        # Of the training split: drawings before the policy (n, T, d), photos (m, e), whose photo is whose.
        self.drawings = self.photos = self.photo_index = torch.empty(0)

    def make_encoder(self, trunk: Backbone) -> "PooledEncoder":
        size = trunk.dim if trunk.pool == "grid" else trunk.width
        return PooledEncoder(trunk, nn.Linear(size, self.embed_dim))

    def stages(self) -> list[Stage]:
        """First the encoders, then the policy."""
        share, encoders = self.options.retrieval, [self.sketch_encoder, self.photo_encoder]
        # What the second one needs is embedded only once, and without a gradient.
        return [Stage("retrieval", share, encoders), Stage("policy", 1 - share, [self.policy], passes=0)]

    @torch.no_grad()
    def enter(self, stage: str, data: LoadedSplit) -> None:
        """Embeds the photos, and the partial drawings of every sketch as far as the policy."""
        encoder, was_training, device = self.sketch_encoder, self.training, next(self.parameters()).device
        self.eval()
        photos = [self.embed_photos(to_float(part, device)) for part in data.photos.split(128)]
        shown = drawn_so_far(data.split, self.options.steps, self.image_size, self.fit)
        drawings = [encoder.pooled(encoder.backbone(to_float(pages, device))) for pages in shown]
        self.photos, self.drawings = torch.cat(photos), torch.stack(drawings)
        self.photo_index = data.photo_index.to(device)
        self.train(was_training)

    def after_step(self) -> None:
        """The old policy follows."""
        if self.stage != "policy":
            self.old.n_averaged.zero_()  # so that it is copied: the policy's layer is still the encoder's
        self.old.update_parameters(self.policy)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Unit embeddings of sketch and photo; in the policy's stage (b, k, T) for k episodes of a sketch.

        These are log-probabilities of actions by the new and by the old policy, 1 / rank of the photo, and
        how unsettled the list of photos was.
        """
        if self.stage != "policy":
            return super().encode(batch)
        # Ratios of probabilities are no matter for bf16.
        with torch.autocast(batch.rows.device.type, enabled=False):
            drawings = self.drawings[batch.rows, None].float()
            old, new = self.old(drawings), self.policy(drawings)
            shape = (self.options.episodes, *old.mean.shape[2:])
            actions = old.mean + old.stddev * noise(batch.numbers[:, 2], shape)
            scores = F.normalize(actions, dim=-1) @ self.photos.float().T
            lists = scores.argsort(dim=-1, descending=True, stable=True)
            likely = {"new": new.log_prob(actions).sum(dim=-1), "old": old.log_prob(actions).sum(dim=-1)}
            found = 1 / ranks(scores, self.photo_index[batch.rows])
            return likely | {"found": found, "unsettled": unsettled(lists)}

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """B-Siamese's triplet loss, then the mean of -min(r R, clip(r) R) over steps of episodes.

        R = 1 / rank - stable * (how unsettled), normalised over the episodes of a sketch.
        """
        terms = dict.fromkeys(self.terms, batch.numbers.new_zeros(()))
        if self.stage != "policy":
            loss = super().compare(rows, batch)["total"]
            return terms | {"total": loss, "triplet": loss}
        reward = rows["found"] - self.options.stable * rows["unsettled"]
        if self.options.episodes > 1:
            # By their spread, too: or steps at which the photo is far down the list would hardly count.
            spread, mean = torch.std_mean(reward, dim=1, keepdim=True)
            reward = (reward - mean) / (spread + SMALL)
        loss = -clipped_surrogate(rows["new"], rows["old"], reward, self.options.clip).mean()
        return terms | {"total": loss, "policy": loss, "reciprocal_rank": rows["found"].mean()}


class PooledEncoder(Encoder):
    """Backbone, attention over its patch tokens, their mean or grid of means, and an embedding of that."""

    def __init__(self, backbone: Backbone, embed: nn.Module) -> None:
        super().__init__(backbone, embed)
        self.attention = SpatialAttention(backbone.width)

    def features(self, images: Tensor) -> Tensor:
        """(b, 3, s, s) in [0, 1] -> what is embedded (b, d), or (b, cells * d) of a grid."""
        return self.pooled(self.backbone(images))

    def pooled(self, tokens: Tokens) -> Tensor:
        """Tokens of the backbone -> what is embedded (b, d), or (b, cells * d) of a grid."""
        return self.backbone.pooled(self.attention(tokens.patches))

    def embedding(self, tokens: Tokens) -> Tensor:
        return self.embed(self.pooled(tokens))


class Policy(nn.Module):
    """Actions (..., e) for drawings (..., d): normal about a layer's output, with learnt variances."""

    def __init__(self, mean: nn.Module, size: int, spread: float) -> None:
        super().__init__()
        self.mean = mean
        self.log_variance = nn.Parameter(torch.full((size,), 2 * math.log(spread)))

    def forward(self, drawings: Tensor) -> Normal:
        return Normal(self.mean(drawings), (self.log_variance / 2).exp())


def noise(numbers: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Normal numbers (b, *shape), those of each row by its own of the `numbers` (b,) in [0, 1)."""
    seeds = (numbers.double() * 2**32).long().tolist()
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(numbers.device)


def unsettled(lists: Tensor) -> Tensor:
    """[tau(L_t, L_t+1) - tau(L_t-1, L_t)]+ of ranked lists (..., T, m): (..., T), 0 at both ends.

    Positive where the list of photos changes more after a step than before it. Source: talk of the paper.
    """
    changes = kendall_distance(lists[..., :-1, :], lists[..., 1:, :])
    return F.pad(F.relu(changes[..., 1:] - changes[..., :-1]), (1, 1))[..., : lists.shape[-2]]


def kendall_distance(first: Tensor, second: Tensor) -> Tensor:
    """The share of pairs of photos that ranked lists (..., m) of 0 to m - 1 have in another order: (...).

    Each is an inversion among the places of the first list's photos in the second; merge sort counts them.
    """
    count = first.shape[-1]
    places, levels = second.argsort(dim=-1).gather(-1, first), (count - 1).bit_length()
    places, inversions = F.pad(places, (0, (1 << levels) - count), value=count), torch.zeros(())
    for width in (1 << level for level in range(levels)):
        left, right = rearrange(places, "... (n side w) -> side ... n w", side=2, w=width).contiguous()
        smaller = torch.searchsorted(left, right, right=True)
        inversions = inversions + (width - smaller).sum(dim=(-2, -1))
        places = torch.cat([left, right], dim=-1).sort(dim=-1).values.flatten(-2)
    return inversions / (count * (count - 1) / 2)

"""StyleMeUp (Sain et al., CVPR 2021): what all hands draw alike, apart from how one hand draws it."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from sbirlib.config.methods import StyleMeUpConfig
from sbirlib.data import Batch, edge_map
from sbirlib.layers.backbone import Backbone
from sbirlib.layers.losses import other_photos
from sbirlib.methods.base import PAPERS, Encoder, Method, Needs
from sbirlib.methods.inner_loop import Weights, in_tasks, inner_step

SIDE = 48  # px, of what is decoded
SCALE, SHIFT = 0.3, 0.5  # spreads that the made-up hands begin with


class StyleMeUp(Method):
    """A VAE that draws a sketch from another hand's shape and its own style, learnt to be learnt in a step.

    A task is a photo. One head splits features of sketches and photos into a shared part, which is searched
    with, and a normal style; they add up to what a decoder draws. A step on two sketches, whose features are
    scaled and shifted at random as by other hands, has to serve the second of them with a third. These
    spreads and the step's regulariser psi learn through the step, at second order. Where a photo has two
    sketches the third is the first again, and where it has one, other views of it stand in.

    Authors' code: InceptionV3-like trunk from scratch at 256 px with three sketches of each photo, 128
    dimensions (64 in the paper), vectors of any length, the step on all weights, Adam at 1e-4, 12 photos a
    step, 200 epochs; first order, so psi never learns there, and no random features. Here the head alone
    takes the step, triplets compare unit vectors, random features follow the trunk and not each of its
    norms, and 48 grey px are decoded, of photos' edge maps where the encoder sees those.
    """

    name = "style_me_up"
    paper = PAPERS[name]
    settings = StyleMeUpConfig
    terms = ("total", "style", "domain", "kl", "triplet", "full_triplet")
    needs = Needs(second_views=True, sisters=2)

    def __init__(self, backbone: str, **options: Any) -> None:
        super().__init__(backbone, **options)
        shared = self.photo_encoder.embed = self.sketch_encoder.embed
        width, size = self.sketch_encoder.backbone.dim, self.embed_dim
        self.head = Head(shared, *(nn.Linear(width, size) for _ in range(2)))
        self.hands = FeatureNoise(width)
        self.psi = nn.Parameter(torch.zeros(size, width + 1))  # beside weights and bias of the shared part
        self.decoder = decoder(size)
        self.indivisible = "style_me_up's head learns from the whole batch"

    def make_encoder(self, trunk: Backbone) -> Encoder:
        return Encoder(trunk, nn.Linear(trunk.dim, self.embed_dim))

    @property
    def passes(self) -> float:
        """Three sketches and a photo."""
        return 4

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Features of three sketches and the photo (b, 4, d), and these as they are to be drawn."""
        sketches = torch.cat([batch.sketch, batch.sketch_second, batch.sketch_third])
        photos = self.photo_encoder.backbone(batch.photo).cls
        features = torch.cat([self.sketch_encoder.backbone(sketches).cls, photos])
        seen = edge_map(batch.photo) if self.photo_encoder.backbone.edges else batch.photo
        pictures = F.adaptive_avg_pool2d(torch.cat([sketches, seen]).mean(dim=1), SIDE)
        rows = {"features": features, "pictures": pictures}
        return {name: rearrange(value, "(four b) ... -> b four ...", four=4) for name, value in rows.items()}

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """L = L_style + L_domain + L_KL + L_tri(shared) + L_tri(shared + style) of the second and third.

        The head is that after a step on L + sum(psi * |W|) of first and second, W the shared part's weights.
        """
        features, pictures = rows["features"].float(), rows["pictures"].float()
        negatives, there = other_photos(batch.photo_ids, batch.numbers[:, 1])
        features = torch.cat([features, features[negatives, 3:]], dim=1)
        support, query = [0, 1, 3], [1, 2, 3]

        def support_loss(weights: Weights) -> Tensor:
            of_shared = torch.cat([weights["shared.weight"], weights["shared.bias"][..., None]], dim=-1)
            terms = self._terms(weights, self.hands(features[:, [*support, 4]]), pictures[:, support], there)
            return torch.stack(list(terms.values())).sum(dim=0) + (self.psi * of_shared.abs()).sum((1, 2))

        weights = inner_step(self.head, support_loss, len(features), self.options.rate)
        found = self._terms(weights, features[:, [*query, 4]], pictures[:, query], there)
        terms = {name: term.mean() for name, term in found.items()}
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def _terms(
        self, weights: Weights, features: Tensor, pictures: Tensor, there: Tensor
    ) -> dict[str, Tensor]:
        """The terms (b,) of two sketches, their photo and another one: features (b, 4, d), 3 pictures."""
        shared, mean, log_variance = in_tasks(self.head, weights, features).unbind(dim=-2)
        style = mean
        if self.training:
            style = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        full = shared + style
        # A sketch's shape in the style of the other; then sketches and photo as they are.
        codes = torch.cat([shared[:, :2] + style[:, [1, 0]], full[:, :3]], dim=1)
        goals, drawn = [1, 0, 2, 2, 0, 1], [0, 1, 2, 3, 4, 4]
        apart = (self.decode(codes)[:, drawn] - pictures[:, goals]).square().mean(dim=(2, 3))
        return {
            "style": apart[:, :2].mean(dim=1),
            "domain": apart[:, 2:].mean(dim=1),
            "kl": kl_to_normal(mean, log_variance).mean(dim=(1, 2)),
            "triplet": self._triplet(shared) * there,
            "full_triplet": self._triplet(full) * there,
        }

    def _triplet(self, codes: Tensor) -> Tensor:
        """Mean of [margin + |s - p| - |s - n|]+ over both sketches of codes (b, 4, e): (b,)."""
        sketches, photo, other = F.normalize(codes, dim=-1).split([2, 1, 1], dim=1)
        loss = F.triplet_margin_loss(sketches, photo, other, margin=self.options.margin, reduction="none")
        return loss.mean(dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (..., e) -> grey pictures (..., SIDE, SIDE) in [0, 1]."""
        drawn: Tensor = self.decoder(codes.flatten(0, -2))
        return drawn.unflatten(0, codes.shape[:-1])

    @torch.no_grad()
    def swapped(self, first: Tensor, second: Tensor) -> Tensor:
        """Sketches (b, 3, h, w) as the hand of the other would draw them, (b, 2, SIDE, SIDE) in [0, 1].

        Shape of the first and style of the second, then the reverse.
        """
        pairs = torch.stack([self._square(first), self._square(second)], dim=1)
        features = self.sketch_encoder.backbone(pairs.flatten(0, 1)).cls.unflatten(0, (-1, 2))
        shared, style, _ = self.head(features).unbind(dim=-2)
        return self.decode(shared + style.flip(1))


class Head(nn.Module):
    """Features (..., d) -> (..., 3, e): shared part, and mean and log variance of the style."""

    def __init__(self, shared: nn.Module, mean: nn.Module, log_variance: nn.Module) -> None:
        super().__init__()
        self.shared, self.mean, self.log_variance = shared, mean, log_variance

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([part(features) for part in self.children()], dim=-2)


class FeatureNoise(nn.Module):
    """Features (b, n, d), in training scaled by N(1, .) and shifted by N(0, .), alike for all n of a task.

    Spreads are learnt, one for each of d. Source: feature-wise transformation layers (Tseng et al., arXiv
    2001.08735); where they begin is from memory.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.full((width,), start)) for start in (SCALE, SHIFT))

    def forward(self, features: Tensor) -> Tensor:
        if not self.training:
            return features
        scale, shift = torch.randn(2, len(features), 1, features.shape[-1], device=features.device)
        # So steep that a spread is its parameter where that is above 0.
        scale, shift = scale * F.softplus(self.scale, beta=100), shift * F.softplus(self.shift, beta=100)
        return features * (1 + scale) + shift


def decoder(size: int, width: int = 64) -> nn.Sequential:
    """Codes (b, size) -> grey pictures (b, SIDE, SIDE) in [0, 1]: 6 x 6 cells, doubled three times."""
    layers: list[nn.Module] = [nn.Linear(size, 36 * width), nn.Unflatten(1, (width, 6, 6))]
    for _ in range(3):
        layers += [nn.GELU(), nn.Upsample(scale_factor=2), nn.Conv2d(width, width // 2, 3, padding=1)]
        width //= 2
    return nn.Sequential(*layers, nn.GELU(), nn.Conv2d(width, 1, 1), nn.Flatten(1, 2), nn.Sigmoid())


def kl_to_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) || N(0, 1)) of each element."""
    return (mean.square() + log_variance.exp() - 1 - log_variance) / 2

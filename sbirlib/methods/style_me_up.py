"""StyleMeUp (Sain et al., CVPR 2021): what all hands draw alike, apart from how one hand draws it."""

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from sbirlib.data import Batch, edge_map
from sbirlib.layers import Backbone, Tokens, other_photos
from sbirlib.methods.base import Encoder, Method
from sbirlib.methods.inner_loop import Weights, in_tasks, inner_step

SIDE = 48  # px, of what is decoded
SPREADS = (0.3, 0.5)  # of scale and shift, where they begin


class StyleMeUp(Method):
    """A VAE that splits sketches and photos into what they share and a style, learnt to be learnt in a step.

    A task is a photo. A head gives the shared part, which is searched with, and a normal style; their sum is
    decoded. A step of it on two sketches, whose features are scaled and shifted at random as by other hands,
    has to serve the second and a third; how far, and the step's regulariser psi, is learnt through it. Where
    a photo has two sketches the third is the first again, where it has one other views stand in.

    Authors' code: trunk from scratch at 256 px, 128 dimensions (64 in the paper), vectors of any length, Adam
    at 1e-4, 12 photos a step, 200 epochs; no random features, and psi never learns there. Here the head alone
    takes the step, features are random after the trunk and not after each norm, triplets compare unit
    vectors, and photos are decoded as the encoder sees them.
    """

    name = "style_me_up"

    def __init__(self, backbone: str, **options: Any) -> None:
        super().__init__(backbone, **options)
        self.head = self.photo_encoder.embed = self.sketch_encoder.embed
        width = self.sketch_encoder.backbone.dim
        self.psi = nn.Parameter(torch.zeros(self.embed_dim, width + 1))  # for weights and bias
        self.spreads = nn.Parameter(torch.tensor(SPREADS)[:, None].repeat(1, width))
        self.decoder = decoder(self.embed_dim)
        self.indivisible = "style_me_up's head learns from the whole batch"

    def make_encoder(self, trunk: Backbone) -> "SharedPart":
        return SharedPart(trunk, nn.Linear(trunk.dim, 3 * self.embed_dim))

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Features of three sketches and the photo (b, 4, d), and these as they are to be decoded."""
        sketches = torch.cat([batch.sketch, batch.sketch_second, batch.sketch_third])
        photos = self.photo_encoder.backbone(batch.photo).cls
        features = torch.cat([self.sketch_encoder.backbone(sketches).cls, photos])
        seen = edge_map(batch.photo) if self.photo_encoder.backbone.edges else batch.photo
        pictures = F.adaptive_avg_pool2d(torch.cat([sketches, seen]).mean(dim=1), SIDE)
        rows = {"features": features, "pictures": pictures}
        return {name: rearrange(value, "(four b) ... -> b four ...", four=4) for name, value in rows.items()}

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The sum L of five terms for second and third sketch, by the head after a step on first and second.

        The step is on L + sum(psi * |W|), W the weights of the shared part.
        """
        features, pictures = rows["features"].float(), rows["pictures"].float()
        negatives, there = other_photos(batch.photo_ids, batch.numbers[:, 1])
        features = torch.cat([features, features[negatives, 3:]], dim=1)
        made_up = self._by_other_hands(features) if self.training else features

        def support_loss(weights: Weights) -> Tensor:
            terms = self._terms(weights, made_up[:, [0, 1, 3, 4]], pictures[:, [0, 1, 3]], there)
            shared = torch.cat([weights["weight"], weights["bias"][..., None]], dim=-1)[:, : self.embed_dim]
            return torch.stack(list(terms.values())).sum(dim=0) + (self.psi * shared.abs()).sum(dim=(1, 2))

        weights = inner_step(self.head, support_loss, len(features), self.options.rate)
        found = self._terms(weights, features[:, 1:], pictures[:, 1:], there)
        terms = {name: term.mean() for name, term in found.items()}
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def _by_other_hands(self, features: Tensor) -> Tensor:
        """Features (b, n, d) scaled by N(1, .) and shifted by N(0, .), in one way for each task.

        Source: feature-wise transformation layers (Tseng et al., arXiv 2001.08735); values from memory.
        """
        # So steep that a spread is its parameter, but never below 0.
        spreads = F.softplus(self.spreads, beta=100)
        noise = torch.randn(len(features), 1, *spreads.shape, device=features.device)
        scale, shift = (spreads * noise).unbind(dim=2)
        return features * (1 + scale) + shift

    def _terms(self, weights: Weights, rows: Tensor, pictures: Tensor, there: Tensor) -> dict[str, Tensor]:
        """The terms (b,) of features (b, 4, d): two sketches, their photo and another; three pictures."""
        shared, mean, log_variance = in_tasks(self.head, weights, rows).chunk(3, dim=-1)
        # Not checked: what is no number any more, the trainer finds.
        hand = Normal(mean, (log_variance / 2).exp(), validate_args=False)
        style = hand.rsample() if self.training else mean
        full = shared + style
        # A sketch's shared part in the style of the other; then sketches and photo as they are.
        drawn = self.decode(torch.cat([shared[:, :2] + style[:, [1, 0]], full[:, :3]], dim=1))
        goals = pictures[:, [1, 0, 2, 2, 0, 1]]
        apart = (drawn[:, [0, 1, 2, 3, 4, 4]] - goals).square().mean(dim=(2, 3))
        return {
            "style": apart[:, :2].mean(dim=1),
            "domain": apart[:, 2:].mean(dim=1),
            "kl": self.options.kl * kl_divergence(hand, Normal(0.0, 1.0)).mean(dim=(1, 2)),
            "triplet": self._triplet(shared) * there,
            "full_triplet": self._triplet(full) * there,
        }

    def _triplet(self, codes: Tensor) -> Tensor:
        """Mean of [margin + |s - p| - |s - n|]+ over both sketches of codes (b, 4, e): (b,)."""
        sketches, photo, other = F.normalize(codes, dim=-1).split([2, 1, 1], dim=1)
        loss = F.triplet_margin_loss(sketches, photo, other, margin=self.options.margin, reduction="none")
        return loss.mean(dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (b, n, e) -> grey pictures (b, n, SIDE, SIDE) in [0, 1]."""
        return self.decoder(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])

    @torch.no_grad()
    def swapped(self, first: Tensor, second: Tensor) -> Tensor:
        """Sketches (b, 3, h, w) with their styles swapped, decoded: (b, 2, SIDE, SIDE) in [0, 1].

        What the first shows in the style of the second, then the reverse.
        """
        features = [self.sketch_encoder.backbone(self._square(images)).cls for images in (first, second)]
        shared, style, _ = self.head(torch.stack(features, dim=1)).chunk(3, dim=-1)
        return self.decode(shared + style.flip(1))


class SharedPart(Encoder):
    """An encoder whose layer makes three embeddings of the global token; the first is searched with."""

    def embedding(self, tokens: Tokens) -> Tensor:
        """Tokens of the backbone -> the shared part (b, e), of any length."""
        return self.embed(tokens.cls).chunk(3, dim=-1)[0]


def decoder(size: int, width: int = 32) -> nn.Sequential:
    """Codes (b, size) -> grey pictures (b, SIDE, SIDE) in [0, 1]: 6 x 6 cells, doubled three times."""
    layers: list[nn.Module] = [nn.Linear(size, 36 * width), nn.Unflatten(1, (width, 6, 6))]
    for _ in range(3):
        layers += [nn.GELU(), nn.Upsample(scale_factor=2), nn.Conv2d(width, width // 2, 3, padding=1)]
        width //= 2
    return nn.Sequential(*layers, nn.GELU(), nn.Conv2d(width, 1, 1), nn.Flatten(1, 2), nn.Sigmoid())

"""Draws a sketch of a photo, point by point: the generator of "More Photos Are All You Need"."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence
from torch.nn import functional as F

from sbirlib.layers.backbone import Backbone

GOES_ON, STROKE_ENDS, DRAWING_ENDS = range(3)  # what the pen does after a point
LATENT, MIXTURES = 128, 20  # dimensions of the latent, and normals in the mixture; authors' code
UNIT = 0.1  # of the picture's side, in which offsets are about 1
WAVES = 5  # octaves of sines and cosines that tell the network a place

Two = tuple[Tensor, Tensor]
# Of the next point, (b, t): its offset in UNIT, and what the pen does there.
Next = tuple[MixtureSameFamily, Categorical]


class SketchGenerator(nn.Module):
    """A sequence decoder that looks at the patch tokens of a photo before and after each of its steps.

    Drawings are points (b, t, 3): x and y as shares of the picture's side, and what the pen does next; what
    follows the first DRAWING_ENDS does not count. As in sketch-rnn (Ha and Eck, arXiv 1704.03477), the offset
    to the next point is a mixture of bivariate normals. Every second one of them is about a place of the
    picture instead of about the last point, since a stroke may begin anywhere.
    """

    places: Tensor

    def __init__(self, backbone: Backbone, hidden: int) -> None:
        super().__init__()
        self.backbone = backbone
        given = 5 + 4 * WAVES  # what the pen does, the last offset, the place
        self.posterior, self.begin = nn.Linear(backbone.width, 2 * LATENT), nn.Linear(LATENT, 2 * hidden)
        self.key, self.value = (nn.Linear(backbone.width + 4 * WAVES, hidden) for _ in range(2))
        self.before, self.after = nn.Linear(given, hidden), nn.Linear(hidden + 4 * WAVES, hidden)
        self.decoder = nn.LSTM(given + hidden, hidden, batch_first=True)
        self.head = nn.Linear(2 * hidden, 6 * MIXTURES + 3)
        down, across = ((torch.arange(side) + 0.5) / side for side in backbone.grid)
        self.register_buffer("places", waves(torch.cartesian_prod(down, across).flip(-1)), persistent=False)

    def forward(self, photos: Tensor, points: Tensor, noise: Tensor, temperature: float = 1.0) -> Two:
        """Log-likelihoods of drawings (b, t, 3), means over points, and the latent's KL, both (b,).

        `noise` (b, LATENT) is normal, and chooses among what the latent of a photo (b, 3, s, s) may be.
        """
        tokens, latent, state = self.look(photos, noise)
        start = points.new_tensor([0.5, 0.5, STROKE_ENDS]).expand(len(points), 1, 3)
        line = torch.cat([start, points], dim=1)
        offsets, pen = line[..., :2].diff(dim=1) / UNIT, points[..., 2].long()
        came = F.pad(offsets, (0, 0, 1, 0))[:, :-1]
        (mixture, lifted), _ = self.step(tokens, line[:, :-1], came, state, temperature)
        ended = (pen == DRAWING_ENDS).long()
        counts = ended.cumsum(dim=1) - ended == 0
        each = mixture.log_prob(offsets) + lifted.log_prob(pen)
        likelihood = (each * counts).sum(dim=1) / counts.sum(dim=1)
        return likelihood, kl_divergence(latent, Normal(0.0, 1.0)).mean(dim=1)

    @torch.no_grad()
    def sample(self, photos: Tensor, noise: Tensor, count: int, temperature: float) -> Tensor:
        """Drawings (b, count, 3) of photos; normal `noise` (b, LATENT) chooses latents, chance the points."""
        tokens, _, state = self.look(photos, noise)
        last = photos.new_tensor([0.5, 0.5, STROKE_ENDS]).expand(len(photos), 1, 3)
        offset, points = torch.zeros_like(last[..., :2]), []
        for _ in range(count):
            (mixture, pen), state = self.step(tokens, last, offset, state, temperature)
            place = (last[..., :2] + UNIT * mixture.sample()).clamp(0, 1)  # the pen stays on the page
            offset = (place - last[..., :2]) / UNIT
            last = torch.cat([place, pen.sample()[..., None]], dim=-1)
            points.append(last)
        return torch.cat(points, dim=1)

    def look(self, photos: Tensor, noise: Tensor) -> tuple[Two, Normal, Two]:
        """Keys and values of the patches (b, n, d), the latent, and the decoder's first state."""
        patches = self.backbone(photos).patches
        mean, spread = self.posterior(reduce(patches, "b n d -> b d", "mean")).chunk(2, dim=-1)
        latent = Normal(mean, spread.exp(), validate_args=False)
        begin = self.begin(latent.mean + latent.stddev * noise).tanh()
        hidden, cell = rearrange(begin, "b (two d) -> two 1 b d", two=2).contiguous()
        where = torch.cat([patches, self.places.expand(len(patches), -1, -1)], dim=-1)
        return (self.key(where), self.value(where)), latent, (hidden, cell)

    def step(
        self, tokens: Two, last: Tensor, came: Tensor, state: Two, temperature: float
    ) -> tuple[Next, Two]:
        """From the last points (b, t, 3) and the offsets to them (b, t, 2), in order, to the next ones."""
        places = waves(last[..., :2])
        given = torch.cat([F.one_hot(last[..., 2].long(), 3), came, places], dim=-1)
        here = F.scaled_dot_product_attention(self.before(given), *tokens)
        hidden, state = self.decoder(torch.cat([given, here], dim=-1), state)
        there = F.scaled_dot_product_attention(self.after(torch.cat([hidden, places], dim=-1)), *tokens)
        raw, pen = self.head(torch.cat([hidden, there], dim=-1)).split([6 * MIXTURES, 3], dim=-1)
        weight, x, y, wide, high, turn = rearrange(raw, "b t (k m) -> k b t m", k=6)
        about_a_place = torch.arange(MIXTURES, device=last.device)[:, None] % 2
        mean = torch.stack([x, y], dim=-1) - about_a_place * (last[..., None, :2] - 0.5) / UNIT
        # Temperature as in sketch-rnn, but for the pen, which would hardly be lifted any more. The root is
        # Cholesky's, of two deviations and their correlation.
        wide, high = (math.sqrt(temperature) * side.clamp(-6, 6).exp() for side in (wide, high))
        turn = 0.99 * turn.tanh()
        root = torch.stack([wide, torch.zeros_like(wide), turn * high, (1 - turn**2).sqrt() * high], dim=-1)
        root = rearrange(root, "... (row column) -> ... row column", row=2)
        normals = MultivariateNormal(mean, scale_tril=root, validate_args=False)
        which, lifted = (Categorical(logits=x, validate_args=False) for x in (weight / temperature, pen))
        return (MixtureSameFamily(which, normals, validate_args=False), lifted), state


def waves(places: Tensor) -> Tensor:
    """Places (..., 2) in [0, 1] as sines and cosines (..., 4 * WAVES), the slowest of half a wave."""
    angles = places[..., None] * math.pi * 2.0 ** torch.arange(WAVES, device=places.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def to_points(strokes: Sequence[np.ndarray], most: int) -> Tensor:
    """Strokes (n, 2) each -> (most, 3), as the generator draws them; what is too long is cut off."""
    pens = [[GOES_ON] * (len(stroke) - 1) + [STROKE_ENDS] for stroke in strokes]
    line = np.column_stack([np.concatenate(strokes), np.concatenate(pens)])[:most]
    points = torch.full((most, 3), float(DRAWING_ENDS))
    points[: len(line)] = torch.from_numpy(line)
    points[len(line) - 1, 2] = DRAWING_ENDS
    return points


def to_strokes(points: Tensor) -> tuple[np.ndarray, ...]:
    """The drawing (t, 3) as strokes (n, 2) up to its end; one without an end is complete as it is."""
    places, pen = points[:, :2].double().cpu().numpy(), points[:, 2].cpu().numpy()
    ends = np.flatnonzero(pen == DRAWING_ENDS)[:1]
    last = ends[0] if len(ends) else len(pen) - 1
    return tuple(np.split(places[: last + 1], np.flatnonzero(pen[:last] != GOES_ON) + 1))

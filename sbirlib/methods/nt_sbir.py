"""NT-SBIR (Bhunia et al., CVPR 2022): strokes that hurt are dropped, by a selector that learns by reward."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from scipy.sparse import csr_matrix, vstack
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from sbirlib.config.methods import NTSBIRConfig
from sbirlib.data import Batch, LoadedSplit, Recording, fit_square, to_float
from sbirlib.methods.b_siamese import BSiamese
from sbirlib.methods.base import PAPERS, Needs, Stage
from sbirlib.methods.on_the_fly import SMALL, ranks
from sbirlib.methods.ppo import clipped_surrogate, old_policy
from sbirlib.methods.recordings import disturbed, layers, recording

POINTS, WIDTH = 16, 64  # that the selector sees of a stroke, evenly spaced along it; features of a stroke


class NTSBIR(BSiamese):
    """A triplet network of complete sketches, then a selector that keeps or drops each of their strokes.

    An action is a set of strokes that the old selector keeps, or all if these are none. It is embedded by the
    network, which learns no more, and rewarded by 1 / rank of the true photo among those that are trained on.
    For that, sets are put together from the ink of each stroke at the model's size (`layers`); sketches are
    searched with by the strokes that are kept with more than 1/2, drawn as ever. A picture without strokes is
    searched with as it is.

    Authors' code: VGG16, max-pooled, Adam at 3e-4, 16 sketches a step, LSTMs of 128 features, a reward for
    entropy, a critic that expects a sketch's reward. Here rewards are normalised over sets of its strokes,
    and the selector is held near its beginning, or it keeps everything before it has tried enough.
    """

    name = "nt_sbir"
    paper = PAPERS[name]
    settings = NTSBIRConfig
    terms = ("total", "change", "reciprocal_rank")
    needs = Needs(strokes=True)
    cleans = True

    def __init__(self, backbone: str, **options: Any) -> None:
        super().__init__(backbone, **options)
        self.selector = Selector()
        self.old = old_policy(self.selector, self.options.refresh)
        # Of the training split: strokes of its sketches and their ink, whose photo is whose, photos (m, e).
        self.drawings: list[Recording] = []
        self.layers: list[csr_matrix] = []
        self.photo_index = self.photos = torch.empty(0)

    def stages(self) -> list[Stage]:
        """First the encoders, then the selector."""
        share, encoders = self.options.retrieval, [self.sketch_encoder, self.photo_encoder]
        second = Stage("selector", 1 - share, [self.selector], self.options.rate)
        return [Stage("retrieval", share, encoders), second]

    @property
    def passes(self) -> float:
        """2 in the first stage, and one for each set of strokes in the second."""
        return 2 * self.options.retrieval + self.options.sets * (1 - self.options.retrieval)

    @torch.no_grad()
    def enter(self, stage: str, data: LoadedSplit) -> None:
        """Embeds the photos, and finds the ink of every stroke."""
        was_training, device = self.training, next(self.parameters()).device
        self.eval()
        photos = [self.embed_photos(to_float(part, device)) for part in data.photos.split(128)]
        self.photos, self.photo_index = torch.cat(photos).float(), data.photo_index.to(device)
        self.drawings = [recording(sketch) for sketch in data.split.sketches]
        drawings = tqdm(self.drawings, desc="drawing", disable=None, leave=False)
        self.layers = [layers(drawing, self.image_size) for drawing in drawings]
        self.train(was_training)

    def after_step(self) -> None:
        """The old selector follows."""
        self.old.update_parameters(self.selector)

    @torch.inference_mode()
    def clean(self, drawing: Recording) -> np.ndarray:
        """Strokes kept with more than 1/2, (strokes,) bool, or all if these are none."""
        points = seen(drawing.strokes).to(self.photos.device)
        keep = (self.selector(points)[:, 1].exp() > 0.5).cpu().numpy()
        return keep | ~keep.any()

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Unit embeddings of sketch and photo; in the selector's stage what `_tried` finds, (b,) each."""
        if self.stage != "selector":
            return super().encode(batch)
        # Ratios of probabilities are no matter for bf16.
        with torch.autocast(batch.rows.device.type, enabled=False):
            rows = zip(batch.rows.tolist(), batch.numbers[:, 2].tolist(), strict=True)
            found = [self._tried(row, np.random.default_rng(int(number * 2**32))) for row, number in rows]
        return dict(zip(self.terms, map(torch.stack, zip(*found, strict=True)), strict=True))

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """B-Siamese's triplet loss; then the means over sketches."""
        if self.stage == "selector":
            return {name: rows[name].mean() for name in self.terms}
        return dict.fromkeys(self.terms, batch.numbers.new_zeros(())) | super().compare(rows, batch)

    def _tried(self, row: int, chance: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """For a sketch with foreign strokes -min(r A, clip(r) A) + steady * change, change, and 1 / rank.

        They are means over strokes and sets; A is 1 / rank normalised over the sets, and change the
        Kullback-Leibler divergence from the first selector.
        """
        photo, device = self.photo_index, self.photo_index.device
        other = chance.choice((photo != photo[row]).nonzero()[:, 0].cpu().numpy())
        count = chance.integers(self.options.noise + 1)
        drawing, strokes = disturbed(self.drawings[row], self.drawings[other], count, chance)
        ink = torch.from_numpy(vstack([self.layers[row], self.layers[other]])[strokes].toarray())
        new, old = (policy(seen(drawing.strokes).to(device)) for policy in (self.selector, self.old))
        numbers = torch.from_numpy(chance.random((self.options.sets, len(strokes)), np.float32))
        kept = numbers.to(device) < old[:, 1].exp()
        rewards = self._rewards(to_float(ink, device), kept, photo[row])
        spread, mean = torch.std_mean(rewards)
        advantages = repeat((rewards - mean) / (spread + SMALL), "k -> k n", n=len(strokes))
        new_log, old_log = (torch.where(kept, policy[:, 1], policy[:, 0]) for policy in (new, old))
        change = (new.exp() * (new - self.selector.first)).sum(dim=1).mean()
        gain = clipped_surrogate(new_log, old_log, advantages).mean()
        return self.options.steady * change - gain, change, mean

    @torch.no_grad()
    def _rewards(self, ink: Tensor, kept: Tensor, truth: Tensor) -> Tensor:
        """1 / rank of a photo with each set (k, n) of a sketch's strokes, whose ink is (n, s * s): (k,)."""
        self.sketch_encoder.eval()  # it learns no more: no dropout, and statistics stay
        kept = kept | ~kept.any(dim=1, keepdim=True)
        pages = 1 - (kept.float() @ ink).clamp(max=1)
        pages = repeat(pages, "k (h w) -> k c h w", c=3, h=self.image_size)
        rows = self.embed_sketches(fit_square(pages, self.image_size, self.fit)).float()
        return 1 / ranks(rows @ self.photos.T, truth.expand(len(kept)))


class Selector(nn.Module):
    """Log-probabilities (n, 2) of dropping and of keeping each of the n strokes of a drawing.

    Their points (n, POINTS, 2) go through a GRU by stroke, then the strokes through another one, forwards
    and backwards, whose output is added. At `first` each stroke is as likely to be kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.GRU(6, WIDTH, batch_first=True)
        self.strokes = nn.GRU(WIDTH, WIDTH // 2, bidirectional=True)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)
        self.register_buffer("first", torch.tensor([0.1, 0.9]).log(), persistent=False)
        nn.init.zeros_(self.head.weight)
        self.head.bias.data = self.first.clone()

    def forward(self, points: Tensor) -> Tensor:
        # Where a point is, how far from the stroke's middle, and from the point before.
        step = F.pad(points.diff(dim=1), (0, 0, 1, 0))
        around = points - points.mean(dim=1, keepdim=True)
        strokes = self.points(torch.cat([2 * points - 1, 4 * around, 20 * step], dim=2))[1][0]
        return self.head(self.norm(strokes + self.strokes(strokes)[0])).log_softmax(dim=1)


def seen(strokes: Sequence[np.ndarray]) -> Tensor:
    """What the selector sees of strokes: so many points evenly spaced along each, (strokes, POINTS, 2)."""
    lines = []
    for stroke in strokes:
        along = np.append(0, np.hypot(*np.diff(stroke, axis=0).T).cumsum())
        places = np.linspace(0, along[-1], POINTS)
        lines.append([np.interp(places, along, axis) for axis in stroke.T])
    return rearrange(torch.tensor(np.array(lines)).float(), "n xy points -> n points xy")

"""NT-SBIR (Bhunia et al., CVPR 2022): strokes that hurt are dropped, by a selector that learns by reward."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import repeat
from scipy.sparse import csr_matrix, vstack
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence, unpack_sequence
from tqdm.auto import tqdm

from sbirlib.data import Batch, LoadedSplit, Recording, fit_square, to_float
from sbirlib.methods.b_siamese import BSiamese
from sbirlib.methods.base import Stage
from sbirlib.methods.ppo import SMALL, clipped_surrogate, old_policy, ranks
from sbirlib.methods.recordings import disturbed, layers, recording

POINTS, WIDTH = 16, 64  # that the selector sees of a stroke; features of a stroke
REFRESH = 2  # steps after which the old selector is brought up to date; authors: 20
TEMPERATURE = 0.1  # of the softmax over photos
FIRST = torch.tensor([0.1, 0.9]).log()  # how likely each stroke is dropped and kept at first


class NTSBIR(BSiamese):
    """A triplet network of complete sketches, then a selector that keeps or drops each of their strokes.

    An action is a set of strokes that the old selector keeps, or all if these are none. It is embedded by the
    network, which learns no more, and rewarded by a smooth 1 / rank among the photos that are trained on: the
    share of the true one in a softmax. For that, sets are put together from the ink of each stroke at the
    model's size (`layers`). Sketches are searched with by the strokes that are kept with more than 1/2, drawn
    as ever; a picture without strokes, as it is.

    Authors' code: VGG16, max-pooled, Adam at 3e-4, 16 sketches a step, LSTMs of 128 features, a reward for
    entropy; 1 / rank, less what a critic expects, is the advantage of all strokes. Shared by 60 of them it
    says too little of each: here a stroke has its own, to first order, by the gradient of the reward.
    """

    name = "nt_sbir"
    cleans = True

    def __init__(self, backbone: str, **options: Any) -> None:
        super().__init__(backbone, **options)
        self.selector = Selector()
        self.old = old_policy(self.selector, REFRESH)
        # Of the training split: strokes of its sketches and their ink, whose photo is whose, photos (m, e).
        self.drawings: list[Recording] = []
        self.layers: list[csr_matrix] = []
        self.photo_index = self.photos = torch.empty(0)

    def stages(self) -> list[Stage]:
        """First the encoders, then the selector."""
        own, encoders = self.options, [self.sketch_encoder, self.photo_encoder]
        second = Stage("selector", 1 - own.retrieval, [self.selector], own.rate, passes=1)
        return [Stage("retrieval", own.retrieval, encoders), second]

    @torch.no_grad()
    def enter(self, stage: str, data: LoadedSplit) -> None:
        """Embeds the photos, and finds the ink of every stroke."""
        was_training, device = self.training, next(self.parameters()).device
        self.eval()
        photos = [self.embed_photos(to_float(part, device)) for part in data.photos.split(128)]
        self.photos, self.photo_index = torch.cat(photos).float(), data.photo_index
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
        points = seen(drawing.strokes).to(next(self.parameters()).device)
        keep = (self.selector([points])[0][:, 1].exp() > 0.5).cpu().numpy()
        return keep | ~keep.any()

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Unit embeddings of sketch and photo; in the selector's stage what `_tried` finds, (b,) each."""
        if self.stage != "selector":
            return super().encode(batch)
        device, rows = batch.rows.device, batch.rows.tolist()
        # Ratios of probabilities are no matter for bf16.
        with torch.autocast(device.type, enabled=False):
            tried = zip(*map(self._disturbed, rows, batch.numbers[:, 2].tolist()), strict=True)
            points, *rest = ([part.to(device) for part in parts] for parts in tried)
            found = map(self._tried, self.selector(points), self.old(points), *rest, self.photo_index[rows])
            return dict(zip(self.terms, map(torch.stack, zip(*found, strict=True)), strict=True))

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """B-Siamese's triplet loss; then the means over sketches."""
        if self.stage == "selector":
            return {name: rows[name].mean() for name in self.terms}
        return dict.fromkeys(self.terms, batch.numbers.new_zeros(())) | super().compare(rows, batch)

    def _disturbed(self, row: int, number: float) -> tuple[Tensor, Tensor, Tensor]:
        """What is `seen` of a sketch with foreign strokes; the ink of each (n, s * s); a number for each."""
        chance = np.random.default_rng(int(number * 2**32))
        other = chance.choice(np.flatnonzero(self.photo_index != self.photo_index[row]))
        count = chance.integers(self.options.noise + 1)
        drawing, strokes = disturbed(self.drawings[row], self.drawings[other], count, chance)
        ink = vstack([self.layers[row], self.layers[other]])[strokes].toarray()
        numbers = chance.random(len(strokes), np.float32)
        return seen(drawing.strokes), torch.from_numpy(ink), torch.from_numpy(numbers)

    def _tried(
        self, new: Tensor, old: Tensor, ink: Tensor, numbers: Tensor, truth: Tensor
    ) -> tuple[Tensor, Tensor]:
        """For a sketch -min(r A, clip(r) A) + steady * change, the mean over its strokes, and 1 / rank.

        A is what a decision gains over the mean one, to first order. It is known of both, so that both count,
        as often as the old selector (n, 2) takes them. change: Kullback-Leibler divergence of the first one.
        """
        likely = old[:, 1].exp()
        [gains], [found] = self._gains(ink / 255, (numbers < likely)[None], truth)
        # Less the mean stroke: nearly all do some good, and soon none would be dropped any more.
        gains = (gains - gains.mean()) / (gains.std(correction=min(1, len(gains) - 1)) + SMALL)
        advantages = torch.stack([-likely * gains, (1 - likely) * gains], dim=1)
        gain = (old.exp() * clipped_surrogate(new, old, advantages)).sum(dim=1).mean()
        # This way round it also pulls back where nothing is dropped any more, and so nothing is tried.
        change = F.kl_div(new, FIRST.to(new.device).expand_as(new), reduction="batchmean", log_target=True)
        return self.options.steady * change - gain, found

    @torch.enable_grad()
    def _gains(self, ink: Tensor, kept: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """For sets (k, n) of a sketch's strokes: what more of each stroke gains (k, n), and 1 / rank (k,).

        That is the gradient of the reward's logarithm. `ink` is (n, s * s), `truth` the photo.
        """
        self.sketch_encoder.eval()  # it learns no more: no dropout, and statistics stay
        shares = (kept | ~kept.any(dim=1, keepdim=True)).float().requires_grad_()
        pages = repeat(1 - (shares @ ink).clamp(max=1), "k (h w) -> k c h w", c=3, h=self.image_size)
        scores = self.embed_sketches(fit_square(pages, self.image_size, self.fit)).float() @ self.photos.T
        reward = (scores / TEMPERATURE).log_softmax(dim=1)[:, truth]
        [gains] = torch.autograd.grad(reward.sum(), shares)
        return gains, 1 / ranks(scores.detach(), truth.expand(len(kept)))


class Selector(nn.Module):
    """Log-probabilities (n, 2) of dropping and of keeping each of the n strokes of several drawings.

    Their points (n, POINTS, 2) go through a GRU by stroke, then the strokes, with the way from the end of the
    one before, through another, forwards and backwards in drawing order, whose output is added.
    """

    def __init__(self) -> None:
        super().__init__()
        self.points = nn.GRU(6, WIDTH, batch_first=True)
        self.strokes = nn.GRU(WIDTH + 3, WIDTH // 2, bidirectional=True)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)
        nn.init.zeros_(self.head.weight)
        self.head.bias.data = FIRST.clone()

    def forward(self, drawings: Sequence[Tensor]) -> tuple[Tensor, ...]:
        points, sizes = torch.cat(list(drawings)), [len(strokes) for strokes in drawings]
        # Where a point is, how far from the stroke's middle, and from the point before.
        step = F.pad(points.diff(dim=1), (0, 0, 1, 0))
        around = points - points.mean(dim=1, keepdim=True)
        strokes = self.points(torch.cat([2 * points - 1, 4 * around, 20 * step], dim=2))[1][0]
        ways = torch.cat([F.pad(lines[1:, 0] - lines[:-1, -1], (0, 0, 1, 0)) for lines in drawings])
        among = torch.cat([strokes, 4 * ways, 4 * ways.norm(dim=1, keepdim=True)], dim=1).split(sizes)
        among = unpack_sequence(self.strokes(pack_sequence(among, enforce_sorted=False))[0])
        return self.head(self.norm(strokes + torch.cat(among))).log_softmax(dim=1).split(sizes)


def seen(strokes: Sequence[np.ndarray]) -> Tensor:
    """What the selector sees of strokes: POINTS places along each, evenly chosen: (strokes, POINTS, 2)."""
    shares = np.linspace(0, 1, POINTS)
    lines = [[np.interp(shares, np.linspace(0, 1, len(line)), axis) for axis in line.T] for line in strokes]
    return torch.tensor(np.array(lines)).float().mT

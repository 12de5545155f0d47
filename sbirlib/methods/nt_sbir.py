"""NT-SBIR (Bhunia et al., CVPR 2022): strokes that hurt are dropped, by a selector that learns by reward."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from sbirlib.config.methods import NTSBIRConfig
from sbirlib.data import Batch, LoadedSplit, Recording, to_float
from sbirlib.methods.b_siamese import BSiamese
from sbirlib.methods.base import PAPERS, Needs, Stage
from sbirlib.methods.on_the_fly import ranks
from sbirlib.methods.ppo import clipped_surrogate, old_policy
from sbirlib.methods.recordings import disturbed, drawn, recording

POINTS, WIDTH = 16, 64  # that the selector sees of a stroke, evenly spaced along it; features of a stroke


class NTSBIR(BSiamese):
    """A triplet network of complete sketches, then a selector that keeps or drops each of their strokes.

    An action is a set of strokes that the old selector keeps; where that is none, all are kept. It is drawn
    and embedded by the network, which learns no more, and rewarded by 1 / rank of the true photo among those
    that are trained on, less a triplet loss with the nearest other photo. Sketches are searched with by the
    strokes that are kept with more than 1/2; a picture without strokes, as it is.

    Authors' code: VGG16, max-pooled, Adam at 3e-4, 16 sketches a step, LSTMs of 128 features; a critic,
    learnt at 1e-3, expects the reward of a sketch. Here the mean over several sets of its strokes does.
    """

    name = "nt_sbir"
    paper = PAPERS[name]
    settings = NTSBIRConfig
    terms = ("total", "policy", "entropy", "reward")
    needs = Needs(strokes=True)
    cleans = True

    def __init__(self, backbone: str, **options: Any) -> None:
        super().__init__(backbone, **options)
        self.selector = Selector(self.options.keep)
        self.old = old_policy(self.selector, self.options.refresh)
        # Of the training split: how its sketches were drawn, whose photo is whose, photos (m, e).
        self.drawings: list[Recording] = []
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
        """Embeds the photos, and finds out how every sketch was drawn."""
        was_training, device = self.training, next(self.parameters()).device
        self.eval()
        photos = [self.embed_photos(to_float(part, device)) for part in data.photos.split(128)]
        self.photos, self.photo_index = torch.cat(photos).float(), data.photo_index.to(device)
        self.drawings = [recording(sketch) for sketch in data.split.sketches]
        self.train(was_training)

    def after_step(self) -> None:
        """The old selector follows."""
        self.old.update_parameters(self.selector)

    @torch.inference_mode()
    def clean(self, drawing: Recording) -> np.ndarray | None:
        """Strokes kept with more than 1/2, (strokes,) bool; None where these are all, or none."""
        keep = (self.selector([self._seen(drawing)])[:, 1].exp() > 0.5).cpu().numpy()
        return keep if keep.any() and not keep.all() else None

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Unit embeddings of sketch and photo; in the selector's stage what is to grow, (b,) each.

        That is min(r A, clip(r) A), A = R less the mean R of a sketch's sets, and entropy, both the mean over
        its strokes; and R.
        """
        if self.stage != "selector":
            return super().encode(batch)
        drawings, numbers, photo = [], [], self.photo_index
        for row, number in zip(batch.rows.tolist(), batch.numbers[:, 2].tolist(), strict=True):
            chance = np.random.default_rng(int(number * 2**32))  # each row's own
            other = chance.choice((photo != photo[row]).nonzero()[:, 0].cpu().numpy())
            count = int(chance.integers(self.options.noise + 1))
            drawings.append(disturbed(self.drawings[row], self.drawings[other], count, chance)[0])
            numbers.append(chance.random((self.options.sets, len(drawings[-1].strokes)), np.float32))
        # Ratios of probabilities are no matter for bf16.
        with torch.autocast(batch.rows.device.type, enabled=False):
            lines = [self._seen(drawing) for drawing in drawings]
            strokes = [len(line) for line in lines]
            new, old = self.selector(lines), self.old(lines)
            kept = torch.from_numpy(np.concatenate(numbers, axis=1)).to(old.device) < old[:, 1].exp()
            reward = self._reward(drawings, kept.split(strokes, dim=1), photo[batch.rows])
            gains = reward - reward.mean(dim=1, keepdim=True)
            advantages = gains.repeat_interleave(torch.tensor(strokes, device=old.device), dim=0).T
            new_log, old_log = (torch.where(kept, policy[:, 1], policy[:, 0]) for policy in (new, old))
            gain = clipped_surrogate(new_log, old_log, advantages, self.options.clip).mean(dim=0)
            entropy = -(new.exp() * new).sum(dim=1)
        policy, entropy = (torch.stack([s.mean() for s in term.split(strokes)]) for term in (gain, entropy))
        return {"policy": policy, "entropy": entropy, "reward": reward.mean(dim=1)}

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """B-Siamese's triplet loss; then the mean of -min(r A, clip(r) A) - entropy, weighted."""
        terms = dict.fromkeys(self.terms, batch.numbers.new_zeros(()))
        if self.stage != "selector":
            return terms | super().compare(rows, batch)
        terms |= {name: rows[name].mean() for name in self.terms[1:]}
        return terms | {"total": -terms["policy"] - self.options.entropy * terms["entropy"]}

    @torch.no_grad()
    def _reward(self, drawings: Sequence[Recording], kept: Sequence[Tensor], truth: Tensor) -> Tensor:
        """1 / rank - [margin + |s - p| - |s - n|]+ of sets of strokes (b, k), n the nearest other photo."""
        self.sketch_encoder.eval()  # it learns no more: no dropout, and statistics stay
        pages = [
            drawn(drawing, keep if keep.any() else None, self.image_size, self.fit)
            for drawing, sets in zip(drawings, kept, strict=True)
            for keep in sets.cpu().numpy()
        ]
        rows = self.embed_sketches(to_float(torch.cat(pages), kept[0].device)).float()
        scores = rearrange(rows @ self.photos.T, "(b k) m -> b k m", b=len(drawings))
        own = truth[:, None, None].expand(*scores.shape[:2], 1)
        found, others = scores.gather(2, own), scores.scatter(2, own, -1)
        # Of unit vectors: |a - b|^2 = 2 - 2 a b.
        near, far = ((2 - 2 * s.amax(dim=2)).clamp(min=0).sqrt() for s in (found, others))
        return 1 / ranks(scores, truth) - F.relu(self.options.margin + near - far)

    def _seen(self, drawing: Recording) -> Tensor:
        """What the selector sees of a drawing: points (strokes, POINTS, 2), shares of its side."""
        lines = np.stack([evenly(stroke, POINTS) for stroke in drawing.strokes])
        return torch.from_numpy(lines).float().to(next(self.parameters()).device)


class Selector(nn.Module):
    """Log-probabilities (n, 2) of dropping and of keeping each of the n strokes of some drawings.

    Points (strokes, POINTS, 2) of a drawing go through a GRU by stroke, then strokes through another one,
    forwards and backwards, whose output is added. At first each stroke has the probability `keep`.
    """

    def __init__(self, keep: float) -> None:
        super().__init__()
        self.points = nn.GRU(6, WIDTH, batch_first=True)
        self.strokes = nn.GRU(WIDTH, WIDTH // 2, bidirectional=True)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)
        nn.init.zeros_(self.head.weight)
        self.head.bias.data = torch.tensor([1 - keep, keep]).log()

    def forward(self, drawings: Sequence[Tensor]) -> Tensor:
        points = 2 * torch.cat(list(drawings)) - 1
        # Where a point is, how far from the stroke's middle, and from the point before.
        step = F.pad(points.diff(dim=1), (0, 0, 1, 0))
        around = points - points.mean(dim=1, keepdim=True)
        strokes = self.points(torch.cat([points, 2 * around, 10 * step], dim=2))[1][0]
        packed = pack_sequence(strokes.split([len(part) for part in drawings]), enforce_sorted=False)
        among = torch.cat(unpack_sequence(self.strokes(packed)[0]))
        return self.head(self.norm(strokes + among)).log_softmax(dim=1)


def evenly(line: np.ndarray, count: int) -> np.ndarray:
    """So many points (count, 2) along a line (n, 2), evenly spaced."""
    along = np.append(0, np.hypot(*np.diff(line, axis=0).T).cumsum())
    places = np.linspace(0, along[-1], count)
    return np.stack([np.interp(places, along, axis) for axis in line.T], axis=1)

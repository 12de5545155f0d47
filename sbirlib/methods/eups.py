"""EUPS-SBIR (Sain et al., CVPR 2023): triplets in each domain, and neighbourhoods by a teacher of photos."""

import copy
from collections.abc import Callable
from typing import Any, Self

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from sbirlib.data.batches import Batch
from sbirlib.layers import Backbone, euclidean_triplet, other_photos
from sbirlib.methods.base import Encoder, Method, Stage


class EUPS(Method):
    """A student of sketches and photos, and a teacher that has learnt from photos alone.

    First the teacher learns to tell photos apart, those without a sketch too; then it stays as it is. The
    student learns from one triplet across the domains and one within each, and from the teacher which photos
    lie near which. What is searched with is the average of its weights over the steps. So there are three
    sets of weights, and a saved model is three times as large: the averages (`sketch_encoder`,
    `photo_encoder`), what is trained (`sketch_learner`, `photo_learner`), and the teacher.

    Authors, from memory and not verified: PVT at 224 px with a token of its own for what is distilled, 512
    dimensions, AdamW at 1e-4, batches of 16, 200 epochs for the teacher and 300 for the student. Here a
    second linear layer on the global token stands for theirs. All other values are our own.
    """

    name = "eups"
    sketch_encoder: "TwoHeads"
    photo_encoder: "TwoHeads"

    def __init__(self, backbone: str, **options: Any) -> None:
        super().__init__(backbone, **options)
        self.has_unlabelled = False  # whether the last batch had photos without a sketch
        sketch, photo = self.sketch_encoder, self.photo_encoder
        # Copied together: the learners share what the two encoders share.
        self.sketch_learner, self.photo_learner = copy.deepcopy((sketch, photo))
        self.teacher = Encoder(*copy.deepcopy((photo.backbone, photo.embed)))
        nn.ModuleList([sketch, photo]).requires_grad_(False)

    def make_encoder(self, trunk: Backbone) -> "TwoHeads":
        return TwoHeads(trunk, *(nn.Linear(trunk.dim, self.embed_dim) for _ in range(2)))

    def stages(self) -> list[Stage]:
        """First the teacher, then the student."""
        share, student = self.options.teacher, [self.sketch_learner, self.photo_learner]
        # Two views of a photo, and of one without a sketch.
        views = 4 if self.has_unlabelled else 2
        first = Stage("teacher", share, [self.teacher], passes=views)
        return [first, Stage("student", 1 - share, student, passes=views + 3)]

    def train(self, mode: bool = True) -> Self:
        """As for any module, but a teacher that has learnt stays in eval mode."""
        super().train(mode)
        if self.stage != "teacher":
            self.teacher.eval()
        return self

    @torch.no_grad()
    def after_step(self) -> None:
        """average = m * average + (1 - m) * learner, for weights and for the statistics of BatchNorm."""
        if self.stage == "teacher":
            return
        averaged = nn.ModuleList([self.sketch_encoder, self.photo_encoder])
        learners = nn.ModuleList([self.sketch_learner, self.photo_learner])
        old, new = ([*part.parameters(), *part.buffers()] for part in (averaged, learners))
        for mean, value in zip(old, new, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - self.options.average)
            else:
                mean.copy_(value)  # a count has no average

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Rows of two views (b, view, ...): embeddings of the teacher, or the learner's pairs of features.

        A photo's second view has grown; photos without a sketch come last, to the student in one view only.
        """
        photos = [view for view in (batch.photo, batch.unlabelled) if len(view)]
        second = [view for view in (batch.photo_second, batch.unlabelled_second) if len(view)]
        second = [grown(view, self.options.grow, batch.numbers[:, 2]) for view in second]
        self.has_unlabelled = len(photos) > 1
        if self.stage == "teacher":
            return {"photo": _in_one(self.teacher, *photos, *second)}
        with torch.no_grad():
            taught = _in_one(self.teacher, *photos)
        sketch = _in_one(self.sketch_learner.both, batch.sketch, batch.sketch_second)
        photo = _in_one(self.photo_learner.both, second[0], *photos)
        return {"sketch": sketch, "photo": photo, "taught": taught}

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """L_ph alone in the teacher's stage; then L_cross + L_sk + L_ph and the weighted divergences.

        Each L is the mean of [margin + |anchor - positive| - |anchor - negative|]+ over unit vectors.
        """
        rows = {name: F.normalize(value.float(), dim=-1) for name, value in rows.items()}
        # Photos without a sketch, if any, come after the others; they show other photos than those.
        ids = torch.cat([batch.photo_ids, -1 - batch.unlabelled_ids])
        found = (self._teach if self.stage == "teacher" else self._learn)(rows, ids, batch.numbers)
        terms = dict.fromkeys(self.terms[1:], batch.numbers.new_zeros(())) | found
        weights = {name: self.options.distil if name.startswith("distil") else 1.0 for name in terms}
        return {"total": torch.stack([weights[name] * term for name, term in terms.items()]).sum(), **terms}

    def _teach(self, rows: dict[str, Tensor], ids: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        """L_ph of photos with and without a sketch, each other's negatives."""
        photos, second = rearrange(rows["photo"], "b (view kind) e -> view (kind b) e", view=2)
        negatives, there = other_photos(ids[: len(photos)], numbers[:, 1].repeat(2)[: len(photos)])
        loss = euclidean_triplet(photos, second, photos[negatives], there, self.options.margin)
        return {"intra_photo": loss}

    def _learn(self, rows: dict[str, Tensor], ids: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        """The three triplets, and KL(teacher's q || student's q) of sketches and both kinds of photos.

        A sketch is to have the neighbours among photos that the teacher gives its photo.
        """
        sketch, sister = rows["sketch"][:, :, 0].unbind(dim=1)
        augmented, photo = rows["photo"][:, :2, 0].unbind(dim=1)
        count, tau, margin = len(numbers), self.options.temperature, self.options.margin
        negatives, there = other_photos(ids[:count], numbers[:, 1])
        terms = {
            "cross": euclidean_triplet(sketch, photo, photo[negatives], there, margin),
            "intra_sketch": euclidean_triplet(sketch, sister, sketch[negatives], there, margin),
            "intra_photo": euclidean_triplet(photo, augmented, photo[negatives], there, margin),
        }
        taught = rearrange(rows["taught"].detach(), "b kind e -> (kind b) e")
        learnt = rearrange(rows["photo"][:, 1:, 1], "b kind e -> (kind b) e")
        # Sketches, their photos, photos without a sketch.
        ids = ids[: len(learnt)]
        same = torch.cat([ids[:count], ids])[:, None] == ids[None, :]
        goal = neighbours(torch.cat([taught[:count], taught]), taught, same, tau)
        found = neighbours(torch.cat([rows["sketch"][:, 0, 1], learnt]), learnt, same, tau)
        apart = F.kl_div(found, goal, reduction="none", log_target=True).sum(dim=1).split(count)
        names = ("distil_sketch", "distil_photo", "distil_unlabelled")
        return terms | {name: part.mean() for name, part in zip(names, apart, strict=False)}


class TwoHeads(Encoder):
    """An encoder with a second linear layer, for what is distilled; the first makes what is searched."""

    def __init__(self, backbone: Backbone, embed: nn.Module, distil: nn.Module) -> None:
        super().__init__(backbone, embed)
        self.distil = distil

    def both(self, images: Tensor) -> Tensor:
        """(b, 3, s, s) in [0, 1] -> embeddings and what is distilled (b, 2, e), of any length."""
        tokens = self.backbone(images)
        return torch.stack([self.embedding(tokens), self.distil(tokens.cls)], dim=1)


def grown(images: Tensor, side: int, numbers: Tensor) -> Tensor:
    """Pictures (b, 3, s, s) whose dark parts (`numbers` (b,) below 0.5) or light ones grow by `side` px."""
    # What is dark is light in the negative.
    sign = rearrange(torch.where(numbers < 0.5, -1.0, 1.0), "b -> b 1 1 1")
    height, width = images.shape[-2:]
    return sign * F.max_pool2d(sign * images, side, stride=1, padding=side // 2)[..., :height, :width]


def neighbours(rows: Tensor, photos: Tensor, same: Tensor, temperature: float) -> Tensor:
    """Contextual similarity: log q (n, k) of rows (n, e), a softmax over photos (k, e) of -distance / tau.

    A row's own photo (`same` (n, k) bool) has no share in it.
    """
    # Finite, as 0 times infinity is no number. In a batch of one photo all have the same share.
    lowest = torch.finfo(torch.float32).min
    return (-torch.cdist(rows, photos) / temperature).masked_fill(same, lowest).log_softmax(dim=1)


def _in_one(encode: Callable[[Tensor], Tensor], *views: Tensor) -> Tensor:
    """Rows (b, view, ...) of several views in one pass, since they share the weights."""
    return rearrange(encode(torch.cat(views)), "(view b) ... -> b view ...", view=len(views))

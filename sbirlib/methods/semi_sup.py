"""Semi-Sup (Bhunia et al., CVPR 2021): learns to draw, and learns from its own drawings of more photos."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from sbirlib.data import Batch, LoadedSplit, Recording, to_float
from sbirlib.layers.chance import drawing
from sbirlib.layers.losses import other_photos
from sbirlib.methods.b_siamese import BSiamese
from sbirlib.methods.base import Stage
from sbirlib.methods.on_the_fly import SMALL
from sbirlib.methods.ppo import clipped_surrogate
from sbirlib.methods.recordings import drawn, recording
from sbirlib.methods.sketch_generator import LATENT, SketchGenerator, to_points, to_strokes

KL, FREE = 0.01, 0.2  # weight of a latent's divergence, and how much of it costs nothing; authors' code


class SemiSup(BSiamese):
    """B-Siamese; a generator that draws photos without a sketch; a discriminator that says what to trust.

    First the encoders learn from pairs, and the teacher stays as they are then. Next the generator learns to
    draw photos as their sketches were drawn. Then all learn together: the encoders from pairs, from drawings
    of photos without a sketch as far as the discriminator takes them for true pairs, and to stay near the
    teacher; the generator from strokes, and from a reward for drawings that are trusted and found.

    Authors' code has the generator alone: VGG16, LSTM of 512, sequences of strokes, Adam at 1e-4. What is
    said of the other parts here is our own: the discriminator compares the teacher's embeddings, of true
    pairs and of drawn ones, both drawn with the same pen. Of a sketch the largest lines that are seen are
    learnt from, so that the small marks of a pattern are lost.
    """

    name = "semi_sup"
    data: LoadedSplit  # what is trained on, from the second stage

    def __init__(self, backbone: str, **options: Any) -> None:
        super().__init__(backbone, **options)
        # Copied together: the teachers share what the two encoders share.
        teachers = copy.deepcopy((self.sketch_encoder, self.photo_encoder))
        self.sketch_teacher, self.photo_teacher = teachers
        nn.ModuleList(teachers).requires_grad_(False)
        self.generator = SketchGenerator(copy.deepcopy(self.photo_encoder.backbone), self.options.hidden)
        self.discriminator = nn.Sequential(nn.Linear(2 * self.embed_dim, 128), nn.ReLU(), nn.Linear(128, 1))
        self.indivisible = "semi_sup draws one batch after the other"
        self.points = torch.empty(0)  # how each sketch was drawn, (n, t, 3)

    def stages(self) -> list[Stage]:
        """First the encoders, then the generator, then both and the discriminator."""
        first, second = self.options.supervised, self.options.generator
        encoders: list[nn.Module] = [self.sketch_encoder, self.photo_encoder]
        return [
            Stage("supervised", first, encoders),
            Stage("generator", second, [self.generator]),
            Stage("together", 1 - first - second, [*encoders, self.generator, self.discriminator]),
        ]

    @property
    def passes(self) -> float:
        """2 of a pair, 1 to draw it, and at last 2 with a drawing, 2 to draw it, and 5 of the teacher."""
        first, second = self.options.supervised, self.options.generator
        return 2 * first + second + 12 * (1 - first - second)

    def after_step(self) -> None:
        """While the encoders learn from pairs alone, the teacher and the generator's backbone follow."""
        if self.stage == "supervised":
            self.sketch_teacher.load_state_dict(self.sketch_encoder.state_dict())
            self.photo_teacher.load_state_dict(self.photo_encoder.state_dict())
            self.generator.backbone.load_state_dict(self.photo_encoder.backbone.state_dict())

    def enter(self, stage: str, data: LoadedSplit) -> None:
        """Finds out how every sketch was drawn, once."""
        self.data = data
        if len(self.points):
            return
        most, sketches = self.options.points, data.split.sketches
        strokes = tqdm(map(recording, sketches), "strokes", len(sketches), leave=False, disable=None)
        self.points = torch.stack([to_points(found.lines(most), most) for found in strokes])

    @torch.no_grad()
    def draw(self, photos: Tensor, seed: int = 0) -> list[Recording]:
        """A sketch of each photo (b, 3, h, w) in [0, 1], any size; others with another seed."""
        own, square = self.options, self._square(photos)
        with drawing(seed, device=photos.device):
            chance = torch.randn(len(photos), LATENT, device=photos.device)
            drawn = self.generator.sample(square, chance, own.points, own.temperature)
        return [Recording(to_strokes(points)) for points in drawn]

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Unit embeddings of pairs, and `pseudo` of drawings and `spare` of the photos that they show.

        `taught` are those of the teacher; `likelihood` is that of true strokes, `policy` that of what was
        drawn; `true` and `trusted` are what the discriminator says of pairs and of drawings, logits.
        """
        if self.stage not in ("generator", "together"):
            return super().encode(batch)
        own, device, places = self.options, batch.rows.device, batch.rows.cpu()
        photos, points = self.data.photos[self.data.photo_index[places]], self.points[places].to(device)
        spare, chance = self.data.unlabelled, torch.randn(len(places), LATENT, device=device)
        # Likelihoods are no matter for bf16.
        with torch.autocast(device.type, enabled=False):
            likelihood, kl = self.generator(to_float(photos, device), points, chance)
            rows = {"likelihood": likelihood, "kl": kl}
            if self.stage == "generator":
                return rows
            if spare:
                photos = to_float(spare.photos[batch.unlabelled_ids.cpu()], device)
                made = self.generator.sample(photos, chance, own.points, own.temperature)
                rows["policy"], _ = self.generator(photos, made, chance, own.temperature)
        rows |= super().encode(batch)
        sketch, photo = batch.flipped(own.flip)
        rows |= {"taught_sketch": self._taught(0, sketch), "taught_photo": self._taught(1, photo)}
        if spare:
            sketch, photo = batch._replace(sketch=self._seen(made), photo=batch.unlabelled).flipped(own.flip)
            rows |= {"pseudo": self.embed_sketches(sketch), "spare": self.embed_photos(photo)}
            rows["taught_spare"] = self._taught(1, photo)
            rows["trusted"] = self.judge(self._taught(0, sketch), rows["taught_spare"])
            same_pen, _ = batch._replace(sketch=self._seen(points)).flipped(own.flip)
            rows["true"] = self.judge(self._taught(0, same_pen), rows["taught_photo"])
        return rows

    def judge(self, sketches: Tensor, photos: Tensor) -> Tensor:
        """How far unit rows of a sketch and a photo (b, e) seem a true pair: a logit (b,)."""
        return self.discriminator(torch.cat([sketches * photos, (sketches - photos).abs()], dim=1))[:, 0]

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The weighted sum of the terms of a stage; `certainty` is only shown.

        `pseudo` is the mean of certainty * [margin + |G(p) - p| - |G(p) - n|]+ over photos p without a
        sketch, n another of them; `policy` makes likelier what is rewarded, by the first factor less the
        second, normalised over the batch.
        """
        own, rows = self.options, {name: value.float() for name, value in rows.items()}
        terms = dict.fromkeys(self.terms[1:], batch.numbers.new_zeros(()))
        if "photo" in rows:
            terms["triplet"] = super().compare(rows, batch)["total"]
        if "likelihood" in rows:
            terms |= {"strokes": -rows["likelihood"].mean(), "kl": rows["kl"].mean().clamp(min=FREE)}
        for name in ("sketch", "photo", "spare"):
            if f"taught_{name}" in rows:
                apart = rows[name] - rows[f"taught_{name}"].detach()
                terms["distil"] = terms["distil"] + apart.square().sum(dim=1).mean()
        if "trusted" in rows:
            terms |= self._pseudo_pairs(rows, batch)
        weights = dict(pseudo=own.pseudo, distil=own.distil, kl=KL, policy=own.reward, certainty=0.0)
        total = torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()
        return {"total": total, **terms}

    def _pseudo_pairs(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        certainty, drawn, photo = rows["trusted"].detach().sigmoid(), rows["pseudo"], rows["spare"]
        negatives, there = other_photos(batch.unlabelled_ids, batch.numbers[:, 1])
        loss = F.triplet_margin_loss(drawn, photo, photo[negatives], self.options.margin, reduction="none")
        lost = there * loss
        reward = certainty - lost.detach()
        advantage = (reward - reward.mean()) / (reward.std(correction=0) + SMALL)
        judged, goal = torch.cat([rows["true"], rows["trusted"]]), torch.ones_like(certainty)
        return {
            "pseudo": (certainty * lost).mean(),
            "discriminator": F.binary_cross_entropy_with_logits(judged, torch.cat([goal, 0 * goal])),
            "policy": -clipped_surrogate(rows["policy"], rows["policy"], advantage).mean(),
            "certainty": certainty.mean(),
        }

    @torch.no_grad()
    def _taught(self, domain: int, images: Tensor) -> Tensor:
        """Embeddings of sketches (domain 0) or photos (1) by the teacher, which does not learn any more."""
        return self._rows((self.sketch_teacher, self.photo_teacher)[domain].eval(), images)

    def _seen(self, points: Tensor) -> Tensor:
        """What a model sees of drawings (b, t, 3): (b, 3, s, s) in [0, 1]."""
        shown = (Recording(to_strokes(row), self.image_size) for row in points)
        pixels = [drawn(drawing, None, self.image_size, self.fit) for drawing in shown]
        return to_float(torch.cat(pixels), points.device)

"""B-Siamese (Sain et al., BMVC 2020): one encoder for both domains, a triplet loss: the plain baseline."""

from torch import Tensor, nn
from torch.nn import functional as F

from sbirlib.data.batches import Batch
from sbirlib.layers.backbone import Backbone
from sbirlib.layers.losses import euclidean_triplet, other_photos
from sbirlib.methods.base import Encoder, Method


class BSiamese(Method):
    """Global token, unit length, a linear layer to `embed_dim`, unit length (baseline of the paper).

    Authors' code: InceptionV3 at 299 px, mean-pooled, 64 dimensions, Adam at 1e-4, batches of 12, 200 epochs.
    """

    name = "b_siamese"

    def make_encoder(self, trunk: Backbone) -> Encoder:
        return Encoder(trunk, nn.Sequential(Unit(), nn.Linear(trunk.dim, self.embed_dim)))

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Unit embeddings of sketch and photo, which are flipped together."""
        sketch, photo = batch.flipped(self.options.flip)
        return {"sketch": self.embed_sketches(sketch), "photo": self.embed_photos(photo)}

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Mean of [margin + |s - p| - |s - n|]+ over rows, n another photo of the batch."""
        negatives, there = other_photos(batch.photo_ids, batch.numbers[:, 1])
        sketch, photo = rows["sketch"].float(), rows["photo"].float()
        return {"total": euclidean_triplet(sketch, photo, photo[negatives], there, self.options.margin)}


class Unit(nn.Module):
    """Rows (b, d) brought to length 1."""

    def forward(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, dim=-1)

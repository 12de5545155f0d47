"""Triplet-SN (Yu et al., CVPR 2016): photos as edge maps, one network for both, and a triplet loss."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import ten_crop

from sbirlib.data import Batch, fit_square
from sbirlib.layers.backbone import Backbone
from sbirlib.layers.losses import other_photos
from sbirlib.methods.base import Encoder, Method


class TripletSN(Method):
    """Global token, two fully connected layers, unit length.

    The authors train on triplets that people ranked; here the negative is another photo of the batch. Their
    code: edge maps of 225 px, SGD (not offered here) at 1e-3 with weight decay 5e-4, batches of 128, crops of
    225 from 256 px, first weights from edge maps of ImageNet and from TU-Berlin. As it was, but for these:
    `--method triplet_sn --model.backbone sketch_a_net --model.no-pretrained --model.image-size 225
    --model.pool grid --model.cells 7 --model.embed-dim 256 --optim.lr 1e-3 --optim.weight-decay 5e-4
    --optim.batch-size 128 --triplet_sn.ten-crops`, where fc6 is a layer on the whole map of 7 x 7; with pool
    mean it would see the mean of that map.
    """

    name = "triplet_sn"

    def make_encoder(self, trunk: Backbone) -> Encoder:
        own = self.options
        return Encoder(trunk, fully_connected(trunk.dim, own.hidden, self.embed_dim, own.dropout))

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Unit embeddings of sketch and photo, which are flipped together; of one view, not of ten."""
        sketch, photo = batch.flipped(self.options.flip)
        one_view = super()._rows
        return {"sketch": one_view(self.sketch_encoder, sketch), "photo": one_view(self.photo_encoder, photo)}

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Mean of [margin + |s - p|^2 - |s - n|^2]+ over rows, n another photo of the batch."""
        negatives, there = other_photos(batch.photo_ids, batch.numbers[:, 1])
        sketch, photo = rows["sketch"].float(), rows["photo"].float()
        near = (sketch - photo).square().sum(dim=1)
        far = (sketch - photo[negatives]).square().sum(dim=1)
        return {"total": (F.relu(self.options.margin + near - far) * there).mean()}

    def _rows(self, encoder: Encoder, images: Tensor) -> Tensor:
        """As in the base, but of ten views, (b, 10 * e), with `triplet_sn.ten_crops`."""
        embed = partial(super()._rows, encoder)
        return ten_views(embed, self._square(images)) if self.options.ten_crops else embed(images)


def fully_connected(width: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    """The original's fc6 and fc7: (b, width) -> (b, out)."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, out))


def ten_views(embed: Callable[[Tensor], Tensor], squares: Tensor) -> Tensor:
    """Rows (b, 10 * e) of squares (b, 3, s, s) in ten views, where `embed` makes (b, e) of one view.

    A view is 225/256 of the square, enlarged to its size: the corners, the centre, and these mirrored. The
    dot product of two such rows is the mean of the views' dot products, the first view with the first, and so
    on; so a mean of distances, too, is still found by a vector.
    """
    size = squares.shape[-1]
    views = ten_crop(fit_square(squares, round(size * 256 / 225), "stretch"), [size, size])
    return torch.cat([embed(view) for view in views], dim=-1) / len(views) ** 0.5

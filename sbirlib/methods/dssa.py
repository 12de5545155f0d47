"""DSSA (Song et al., ICCV 2017): attention with a shortcut, coarse and fine features, a learned distance."""

from typing import Any

import torch
from einops import einsum, reduce
from torch import Tensor, nn
from torch.nn import functional as F

from sbirlib.data.batches import Batch
from sbirlib.layers.backbone import Backbone, Tokens
from sbirlib.layers.losses import other_photos
from sbirlib.methods.base import Encoder, Method
from sbirlib.methods.triplet_sn import fully_connected, ten_views


class DSSA(Method):
    """Triplet-SN with attention over the feature map, its mean as a fine feature, and the distance D_W.

    Rows are made so that the dot product of a sketch and a photo is -D_W, which galleries and indexes of dot
    products can search, though the rows are not of unit length. Authors' values, and how to run it as it
    was: as in `TripletSN`, with `--method dssa` and `--dssa.ten-crops`.
    """

    name = "dssa"
    vectors = False  # not of unit length
    sketch_encoder: "AttendingEncoder"
    photo_encoder: "AttendingEncoder"

    def __init__(self, backbone: str, **options: Any) -> None:
        super().__init__(backbone, **options)
        # Two encoders, but one distance.
        self.photo_encoder.distance = self.sketch_encoder.distance

    def make_encoder(self, trunk: Backbone) -> "AttendingEncoder":
        own, size = self.options, self.embed_dim
        head = fully_connected(trunk.dim, own.hidden, size, own.dropout)
        return AttendingEncoder(trunk, head, HOLEF(size + trunk.width, own.noise))

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Rows of sketch and photo, which are flipped together, and what keeps D_W near Euclid's."""
        sketch, photo = batch.flipped(self.options.flip)
        regular = self.sketch_encoder.distance.departure_norms()
        return {"sketch": self._sketch_rows(sketch), "photo": self._photo_rows(photo), "regular": regular}

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Mean of [margin + D_W(s, p) - D_W(s, n)]+ over rows, n another photo, + lambda (|W-I|_1 + |W-I|_F).

        In the paper the second norm is said to be that of W; here it is as in the code.
        """
        negatives, there = other_photos(batch.photo_ids, batch.numbers[:, 1])
        sketch, photo = rows["sketch"].float(), rows["photo"].float()
        near = -einsum(sketch, photo, "b e, b e -> b")
        far = -einsum(sketch, photo[negatives], "b e, b e -> b")
        triplet = (F.relu(self.options.margin + near - far) * there).mean()
        regular = self.options.regularise * rows["regular"]
        return {"total": triplet + regular, "triplet": triplet, "regular": regular}

    def embed_sketches(self, images: Tensor) -> Tensor:
        """(b, 3, h, w) in [0, 1], any size -> rows (b, e + d + 2), or ten times as long with `ten_crops`."""
        square = self._square(images)
        return ten_views(self._sketch_rows, square) if self.options.ten_crops else self._sketch_rows(square)

    def embed_photos(self, images: Tensor) -> Tensor:
        """As `embed_sketches`, with the photo encoder."""
        square = self._square(images)
        return ten_views(self._photo_rows, square) if self.options.ten_crops else self._photo_rows(square)

    def _sketch_rows(self, square: Tensor) -> Tensor:
        return self.sketch_encoder.distance.sketch_rows(self.sketch_encoder(square))

    def _photo_rows(self, square: Tensor) -> Tensor:
        return self.photo_encoder.distance.photo_rows(self.photo_encoder(square))


class AttendingEncoder(Encoder):
    """Backbone, attention over its patch tokens, and a descriptor (b, e + d): [coarse ; fine], both units.

    `embed` makes the coarse feature (b, e) of the patch tokens after attention, pooled as the backbone pools
    its own; the fine one (b, d) is their mean.
    """

    def __init__(self, backbone: Backbone, embed: nn.Module, distance: "HOLEF") -> None:
        super().__init__(backbone, embed)
        self.attention = SpatialAttention(backbone.width)
        self.distance = distance

    def embedding(self, tokens: Tokens) -> Tensor:
        """Tokens of the backbone -> descriptors (b, e + d), float32."""
        attended = self.attention(tokens.patches)
        fine = reduce(attended, "b n d -> b d", "mean")
        own = self.backbone.uses_cls or self.backbone.pool == "own"  # a global token that is not of patches
        coarse = self.embed(tokens.cls if own else self.backbone.pooled(attended))
        return torch.cat([F.normalize(part.float(), dim=-1) for part in (coarse, fine)], dim=-1)


class SpatialAttention(nn.Sequential):
    """Patch tokens F_i (b, n, d) -> F_i (1 + a_i), a = softmax over i of w2^T ReLU(W1 F_i)."""

    def __init__(self, width: int) -> None:
        # The last layer has no bias, which the softmax would not see.
        score = nn.Linear(width, 1, bias=False)
        super().__init__(nn.Linear(width, width), nn.ReLU(), score, nn.Softmax(dim=1))

    def forward(self, patches: Tensor) -> Tensor:
        return patches * (1 + super().forward(patches))


class HOLEF(nn.Module):
    """The higher-order learnable energy D_W(x, y) = sum_ij (x_i - y_j)^2 W_ij, as a product of two rows.

    D_W = (x*x).(W 1) + (y*y).(W^T 1) - 2 x^T W y. With W = I it is Euclid's squared distance. W begins there,
    but for normal `noise` in each element: training takes hundreds of steps to get rid of 0.05.
    """

    def __init__(self, size: int, noise: float = 0.0) -> None:
        super().__init__()
        # W - I, not W: weight decay, too, then draws it to Euclid's distance.
        self.departure = nn.Parameter(noise * torch.randn(size, size))

    @property
    def weights(self) -> Tensor:
        """W (e, e)."""
        return torch.eye(len(self.departure), device=self.departure.device) + self.departure

    def departure_norms(self) -> Tensor:
        """|W - I|_1 + |W - I|_F, over all elements."""
        return self.departure.abs().sum() + self.departure.norm()

    def sketch_rows(self, x: Tensor) -> Tensor:
        """(b, e) -> (b, e + 2): [2 W^T x ; 1 ; -(x*x).(W 1)], float32."""
        # The terms of D_W nearly cancel one another, which bf16 would not survive.
        with torch.autocast(x.device.type, enabled=False):
            own = -(x * x) @ self.weights.sum(dim=1, keepdim=True)
            return torch.cat([2 * x @ self.weights, torch.ones_like(own), own], dim=1)

    def photo_rows(self, y: Tensor) -> Tensor:
        """(b, e) -> (b, e + 2): [y ; -(y*y).(W^T 1) ; 1], float32."""
        with torch.autocast(y.device.type, enabled=False):
            own = -(y * y) @ self.weights.sum(dim=0)[:, None]
            return torch.cat([y, own, torch.ones_like(own)], dim=1)

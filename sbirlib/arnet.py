"""ARNet: two encoders, each seeing two views, aligned within and across the two domains."""

from __future__ import annotations

from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from sbirlib.backbones import Backbone, Fit, Pool, fit_square
from sbirlib.config import Config


class Encoded(NamedTuple):
    """Embedding (b, e), global token (b, d) and patch tokens (b, n, d) of one view."""

    embedding: Tensor
    cls: Tensor
    patches: Tensor


class ARNetOutput(NamedTuple):
    """Both views of both domains, encoded; the first view is the one matched across domains."""

    sketch: Encoded
    sketch_second: Encoded
    photo: Encoded
    photo_second: Encoded


class Encoder(nn.Module):
    """Backbone and embedding layer of one domain: (b, 3, s, s) in [0, 1] -> Encoded."""

    def __init__(self, backbone: Backbone, embed_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.embed = nn.Linear(backbone.dim, embed_dim)

    def forward(self, images: Tensor) -> Encoded:
        """(b, 3, s, s) in [0, 1] -> Encoded."""
        cls, patches = self.backbone(images)
        return Encoded(self.embed(cls), cls, patches)


class ARNet(nn.Module):
    """Sketch encoder and photo encoder with one embedding space (paper, section 3).

    `backbone` is any timm name; `image_size` in pixels; `embed_dim` e; `fit` says how non-square
    images become square. Raises BackboneError if the backbone cannot be built.
    """

    def __init__(self, backbone: str = "vit_base_patch16_224", *, image_size: int = 224, embed_dim: int = 512,
                 pool: Pool = "cls", fit: Fit = "pad", pretrained: bool = False, share_encoders: bool = False,
                 drop_path: float = 0.0) -> None:
        super().__init__()
        self.image_size, self.fit, self.embed_dim = image_size, fit, embed_dim
        # Of the run that trained the weights, and which of its checkpoints they are, if one did.
        self.config: Config | None = None
        self.checkpoint = ""

        def encoder() -> Encoder:
            return Encoder(Backbone(backbone, image_size=image_size, pretrained=pretrained, pool=pool,
                                    drop_path=drop_path), embed_dim)

        self.sketch_encoder = encoder()
        self.photo_encoder = self.sketch_encoder if share_encoders else encoder()

    @staticmethod
    def from_config(config: Config) -> ARNet:
        """The model that `config.model` and `config.data.fit` describe."""
        options = dict(config.to_dict()["model"])
        return ARNet(options.pop("backbone"), fit=config.data.fit, **options)

    def forward(self, sketch: Tensor, sketch_second: Tensor, photo: Tensor, photo_second: Tensor) -> ARNetOutput:
        """Four batches of views (b, 3, s, s) in [0, 1], s = image_size -> ARNetOutput.

        The steps of the paper's figure: two views of each domain (1) go through the domain's encoder
        (2), which gives global and patch tokens (3) and an embedding (4) of every view;
        `losses.arnet_loss` then aligns the views within each domain (5) and across the two (6).
        """
        # Both views side by side: same weights, so one pass serves them.
        sketches = self.sketch_encoder(torch.cat([sketch, sketch_second]))
        photos = self.photo_encoder(torch.cat([photo, photo_second]))
        return ARNetOutput(*_halves(sketches), *_halves(photos))

    def embed_sketches(self, images: Tensor, *, normalise: bool = True) -> Tensor:
        """(b, 3, h, w) in [0, 1], any size -> (b, e), unit length unless `normalise=False`.

        Preprocessing is inside: images are made square as in training and normalised for the backbone.
        Raises ValueError for another shape or type. No gradient is kept back: wrap in `torch.no_grad`.
        """
        return self._embed(self.sketch_encoder, images, normalise)

    def embed_photos(self, images: Tensor, *, normalise: bool = True) -> Tensor:
        """(b, 3, h, w) in [0, 1], any size -> (b, e); as `embed_sketches`, with the photo encoder."""
        return self._embed(self.photo_encoder, images, normalise)

    def _embed(self, encoder: Encoder, images: Tensor, normalise: bool) -> Tensor:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(f"expected float images (b, 3, h, w) in [0, 1], found {images.dtype} "
                             f"{tuple(images.shape)}")
        embedding = encoder(fit_square(images, self.image_size, self.fit)).embedding
        return F.normalize(embedding, dim=-1) if normalise else embedding


def _halves(encoded: Encoded) -> tuple[Encoded, Encoded]:
    """Undoes the concatenation of two views."""
    parts = [rearrange(value, "(view b) ... -> view b ...", view=2) for value in encoded]
    return Encoded(*(part[0] for part in parts)), Encoded(*(part[1] for part in parts))

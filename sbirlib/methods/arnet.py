"""ARNet: two encoders, each seeing two views, aligned within and across the two domains."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from sbirlib.config.config import Config
from sbirlib.config.methods import LossConfig
from sbirlib.data.transforms import Fit, fit_square
from sbirlib.layers.backbone import Backbone, BackboneError, Pool, Tokens
from sbirlib.layers.losses import info_nce
from sbirlib.layers.mstr import MSTR


class Encoded(NamedTuple):
    """One view: embedding (b, e), global token (b, d), patch tokens (b, n, d).

    `cells` (b, m, d) are the patch tokens as MSTR recycled them; None without MSTR.
    """

    embedding: Tensor
    cls: Tensor
    patches: Tensor
    cells: Tensor | None


class ARNetOutput(NamedTuple):
    """Both views of both domains; the first view is matched across domains, the second only within.

    `recyc_sketch` and `recyc_photo` are the recycling losses of the first views, scalars.
    """

    sketch: Encoded
    sketch_second: Tokens
    photo: Encoded
    photo_second: Tokens
    recyc_sketch: Tensor
    recyc_photo: Tensor


class Encoder(nn.Module):
    """Backbone, token recycling and embedding layer of one domain; `mstr` None leaves recycling out."""

    def __init__(self, backbone: Backbone, mstr: MSTR | None, embed: nn.Module) -> None:
        super().__init__()
        self.backbone, self.mstr, self.embed = backbone, mstr, embed

    def forward(self, images: Tensor) -> Encoded:
        """(b, 3, s, s) in [0, 1] -> Encoded."""
        return self.head(self.backbone(images))

    def head(self, tokens: Tokens) -> Encoded:
        """What follows the backbone: recycling if there is any, and the embedding."""
        if self.mstr is None:
            return Encoded(self.embed(tokens.cls), *tokens, None)
        fused, cells = self.mstr(*tokens)
        return Encoded(self.embed(fused), *tokens, cells)

    def two_views(self, first: Tensor, second: Tensor) -> tuple[Encoded, Tokens]:
        """Two views (b, 3, s, s) of the same pictures, the second up to its tokens only."""
        # Both views side by side: same weights, so one pass serves them.
        both = self.backbone(torch.cat([first, second]))
        halves = (rearrange(value, "(view b) ... -> view b ...", view=2) for value in both)
        first_tokens, second_tokens = (Tokens(*values) for values in zip(*halves, strict=True))
        return self.head(first_tokens), second_tokens

    def recycling_loss(self, encoded: Encoded) -> Tensor:
        """L_recyc, a scalar; 0 without MSTR."""
        return encoded.cls.new_zeros(()) if self.mstr is None else self.mstr.loss(encoded.cells)


class ARNet(nn.Module):
    """Sketch encoder and photo encoder with one embedding space (paper, section 3).

    `backbone` is any timm name; `weights` a local file for it, which stands for `pretrained`;
    `image_size` in pixels; `embed_dim` e, None for the global token itself; `fit` says how
    non-square images become square; `mstr` the options of `MSTR`, None for ARNet basic. Two encoders
    begin with the same weights, unless `same_start` is False. With `photo_edges` photos are seen as
    edge maps.
    Raises BackboneError if the backbone cannot be built, MSTRError if recycling does not fit it.
    """

    def __init__(
        self,
        backbone: str = "vit_base_patch16_224",
        *,
        image_size: int = 224,
        embed_dim: int | None = 512,
        pool: Pool = "cls",
        fit: Fit = "pad",
        normalise: bool = True,
        pretrained: bool = False,
        weights: str | Path = "",
        share_encoders: bool = False,
        same_start: bool = True,
        photo_edges: bool = False,
        drop_path: float = 0.0,
        early_patches: int = 0,
        mstr: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.image_size, self.fit = image_size, fit
        # Of the run that trained the weights, and in words where the weights come from.
        self.config: Config | None = None
        self.origin = "untrained"

        def encoder() -> Encoder:
            trunk = Backbone(
                backbone,
                image_size=image_size,
                pretrained=pretrained,
                weights=weights,
                pool=pool,
                normalise=normalise,
                drop_path=drop_path,
                early_patches=early_patches,
            )
            if mstr is not None and trunk.dim != trunk.encoder.num_features:
                raise BackboneError(
                    f"backbone {backbone!r} pools to {trunk.dim} channels, its tokens have "
                    f"{trunk.encoder.num_features}: MSTR cannot mix them; use pool mean"
                )
            recycle = None if mstr is None else MSTR(trunk.dim, trunk.grid, **mstr)
            return Encoder(
                trunk, recycle, nn.Identity() if embed_dim is None else nn.Linear(trunk.dim, embed_dim)
            )

        self.sketch_encoder = encoder()
        # Alike at first: then a line of a sketch and the edge it stands for are near each other from the start.
        if share_encoders:
            self.photo_encoder = self.sketch_encoder
        else:
            self.photo_encoder = copy.deepcopy(self.sketch_encoder) if same_start else encoder()
        if photo_edges:
            self.photo_encoder = _on_edges(self.photo_encoder)

    @staticmethod
    def from_config(config: Config) -> ARNet:
        """The model that `config.model`, `config.mstr` and `config.data.fit` describe."""
        values = config.to_dict()
        options, mstr = values["model"], values["mstr"]
        enabled = mstr.pop("enabled")
        return ARNet(options.pop("backbone"), fit=config.data.fit, mstr=mstr if enabled else None, **options)

    def forward(
        self, sketch: Tensor, sketch_second: Tensor, photo: Tensor, photo_second: Tensor
    ) -> ARNetOutput:
        """Four batches of views (b, 3, s, s) in [0, 1], s = image_size -> ARNetOutput.

        The steps of the paper's figure: two views of each domain (1) go through the domain's encoder
        (2), which gives global and patch tokens of every view (3); MSTR recycles the patch tokens of
        the first views (4) into their embeddings (5); `losses.arnet_loss` then aligns the views
        within each domain and across the two (6).
        """
        sketches, sketches_second = self.sketch_encoder.two_views(sketch, sketch_second)
        photos, photos_second = self.photo_encoder.two_views(photo, photo_second)
        return ARNetOutput(
            sketches,
            sketches_second,
            photos,
            photos_second,
            self.sketch_encoder.recycling_loss(sketches),
            self.photo_encoder.recycling_loss(photos),
        )

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
            raise ValueError(
                f"expected float images (b, 3, h, w) in [0, 1], found {images.dtype} {tuple(images.shape)}"
            )
        embedding = encoder(fit_square(images, self.image_size, self.fit)).embedding
        return F.normalize(embedding, dim=-1) if normalise else embedding


def _on_edges(encoder: Encoder) -> Encoder:
    """The very weights of `encoder`, which may serve sketches as well, behind edge maps."""
    # A shallow copy shares layers, buffers and hooks: only what the backbone does first differs.
    backbone = copy.copy(encoder.backbone)
    backbone.edges = True
    return Encoder(backbone, encoder.mstr, encoder.embed)


class LossTerms(NamedTuple):
    """The weighted sum that is minimised, and its terms before weighting; scalars."""

    total: Tensor
    multi: Tensor
    inter: Tensor
    intra_sketch: Tensor
    intra_photo: Tensor
    recyc_sketch: Tensor
    recyc_photo: Tensor


def arnet_loss(output: ARNetOutput, photo_ids: Tensor, config: LossConfig) -> LossTerms:
    """The method's loss: L_multi + L_inter and for each domain L_intra + L_recyc, weighted.

    `photo_ids` (b,) int64 tells which pairs show the same photo. L_recyc is 0 for a model without
    MSTR. Source: paper, section 3.
    """
    ids = photo_ids if config.mask_duplicates else None

    def align(first: Tensor, second: Tensor) -> Tensor:
        return info_nce(first, second, temperature=config.temperature, photo_ids=ids)

    sketch, photo = output.sketch, output.photo
    terms = {
        "multi": align(sketch.embedding, photo.embedding),
        "inter": align(sketch.cls, photo.cls),
        "intra_sketch": align(sketch.cls, output.sketch_second.cls),
        "intra_photo": align(photo.cls, output.photo_second.cls),
        "recyc_sketch": output.recyc_sketch,
        "recyc_photo": output.recyc_photo,
    }
    return LossTerms(sum(getattr(config, name) * term for name, term in terms.items()), **terms)

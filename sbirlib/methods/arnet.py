"""ARNet (Jiang et al., AAAI 2025): two encoders, each seeing two views, aligned within and across domains."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from sbirlib.config import Config, LossConfig
from sbirlib.data.batches import Batch
from sbirlib.errors import ConfigError
from sbirlib.layers import MSTR, Backbone, BackboneError, ReleasedMSTR, Tokens, alike_loss, info_nce
from sbirlib.methods.base import Encoder, Method

# The options with which `ReleasedMSTR` does what the paper says.
PAPER_MSTR: dict[str, Any] = {
    "similarity": "cosine", "attention": "tokens", "pooling": "windows", "contrast": "overlap",
    "registered": True,
}  # fmt: skip


class Encoded(NamedTuple):
    """One view: embedding (b, e), global token (b, d), patch tokens (b, n, d), recycled cells (b, m, d)."""

    embedding: Tensor
    cls: Tensor
    patches: Tensor
    cells: Tensor | None  # None without MSTR


class ARNet(Method):
    """Sketch encoder and photo encoder with one embedding space (paper, section 3).

    `backbone` is any timm name; `embed_dim` e, None for the global token itself; `mstr` the options of
    `MSTR` and `ReleasedMSTR`, None for ARNet basic; `loss` the weights of the terms. The other keywords are
    those of `Method` and `Backbone`: image_size, fit, pool, pretrained, weights, share_encoders, ...
    Raises BackboneError if the backbone cannot be built, MSTRError if recycling does not fit it.
    """

    name = "arnet"
    sketch_encoder: "RecyclingEncoder"
    photo_encoder: "RecyclingEncoder"

    def __init__(
        self, backbone: str = "vit_base_patch16_224", *, embed_dim: int | None = 512,
        mstr: Mapping[str, Any] | None = None, loss: LossConfig | None = None, **options: Any,
    ) -> None:  # fmt: skip
        self.loss, self.recycling = loss or LossConfig(), mstr  # which the encoders are made with
        if not any(getattr(self.loss, name) for name in ("multi", "inter", "intra_sketch", "intra_photo")):
            raise ConfigError("loss.multi, inter, intra_sketch and intra_photo are all 0: nothing to learn")
        super().__init__(backbone, embed_dim=embed_dim, **options)
        # Only the terms within a domain look at them.
        self.second_views = bool(self.loss.intra_sketch or self.loss.intra_photo)
        self.second_every = self.loss.intra_every
        if getattr(self.sketch_encoder.mstr, "attention", "tokens") != "tokens":
            self.indivisible = "mstr.attention = 'batch' lets the images of a batch see each other"

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """The model that `config.model`, `config.mstr`, `config.loss` and `config.data.fit` describe."""
        model, mstr = asdict(config.model), asdict(config.mstr)
        recycle = mstr if mstr.pop("enabled") else None
        return cls(model.pop("backbone"), fit=config.data.fit, mstr=recycle, loss=config.loss, **model)

    def make_encoder(self, trunk: Backbone) -> "RecyclingEncoder":
        recycle = None if self.recycling is None else _mstr(trunk, self.recycling)
        embed = nn.Identity() if self.embed_dim is None else nn.Linear(trunk.dim, self.embed_dim)
        return RecyclingEncoder(trunk, embed, recycle)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """Steps 1 to 5 of the paper's figure, before the alignment.

        Two views of each domain (1) go through the domain's encoder (2), which gives global and patch tokens
        of every view (3); MSTR recycles the patch tokens of the first views (4) into their embeddings (5).
        """
        sketch, sketch_second = self.sketch_encoder.two_views(batch.sketch, batch.sketch_second)
        photo, photo_second = self.photo_encoder.two_views(batch.photo, batch.photo_second)
        rows = {
            "sketch": sketch.embedding,
            "photo": photo.embedding,
            "sketch_cls": sketch.cls,
            "photo_cls": photo.cls,
            "recyc_sketch": self.sketch_encoder.recycling_loss(sketch),
            "recyc_photo": self.photo_encoder.recycling_loss(photo),
        }
        if sketch_second and photo_second:
            rows |= {"sketch_second_cls": sketch_second.cls, "photo_second_cls": photo_second.cls}
        return rows

    def compare(self, rows: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The views are aligned within each domain and across the two (6).

        L_multi + L_inter, and L_intra + L_recyc of each domain, weighted; L_recyc is 0 without MSTR. Rows of
        the same photo are no negatives. Source: paper, section 3; mask and L_attributes are the kit's own.
        """
        # With L_intra in every n-th step alone, n times as strong, its mean over the steps stays what it was.
        ids, every = batch.photo_ids if self.loss.mask_duplicates else None, self.loss.intra_every

        def align(first: str, second: str) -> Tensor:
            if second not in rows:
                return rows[first].new_zeros(())
            return info_nce(rows[first], rows[second], temperature=self.loss.temperature, photo_ids=ids)

        terms = {
            "multi": align("sketch", "photo"),
            "inter": align("sketch_cls", "photo_cls"),
            "intra_sketch": every * align("sketch_cls", "sketch_second_cls"),
            "intra_photo": every * align("photo_cls", "photo_second_cls"),
            "recyc_sketch": rows["recyc_sketch"],
            "recyc_photo": rows["recyc_photo"],
            "attributes": rows["sketch"].new_zeros(()),
        }
        if self.loss.attributes:
            labels, tau = self.labels.to(batch.photo_ids.device)[batch.photo_ids], self.loss.temperature
            terms["attributes"] = alike_loss(rows["sketch"], rows["photo"], labels, temperature=tau)
        return {"total": sum(getattr(self.loss, name) * term for name, term in terms.items()), **terms}


class RecyclingEncoder(Encoder):
    """Backbone, token recycling and embedding layer of one domain; without `mstr`, ARNet basic."""

    mstr: MSTR | None

    def embedding(self, tokens: Tokens) -> Tensor:
        return self.recycle(tokens).embedding

    def recycle(self, tokens: Tokens) -> Encoded:
        """What follows the backbone: recycling, if any, and the embedding layer."""
        if self.mstr is None:
            return Encoded(self.embed(tokens.cls), *tokens, None)
        fused, cells = self.mstr(*tokens)
        return Encoded(self.embed(fused), *tokens, cells)

    def two_views(self, first: Tensor, second: Tensor) -> tuple[Encoded, Tokens | None]:
        """Two views (b, 3, s, s) of the same pictures; the second, if any, only as far as its tokens."""
        if not len(second):
            return self.recycle(self.backbone(first)), None
        # Both views in one batch: they share the weights, so one pass serves both.
        both = self.backbone(torch.cat([first, second]))
        halves = (rearrange(value, "(view b) ... -> view b ...", view=2) for value in both)
        first_tokens, second_tokens = (Tokens(*values) for values in zip(*halves, strict=True))
        return self.recycle(first_tokens), second_tokens

    def recycling_loss(self, encoded: Encoded) -> Tensor:
        """L_recyc, a scalar; 0 without MSTR."""
        no_loss = encoded.cls.new_zeros(())
        return no_loss if self.mstr is None or encoded.cells is None else self.mstr.loss(encoded.cells)


def _mstr(trunk: Backbone, options: Mapping[str, Any]) -> MSTR:
    """MSTR as in the paper, unless an option asks for what the released code does."""
    if trunk.dim != trunk.width and trunk.pool != "grid":
        sizes = f"pools to {trunk.dim} channels, its tokens have {trunk.width}"
        raise BackboneError(f"backbone {trunk.name!r} {sizes}: MSTR cannot mix them; use pool mean")
    asked = PAPER_MSTR | dict(options)
    others = {key: value for key, value in asked.items() if key not in PAPER_MSTR}
    tokens = trunk.dim // trunk.width
    if asked == PAPER_MSTR | others:
        return MSTR(trunk.width, trunk.grid, tokens=tokens, **others)
    return ReleasedMSTR(trunk.width, trunk.grid, tokens=tokens, **asked)

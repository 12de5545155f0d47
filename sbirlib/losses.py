"""InfoNCE within and across the two domains, and the sum that ARNet minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from sbirlib.config import LossConfig

if TYPE_CHECKING:
    from sbirlib.arnet import ARNetOutput


class LossTerms(NamedTuple):
    """The weighted sum that is minimised, and its terms before weighting; scalars."""

    total: Tensor
    multi: Tensor
    inter: Tensor
    intra_sketch: Tensor
    intra_photo: Tensor
    recyc_sketch: Tensor
    recyc_photo: Tensor


def info_nce(first: Tensor, second: Tensor, *, temperature: float = 0.07,
             photo_ids: Tensor | None = None) -> Tensor:
    """Contrastive loss over the 2b rows of `first` and `second`, both (b, d); rows pair up by position.

    Each row's one positive is its partner; every other row is a negative, of either side. With
    `photo_ids` (b,) int64, rows of the same photo are left out of the negatives. Rows are compared by
    cosine / `temperature` (no unit); the result is the mean over 2b rows, a float32 scalar.
    Raises ValueError if the shapes differ. Source: paper, section 3; the mask is ours.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"expected two (b, d) of one shape, found {tuple(first.shape)}, {tuple(second.shape)}")
    pairs = len(first)
    rows = F.normalize(torch.cat([first, second]).float(), dim=-1)
    similarity = rows @ rearrange(rows, "rows d -> d rows") / temperature
    partner = torch.arange(2 * pairs, device=rows.device).roll(pairs)
    ignored = torch.eye(2 * pairs, dtype=torch.bool, device=rows.device)
    if photo_ids is not None:
        ids = photo_ids.repeat(2)
        ignored |= ids[:, None] == ids[None, :]
        ignored.scatter_(1, partner[:, None], False)
    return F.cross_entropy(similarity.masked_fill(ignored, -torch.inf), partner)


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

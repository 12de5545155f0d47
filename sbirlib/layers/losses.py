"""InfoNCE within and across the two domains, and the sum that ARNet minimises."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F


def info_nce(
    first: Tensor, second: Tensor, *, temperature: float = 0.07, photo_ids: Tensor | None = None
) -> Tensor:
    """Contrastive loss over the 2b rows of `first` and `second`, both (b, d); rows pair up by position.

    Each row's one positive is its partner; every other row is a negative, of either side. With
    `photo_ids` (b,) int64, rows of the same photo are left out of the negatives. Rows are compared by
    cosine / `temperature` (no unit); the result is the mean over 2b rows, a float32 scalar.
    Raises ValueError if the shapes differ. Source: paper, section 3; the mask is ours.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(
            f"expected two (b, d) of one shape, found {tuple(first.shape)}, {tuple(second.shape)}"
        )
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

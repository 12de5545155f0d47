"""Losses that several methods share: InfoNCE, and triplets within a batch."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F


def info_nce(
    first: Tensor, second: Tensor, *, temperature: float = 0.07, photo_ids: Tensor | None = None
) -> Tensor:
    """Contrastive loss over the 2b rows of `first` and `second`, both (b, d); rows pair up by position.

    The one positive of a row is its partner; every other row, of either side, is a negative. With
    `photo_ids` (b,) int64, rows of the same photo are no negatives. Rows are compared by cosine /
    `temperature` (no unit); the result is the mean over 2b rows, a float32 scalar. Raises ValueError if the
    shapes differ. Source: paper, section 3; the mask is the kit's own.
    """
    if first.shape != second.shape or first.ndim != 2:
        found = f"{tuple(first.shape)}, {tuple(second.shape)}"
        raise ValueError(f"expected two (b, d) of one shape, found {found}")
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


def alike_loss(first: Tensor, second: Tensor, labels: Tensor, *, temperature: float = 0.07) -> Tensor:
    """As `info_nce`, but a row wants all others, e^2 times less for each of the `labels` (b, a) that differs.

    0 is unknown and differs from everything. Source: after Song et al. (BMVC 2016), attributes as a task.
    """
    rows, labels = F.normalize(torch.cat([first, second]).float(), dim=-1), labels.repeat(2, 1)
    differ, least = (labels[:, None] != labels) | (labels == 0), torch.finfo(torch.float32).min
    wanted = (-2.0 * differ.sum(dim=-1)).fill_diagonal_(least).softmax(dim=1)
    return F.cross_entropy((rows @ rows.mT / temperature).fill_diagonal_(least), wanted)


def other_photos(photo_ids: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of a batch a row with another photo, (b,) int64, and whether there is one, (b,) bool.

    `photo_ids` (b,) int64; `numbers` (b,) uniform in [0, 1) choose among a row's candidates, so that the
    choice depends on nothing but the batch and the row's own number.
    """
    others = photo_ids[:, None] != photo_ids[None, :]
    counts = others.sum(dim=1)
    place = torch.minimum((numbers * counts).long(), counts - 1)
    chosen = others & (others.cumsum(dim=1) == place[:, None] + 1)
    return chosen.int().argmax(dim=1), counts > 0


def euclidean_triplet(
    anchor: Tensor, positive: Tensor, negative: Tensor, there: Tensor, margin: float
) -> Tensor:
    """Mean of [margin + |a - p| - |a - n|]+ over rows (b, d), of which those not `there` (b,) count as 0."""
    return (F.triplet_margin_loss(anchor, positive, negative, margin, reduction="none") * there).mean()

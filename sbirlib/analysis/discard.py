"""Token discard: keep a part of a query's patch tokens, embed it again, and see what the search makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from einops import rearrange, reduce, repeat
from torch import Tensor
from torch.nn import functional as F

from sbirlib.analysis.attention import attention_maps, global_attention, recycling_shares, shares_by_token
from sbirlib.data.loading import LoadedSplit
from sbirlib.data.transforms import to_float
from sbirlib.errors import InputError
from sbirlib.layers.backbone import Tokens
from sbirlib.methods.base import Encoder, Method
from sbirlib.retrieval.rows import embed
from sbirlib.retrieval.scores import Accuracy, accuracy_at, true_ranks
from sbirlib.retrieval.search import score_all

Rule = Literal["attention", "norm", "recycling", "random"]
Where = Literal["input", "output"]
RULES, PLACES = ("attention", "norm", "recycling", "random"), ("input", "output")


class DiscardCurve(NamedTuple):
    """By share of tokens kept: that share in whole tokens, `kept` (f,), `ranks` (f, q), and Acc@1, `accuracy` (f,)."""

    kept: np.ndarray
    ranks: np.ndarray
    accuracy: list[Accuracy]


@torch.no_grad()
def token_scores(encoder: Encoder, images: Tensor, rule: Rule, *, seed: int = 0) -> Tensor:
    """How worth keeping each patch token is, (b, n), for images (b, 3, s, s) in [0, 1].

    `attention` that the global token pays it in the last layer, mean over heads; `norm` of the token;
    `recycling`, its share in the recycled feature; `random`, the yardstick for the others. Raises
    InputError where the encoder has no attention or does not recycle.
    """
    if rule == "attention":
        maps = global_attention(attention_maps(encoder.backbone, images), uses_cls=encoder.backbone.uses_cls)
        return rearrange(reduce(maps[-1], "b head h w -> b h w", "mean"), "b h w -> b (h w)")
    if rule == "norm":
        return encoder.backbone(images).patches.norm(dim=-1)
    if rule == "recycling":
        by_token = shares_by_token(recycling_shares(encoder, images), encoder.backbone.grid)
        return rearrange(by_token, "b h w -> b (h w)")
    if rule == "random":
        height, width = encoder.backbone.grid
        draw = torch.rand(len(images), height * width, generator=torch.Generator().manual_seed(seed))
        return draw.to(images.device)
    raise InputError(f"rule {rule!r}: tokens are ranked by {', '.join(RULES)}")


def kept_places(scores: Tensor, keep: float) -> Tensor:
    """The places (b, k) of the best tokens in the grid, in its order; k = `keep` of n (b, n), at least one.

    Raises InputError for a share outside 0 to 1.
    """
    if not 0 <= keep <= 1:
        raise InputError(f"keep = {keep}: the share of tokens to keep is between 0 and 1")
    count = max(1, round(keep * scores.shape[1]))
    return scores.topk(count, dim=1).indices.sort(dim=1).values


def embed_kept(
    encoder: Encoder, images: Tensor, places: Tensor, *, where: Where = "output", recycle: bool = True
) -> Tensor:
    """Embeddings (b, e) of unit length of images that keep the patch tokens at `places` (b, k) only.

    `where="output"` discards after the last block, so that only what follows the backbone goes without;
    "input" before the first, which then never sees them. In the grid that MSTR pools, the mean of the kept
    tokens fills the gaps. `recycle=False` leaves the recycled feature out. Raises InputError for an
    encoder without patch tokens to drop at the input.
    """
    if where not in PLACES:
        raise InputError(f"where = {where!r}: tokens are discarded at {' or '.join(PLACES)}")
    cls, patches = (
        _at_input(encoder, images, places) if where == "input" else _at_output(encoder, images, places)
    )
    height, width = encoder.backbone.grid
    filled = repeat(reduce(patches, "b k d -> b d", "mean"), "b d -> b n d", n=height * width)
    filled = filled.scatter(1, repeat(places, "b k -> b k d", d=patches.shape[-1]), patches)
    whole = Tokens(cls, filled)
    embedding = encoder.embedding(whole) if recycle else encoder.embed(whole.cls)
    return F.normalize(embedding, dim=-1)


def embed_whole(encoder: Encoder, images: Tensor, *, recycle: bool = True) -> Tensor:
    """Embeddings (b, e) of unit length of whole images (b, 3, s, s), with or without the recycled feature."""
    embedding = encoder(images) if recycle else encoder.embed(encoder.backbone(images).cls)
    return F.normalize(embedding, dim=-1)


def earliest_place(encoder: Encoder) -> Where:
    """Where the most is lost by discarding: at the input, if this backbone can go without patches (plain ViTs)."""
    return "input" if hasattr(encoder.backbone.encoder, "patch_drop") else "output"


def _at_input(encoder: Encoder, images: Tensor, places: Tensor) -> Tokens:
    vit = encoder.backbone.encoder
    if earliest_place(encoder) != "input":
        raise InputError(
            f"{type(vit).__name__} has no patch tokens that could be dropped before its first block; "
            "choose a plain ViT, or where=output"
        )

    def drop(_layer: torch.nn.Module, _inputs: tuple, tokens: Tensor) -> Tensor:
        prefix, patches = tokens[:, : vit.num_prefix_tokens], tokens[:, vit.num_prefix_tokens :]
        return torch.cat([prefix, _take(patches, places)], dim=1)

    # timm's place for dropping patches in training, between the position embedding and the first block.
    handle = vit.patch_drop.register_forward_hook(drop)
    try:
        return encoder.backbone(images)
    finally:
        handle.remove()


def _at_output(encoder: Encoder, images: Tensor, places: Tensor) -> Tokens:
    if encoder.backbone.pool == "own" or encoder.backbone.early_patches:
        raise InputError(
            "this backbone makes its global token of something else than the patch tokens that it gives "
            "(model.pool own, model.early_patches): discard at the input (where='input')"
        )
    cls, patches = encoder.backbone(images)
    kept = _take(patches, places)
    return Tokens(cls if encoder.backbone.uses_cls else reduce(kept, "b k d -> b d", "mean"), kept)


def _take(patches: Tensor, places: Tensor) -> Tensor:
    return patches.gather(1, repeat(places, "b k -> b k d", d=patches.shape[-1]))


@torch.inference_mode()
def discard_curve(
    model: Method,
    data: LoadedSplit,
    *,
    rule: Rule = "attention",
    where: Where = "output",
    recycle: bool = True,
    fractions: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
    batch: int = 64,
    seed: int = 0,
) -> DiscardCurve:
    """Acc@1 of a loaded split when its sketches keep a fraction of their patch tokens; photos keep all.

    `rule`, `where` and `recycle` as in `token_scores` and `embed_kept`. Raises InputError as these do.
    """
    device, encoder = next(model.parameters()).device, model.eval().sketch_encoder
    photos = embed(
        lambda images: embed_whole(model.photo_encoder, images, recycle=recycle),
        data.photos,
        device=device,
        what="photos",
    )
    scores = torch.cat(
        [
            token_scores(encoder, to_float(part, device), rule, seed=seed + i)
            for i, part in enumerate(data.sketches.split(batch))
        ]
    )
    ranks, kept = [], []
    for fraction in fractions:
        places = kept_places(scores, fraction)
        sketches = torch.cat(
            [
                embed_kept(encoder, to_float(part, device), chosen, where=where, recycle=recycle)
                for part, chosen in zip(data.sketches.split(batch), places.split(batch), strict=True)
            ]
        )
        ranks.append(
            true_ranks(
                score_all(model.score, sketches.float().cpu(), photos).numpy(), data.photo_index.numpy()
            )
        )
        kept.append(places.shape[1] / scores.shape[1])
    return DiscardCurve(np.array(kept), np.stack(ranks), [accuracy_at(row, 1) for row in ranks])

"""Token discard: keep a part of a query's patch tokens, embed it again, and see what the search finds."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from einops import reduce, repeat
from torch import Tensor
from torch.nn import functional as F

from sbirlib.analysis import attention as inside
from sbirlib.data.loading import LoadedSplit
from sbirlib.errors import InputError
from sbirlib.layers.backbone import Tokens
from sbirlib.methods.base import Encoder, Method
from sbirlib.retrieval import Accuracy, accuracy_at, embed, embed_split, score_all, true_ranks

Rule = Literal["attention", "norm", "recycling", "random"]
Where = Literal["input", "output"]
FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


class DiscardCurve(NamedTuple):
    """Shares of tokens kept (f,), rounded to whole tokens, the ranks (f, q) with each, and Acc@1 (f,)."""

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
    backbone = encoder.backbone
    if rule == "attention":
        maps = inside.global_attention(inside.attention_maps(backbone, images), uses_cls=backbone.uses_cls)
        return reduce(maps[-1], "b head h w -> b (h w)", "mean")
    if rule == "norm":
        return backbone(images).patches.norm(dim=-1)
    if rule == "recycling":
        return inside.shares_by_token(inside.recycling_shares(encoder, images), backbone.grid).flatten(1)
    if rule == "random":
        shape = len(images), math.prod(backbone.grid)
        return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).to(images.device)
    raise InputError(f"rule {rule!r}: tokens are ranked by {', '.join(get_args(Rule))}")


def kept_places(scores: Tensor, keep: float) -> Tensor:
    """The places (b, k) of the best tokens in the grid, in its order: a share `keep` of n (b, n), or one."""
    count = max(1, round(keep * scores.shape[1]))
    return scores.topk(count, dim=1).indices.sort(dim=1).values


def embed_kept(
    encoder: Encoder, images: Tensor, places: Tensor, *, where: Where = "output", recycle: bool = True
) -> Tensor:
    """Embeddings (b, e) of unit length of images that keep the patch tokens at `places` (b, k) only.

    `where="output"` discards after the last block, so that only what follows the backbone goes without;
    "input" before the first, which then never sees them. In the grid that MSTR pools, the mean of the kept
    tokens fills the gaps. `recycle=False` leaves the recycled feature out. Raises InputError for an encoder
    without patch tokens to drop at the input.
    """
    if where not in get_args(Where):
        raise InputError(f"where = {where!r}: tokens are discarded at {' or '.join(get_args(Where))}")
    if encoder.backbone.pool == "grid":
        raise InputError("model.pool grid needs every place of the map: no token can be left out")
    cls, patches = (_at_input if where == "input" else _at_output)(encoder, images, places)
    filled = repeat(patches.mean(dim=1), "b d -> b n d", n=math.prod(encoder.backbone.grid))
    filled = filled.scatter(1, places[..., None].expand_as(patches), patches)
    return _unit(encoder, Tokens(cls, filled), recycle)


def embed_whole(encoder: Encoder, images: Tensor, *, recycle: bool = True) -> Tensor:
    """Embeddings (b, e) of unit length of whole images (b, 3, s, s), with or without the recycled feature."""
    return _unit(encoder, encoder.backbone(images), recycle)


@torch.inference_mode()
def discard_curve(
    model: Method, data: LoadedSplit, *, rule: Rule = "attention", where: Where = "output",
    recycle: bool = True, fractions: Sequence[float] = FRACTIONS, batch: int = 64, seed: int = 0,
) -> DiscardCurve:  # fmt: skip
    """Acc@1 of a loaded split when its sketches keep a fraction of their patch tokens; photos keep all.

    `rule`, `where` and `recycle` as in `token_scores` and `embed_kept`. Raises InputError as these do, and
    for a method whose rows are not unit vectors.
    """
    if not model.vectors:
        needs = "discarding tokens needs pictures as unit vectors"
        raise InputError(f"{needs}, which method {model.name} does not make")
    encoder, pixels = model.eval().sketch_encoder, data.sketches
    device, bare = next(model.parameters()).device, partial(embed_whole, model.photo_encoder, recycle=False)
    gallery = embed_split(model, data).photos if recycle else embed(bare, data.photos, device=device)
    parts = enumerate(inside.batches(model, pixels, batch))
    scores = torch.cat([token_scores(encoder, images, rule, seed=seed + i) for i, images in parts])
    ranks, kept = [], []
    for fraction in fractions:
        places = kept_places(scores, fraction)
        chosen = zip(inside.batches(model, pixels, batch), places.split(batch), strict=True)
        rows = [embed_kept(encoder, *part, where=where, recycle=recycle) for part in chosen]
        similarity = score_all(model.score, torch.cat(rows).float().cpu(), gallery)
        ranks.append(true_ranks(similarity.numpy(), data.photo_index.numpy()))
        kept.append(places.shape[1] / scores.shape[1])
    return DiscardCurve(np.array(kept), np.stack(ranks), [accuracy_at(row, 1) for row in ranks])


def _unit(encoder: Encoder, tokens: Tokens, recycle: bool) -> Tensor:
    # Only recycling can be left out: without it, patch tokens may be all that an encoder embeds.
    whole = recycle or encoder.mstr is None
    return F.normalize(encoder.embedding(tokens) if whole else encoder.embed(tokens.cls), dim=-1)


def _at_input(encoder: Encoder, images: Tensor, places: Tensor) -> Tokens:
    vit = encoder.backbone.encoder
    if not hasattr(vit, "patch_drop"):
        why = f"{type(vit).__name__} has no patch tokens that could be dropped before its first block"
        raise InputError(f"{why}; choose a plain ViT, or where=output")

    def drop(_layer: torch.nn.Module, _inputs: tuple, tokens: Tensor) -> Tensor:
        prefix, patches = tokens[:, : vit.num_prefix_tokens], tokens[:, vit.num_prefix_tokens :]
        return torch.cat([prefix, patches.take_along_dim(places[..., None], dim=1)], dim=1)

    # timm's place for dropping patches in training, between the position embedding and the first block.
    with vit.patch_drop.register_forward_hook(drop):
        return encoder.backbone(images)


def _at_output(encoder: Encoder, images: Tensor, places: Tensor) -> Tokens:
    backbone = encoder.backbone
    normed_after = not (backbone.uses_cls or isinstance(backbone.late_norm, torch.nn.Identity))
    if backbone.pool == "own" or normed_after:
        why = "this backbone makes its global token of something else than the patch tokens that it gives"
        which = "model.pool own, a ViT with its last norm after pooling"
        raise InputError(f"{why} ({which}): discard at the input (where='input')")
    cls, patches = backbone(images)
    kept = patches.take_along_dim(places[..., None], dim=1)
    return Tokens(cls if backbone.uses_cls else kept.mean(dim=1), kept)

"""Look inside a trained model: attention, how alike its patch tokens are, and what recycling makes of each.

Attention is read off any plain ViT while it runs; the hooks that do so are gone afterwards.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from einops import einsum, rearrange, reduce
from timm.models.vision_transformer import Attention, VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from sbirlib.data import LoadedSplit, to_float
from sbirlib.errors import InputError
from sbirlib.layers import MSTR, Backbone
from sbirlib.methods.base import Encoder, Method

TO_GRID = "layer b head (h w) -> layer b head h w"


class AttentionMaps(NamedTuple):
    """Attention of a batch: `maps` (layers, b, heads, t, t), rows are queries and sum to 1.

    Of the t tokens the first `prefix` are CLS and registers, then come the patches of `grid` (h, w) by row.
    """

    maps: Tensor
    prefix: int
    grid: tuple[int, int]


class Recycling(NamedTuple):
    """Before and after MSTR: patch tokens (b, n, d) and their cells of scale 1, or what both measure."""

    before: Any
    after: Any


@torch.no_grad()
def attention_maps(backbone: Backbone, images: Tensor) -> AttentionMaps:
    """Attention to all tokens for images (b, 3, s, s) in [0, 1].

    Raises InputError for a model without attention of this kind, such as a CNN.
    """
    vit, maps = backbone.encoder, []
    layers = [getattr(block, "attn", None) for block in getattr(vit, "blocks", ())]
    if not isinstance(vit, VisionTransformer) or not all(type(layer) is Attention for layer in layers):
        reason = f"{type(vit).__name__} is not a plain ViT, whose every block lets all tokens see one another"
        others = "a CNN has no attention, Swin has windows"
        raise InputError(f"no attention here: {reason} ({others}); choose sbir_mini or vit_*")
    with ExitStack() as afterwards:
        for layer in layers:
            # The fused kernel never has the whole map: for this pass the layer computes it step by step.
            afterwards.callback(setattr, layer, "fused_attn", layer.fused_attn)
            layer.fused_attn = False
            hook = layer.attn_drop.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0].float()))
            afterwards.enter_context(hook)
        backbone(images)
    return AttentionMaps(torch.stack(maps), vit.num_prefix_tokens, backbone.grid)


def patch_attention(attention: AttentionMaps, query: int) -> Tensor:
    """What the patch token `query` (its place in the grid, by row) attends to -> (layers, b, heads, h, w)."""
    rows = attention.maps[..., attention.prefix + query, attention.prefix :]
    return rearrange(rows, TO_GRID, h=attention.grid[0])


def global_attention(attention: AttentionMaps, *, uses_cls: bool) -> Tensor:
    """What the global token attends to -> (layers, b, heads, h, w).

    The row of the CLS token where it is the global token (`Backbone.uses_cls`). Where patch tokens make the
    global token, CLS is never trained, if there is one: the mean of the patches' rows stands for it.
    """
    maps, prefix = attention.maps[..., attention.prefix :], attention.prefix
    rows = maps[..., 0, :] if uses_cls else maps[..., prefix:, :].mean(dim=-2)
    return rearrange(rows, TO_GRID, h=attention.grid[0])


def rollout(attention: AttentionMaps) -> AttentionMaps:
    """Attention followed through all layers, as one layer with one head: what each last token is made of.

    Heads are averaged, and half of every layer is the skip connection. `global_attention` and
    `patch_attention` read the result. Source: attention rollout (Abnar and Zuidema, arXiv 2005.00928).
    """
    layers = reduce(attention.maps, "layer b head i j -> layer b i j", "mean")
    followed = itself = torch.eye(layers.shape[-1], device=layers.device)
    for layer in layers:
        followed = (0.5 * layer + 0.5 * itself) @ followed
    return attention._replace(maps=rearrange(followed, "b i j -> 1 b 1 i j"))


def attention_distance(attention: AttentionMaps, image_size: int) -> Tensor:
    """How far, in pixels of an image of side `image_size`, patches look on average -> (layers, heads).

    The distance between the middles of two patches, weighted by attention, averaged over query patches and
    images; what goes to CLS and registers is left out. Source: the paper's figure of that name.
    """
    height, width = attention.grid
    step = torch.tensor([image_size / height, image_size / width])
    places = torch.cartesian_prod(torch.arange(height), torch.arange(width)) * step
    apart = torch.cdist(places, places).to(attention.maps.device)
    rows = attention.maps[..., attention.prefix :, attention.prefix :]
    rows = rows / rows.sum(dim=-1, keepdim=True)
    return einsum(rows, apart, "layer b head i j, i j -> layer head") / (rows.shape[1] * len(places))


@torch.no_grad()
def recycling_shares(encoder: Encoder, images: Tensor) -> tuple[Tensor, ...]:
    """The share of every cell in the recycled feature r, a (b, h / s, w / s) map for each scale.

    r is a weighted sum of cells; the share of a cell is the part of r's squared length that its summand
    brings, so all shares of an image sum to 1, and one that works against the rest is below 0. Images
    (b, 3, s, s) in [0, 1]. Raises InputError for a model without MSTR.
    """
    mstr = _mstr(encoder)
    if not getattr(mstr, "makes_maps", True):
        raise InputError("the cells of this model are strips, not windows (mstr.pooling): they make no map")
    cells = mstr(*encoder.backbone(images)).cells
    mixed = einsum(cells, mstr.mix.weight, "b m d, t m -> b m t d")
    summands = rearrange(mixed, "b m t d -> b m (t d)")
    whole = reduce(summands, "b m d -> b d", "sum")
    shares = einsum(summands, whole, "b m d, b d -> b m") / rearrange(whole.square().sum(dim=1), "b -> b 1")
    parts = zip(shares.split(mstr.cells_by_scale, dim=1), mstr.scales, strict=True)
    return tuple(rearrange(part, "b (h w) -> b h w", h=mstr.grid[0] // scale) for part, scale in parts)


def shares_by_token(shares: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
    """Shares of the cells of all scales -> (b, h, w): each cell's share divided among its tokens."""
    cells = [part / (grid[0] // part.shape[1]) ** 2 for part in shares]
    spread = [F.interpolate(part[None], grid, mode="nearest-exact")[0] for part in cells]
    return torch.stack(spread).sum(dim=0)


def token_similarity(tokens: Tensor) -> Tensor:
    """Tokens (b, n, d) -> (b, n, n) cosines in [-1, 1]."""
    unit = F.normalize(tokens, dim=-1)
    return unit @ rearrange(unit, "b n d -> b d n")


def similarity_variance(tokens: Tensor) -> Tensor:
    """Tokens (b, n, d) -> (b,) the variance of all n * n entries of each image's similarity matrix.

    0 if all tokens are alike, larger the more some resemble each other and others do not. Source: the
    paper's figure on discarded patch tokens (0.0238 before and 0.0326 after MSTR).
    """
    return token_similarity(tokens).flatten(1).var(dim=1, correction=0)


@torch.no_grad()
def recycled_tokens(encoder: Encoder, images: Tensor) -> Recycling:
    """The same tokens before and after MSTR, for images (b, 3, s, s) in [0, 1].

    Raises InputError for a model without MSTR or without scale 1.
    """
    mstr = _mstr(encoder)
    if 1 not in mstr.scales:
        raise InputError(f"this model has no cells of scale 1: train with 1 among mstr.scales {mstr.scales}")
    tokens = encoder.backbone(images)
    levels = mstr(*tokens).cells.split(mstr.cells_by_scale, dim=1)
    return Recycling(tokens.patches, levels[mstr.scales.index(1)])


def recycling_variance(model: Method, data: LoadedSplit) -> dict[str, Recycling]:
    """Variance of patch-token similarities before and after MSTR, mean of "sketch" and "photo" of a split.

    Raises InputError as `recycled_tokens`.
    """
    model.eval()
    result, encoders = {}, {"sketch": model.sketch_encoder, "photo": model.photo_encoder}
    for (name, encoder), pixels in zip(encoders.items(), (data.sketches, data.photos), strict=True):
        tokens = (recycled_tokens(encoder, images) for images in batches(model, pixels, 64))
        sides = zip(*(map(similarity_variance, part) for part in tokens), strict=True)
        result[name] = Recycling(*(torch.cat(side).mean().item() for side in sides))
    return result


def batches(model: Method, pixels: Tensor, size: int) -> Iterator[Tensor]:
    """Pixels (n, 3, s, s) uint8 -> images in [0, 1], where the model is, so many at a time."""
    return (to_float(part, next(model.parameters()).device) for part in pixels.split(size))


def _mstr(encoder: Encoder) -> MSTR:
    if encoder.mstr is None:
        hint = "train with MSTR (method arnet, preset mini_full or full)"
        raise InputError(f"this model does not recycle tokens: {hint}")
    return encoder.mstr

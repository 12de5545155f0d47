"""What a trained model does on a split, a picture in one call; the command `picture` writes each to a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import rearrange
from matplotlib.figure import Figure
from torch import Tensor

from sbirlib.analysis.attention import (
    attention_distance,
    attention_maps,
    global_attention,
    recycled_tokens,
    recycling_shares,
    similarity_variance,
    token_similarity,
)
from sbirlib.analysis.discard import Rule, Where, discard_curve, earliest_place
from sbirlib.data.loading import LoadedSplit
from sbirlib.data.transforms import to_float
from sbirlib.errors import InputError
from sbirlib.figures.curves import discard_curves
from sbirlib.figures.embedding import embedding_map, project
from sbirlib.figures.photos import failure_gallery
from sbirlib.figures.tokens import distance_by_layer, similarity_heatmaps, token_overlay
from sbirlib.methods.base import Method
from sbirlib.retrieval.rows import Rows, embed_split
from sbirlib.retrieval.scores import Scores, score
from sbirlib.retrieval.search import score_all


def embeddings(model: Method, data: LoadedSplit, query: int = 0) -> Figure:
    """Map of all embeddings: t-SNE, a line from each sketch to its photo, six pairs with their pictures.

    `query` begins the evenly spaced six. Source: the paper's figure 3.2 in kind.
    """
    rows = embed_split(model, data)
    scores = _scores(model, data, rows)
    count = len(data.sketches)
    chosen = [(query + step * count // 6) % count for step in range(min(6, count))]
    thumbnails = {
        row: (picture(data.sketches[row]), picture(data.photos[data.photo_index[row]])) for row in chosen
    }
    return embedding_map(
        project(*rows), data.photo_index.numpy(), thumbnails=thumbnails, hits=scores.ranks == 1
    )


def failures(model: Method, data: LoadedSplit, query: int = 0, *, rows: int = 4, shown: int = 4) -> Figure:
    """The sketches with the worst ranks, with their photo and what was found before it.

    `query` leaves out so many of the worst. Raises InputError if no sketch is left.
    """
    scores = _scores(model, data, embed_split(model, data))
    worst = [row for row in np.argsort(-scores.ranks, kind="stable").tolist() if scores.ranks[row] > 1]
    worst = worst[query : query + rows]
    if not worst:
        raise InputError(
            f"no failure beyond the first {query}: {(scores.ranks == 1).sum()} of {len(scores.ranks)} "
            "sketches found their photo first"
        )
    before = [
        [photo for photo in scores.order[row].tolist() if photo != data.photo_index[row]][
            : min(shown, scores.ranks[row] - 1)
        ]
        for row in worst
    ]
    return failure_gallery(
        [picture(data.sketches[row]) for row in worst],
        [picture(data.photos[data.photo_index[row]]) for row in worst],
        [[picture(data.photos[photo]) for photo in found] for found in before],
        scores.ranks[worst].tolist(),
        captions=[data.split.sketches[row].path.stem for row in worst],
    )


@torch.no_grad()
def attention(model: Method, data: LoadedSplit, query: int = 0) -> Figure:
    """What the global token of one sketch attends to in each layer, mean of heads."""
    backbone = model.eval().sketch_encoder.backbone
    maps = attention_maps(backbone, _images(model, data.sketches[query : query + 1]))
    maps = global_attention(maps, uses_cls=backbone.uses_cls)
    layers = maps[:, 0].mean(dim=1).cpu().numpy()
    return token_overlay(
        picture(data.sketches[query]),
        list(layers),
        [f"layer {i + 1}" for i in range(len(layers))],
        heading="what the global token attends to, mean of heads",
        label="attention (share of the query's 1)",
    )


def distance(model: Method, data: LoadedSplit, query: int = 0, *, images: int = 64) -> Figure:
    """Average attention distance by layer in px, of both encoders, over `images` pictures from `query` on.

    Source: the paper's figure 3.3 in kind.
    """
    found = {}
    for name, encoder, pixels in (
        ("sketch encoder", model.eval().sketch_encoder, data.sketches),
        ("photo encoder", model.photo_encoder, data.photos),
    ):
        # A few at a time: the maps of a large ViT take 20 MB an image.
        parts = pixels[query : query + images].split(8)
        distances = [
            attention_distance(attention_maps(encoder.backbone, _images(model, part)), model.image_size).heads
            * len(part)
            for part in parts
        ]
        found[name] = (torch.stack(distances).sum(dim=0) / sum(map(len, parts))).cpu().numpy()
    return distance_by_layer(found, pixels=model.image_size)


@torch.no_grad()
def similarity(model: Method, data: LoadedSplit, query: int = 0) -> Figure:
    """Cosines between the patch tokens of one photo, before MSTR and after it, in the cells of scale 1.

    Raises InputError for a model without such cells. Source: the paper's figure 1.1.2 in kind.
    """
    images = _images(model, data.photos[query : query + 1])
    before, after = recycled_tokens(model.eval().photo_encoder, images)
    photo = data.split.photos[query].id
    tokens = {f"photo {photo}, before MSTR": before, f"photo {photo}, after MSTR": after}
    return similarity_heatmaps(
        {name: token_similarity(value)[0].cpu().numpy() for name, value in tokens.items()},
        variances={name: similarity_variance(value).item() for name, value in tokens.items()},
    )


def recycling(model: Method, data: LoadedSplit, query: int = 0) -> Figure:
    """The share that each cell of one sketch has in the recycled feature, at each scale."""
    shares = recycling_shares(model.eval().sketch_encoder, _images(model, data.sketches[query : query + 1]))
    scales = model.sketch_encoder.mstr.scales
    titles = [f"scale {scale}: {100 * part.sum():.0f} %" for scale, part in zip(scales, shares, strict=True)]
    return token_overlay(
        picture(data.sketches[query]),
        [100 * part[0].cpu().numpy() for part in shares],
        titles,
        signed=True,
        common=False,
        heading="what each cell brings to the recycled feature",
        label="share (% of all cells)",
        side=2.1,
    )


def discarding(
    model: Method,
    data: LoadedSplit,
    query: int = 0,
    *,
    where: Where | None = None,
    rules: Sequence[Rule] = ("random", "attention", "norm", "recycling"),
    fractions: Sequence[float] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0),
) -> Figure:
    """Acc@1 against the patch tokens that queries, from `query` on, keep: a curve for each rule.

    They are discarded at the input, for backbones that can go without patches there, unless `where` says.
    """
    where = where or earliest_place(model.sketch_encoder)
    rules = [rule for rule in rules if rule != "recycling" or model.sketch_encoder.mstr]
    data = data._replace(sketches=data.sketches[query:], photo_index=data.photo_index[query:])
    curves = {rule: discard_curve(model, data, rule=rule, where=where, fractions=fractions) for rule in rules}
    return discard_curves(
        100 * next(iter(curves.values())).kept, {rule: curve.accuracy for rule, curve in curves.items()}
    )


PICTURES: dict[str, Callable[[Method, LoadedSplit, int], Figure]] = {
    "embeddings": embeddings,
    "failures": failures,
    "attention": attention,
    "distance": distance,
    "similarity": similarity,
    "recycling": recycling,
    "discarding": discarding,
}


def picture(pixels: Tensor) -> np.ndarray:
    """(3, h, w) -> (h, w, 3), as figures take pictures."""
    return rearrange(pixels, "c h w -> h w c").numpy()


def _images(model: Method, pixels: Tensor) -> Tensor:
    return to_float(pixels, next(model.parameters()).device)


def _scores(model: Method, data: LoadedSplit, rows: Rows) -> Scores:
    return score(score_all(model.score, *rows).numpy(), data.photo_index.numpy())

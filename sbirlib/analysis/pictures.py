"""What a trained model does on a split, a picture each; the command `picture` writes them to files."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from einops import reduce
from matplotlib.figure import Figure
from torch import Tensor

from sbirlib import figures
from sbirlib.analysis import attention as inside
from sbirlib.analysis.discard import FRACTIONS, Rule, check_vectors, discard_curve, earliest_place
from sbirlib.data import LoadedSplit, as_picture
from sbirlib.errors import InputError
from sbirlib.methods.base import Encoder, Method
from sbirlib.retrieval import embed_split, score_all, score_split, true_ranks

ORDER: tuple[Rule, ...] = ("random", "attention", "norm", "recycling")  # of the curves


def embeddings(model: Method, data: LoadedSplit, query: int = 0) -> Figure:
    """Map of all embeddings: t-SNE, a line from each sketch to its photo, six pairs with their pictures.

    `query` begins the evenly spaced six. Raises InputError for a method whose rows are not unit vectors.
    """
    check_vectors(model, "a map of embeddings")
    rows, truth, count = embed_split(model, data), data.photo_index.numpy(), len(data.sketches)
    hits = true_ranks(score_all(model.score, *rows).numpy(), truth) == 1
    chosen = [(query + step * count // 6) % count for step in range(min(6, count))]
    thumbnails = {i: (as_picture(data.sketches[i]), as_picture(data.photos[truth[i]])) for i in chosen}
    return figures.embedding_map(*figures.project(*rows), truth, hits, thumbnails)


def failures(model: Method, data: LoadedSplit, query: int = 0, *, rows: int = 4, shown: int = 4) -> Figure:
    """The sketches with the worst ranks, with their photo and what was found before it.

    `query` leaves out so many of the worst. Raises InputError if no sketch is left.
    """
    scores, truth = score_split(model, data), data.photo_index.numpy()
    ranks, order = scores.ranks, scores.order
    worst = [row for row in np.argsort(-ranks, kind="stable") if ranks[row] > 1][query : query + rows]
    if not worst:
        found = f"{(ranks == 1).sum()} of {len(ranks)} sketches found their photo first"
        raise InputError(f"no failure beyond the first {query}: {found}")
    found, titles = [], []
    for row in worst:
        before = order[row][order[row] != truth[row]][: min(shown, ranks[row] - 1)]
        found.append(list(map(as_picture, data.photos[[truth[row], *before]])))
        titles.append([f"rank {ranks[row]}", *(str(k + 1) for k in range(len(before)))])
    captions = [data.split.sketches[row].path.stem for row in worst]
    sketches, places = list(map(as_picture, data.sketches[worst])), [0] * len(worst)
    return figures.retrieval_strip(sketches, found, places, captions=captions, titles=titles)


@torch.no_grad()
def attention(model: Method, data: LoadedSplit, query: int = 0) -> Figure:
    """What the global token of one sketch attends to in each layer, mean of heads."""
    encoder, images, shown = _one(model, data, "sketch", query)
    found = inside.attention_maps(encoder.backbone, images)
    maps = inside.global_attention(found, uses_cls=encoder.backbone.uses_cls)[:, 0]
    layers = list(reduce(maps, "layer head h w -> layer h w", "mean").cpu().numpy())
    titles = [f"layer {i}" for i in range(1, len(layers) + 1)]
    heading, label = "what the global token attends to, mean of heads", "attention (share of the query's 1)"
    return figures.token_overlay(shown, layers, titles, heading=heading, label=label)


def distance(model: Method, data: LoadedSplit, query: int = 0, *, images: int = 64) -> Figure:
    """Average attention distance by layer in px, of both encoders, over `images` pictures from `query` on."""
    found = {}
    for name, (encoder, pixels) in inside.domains(model, data).items():
        chosen, total = pixels[query : query + images], 0
        # A few at a time: the maps of a large ViT take 20 MB an image.
        for part in inside.batches(model, chosen, 8):
            maps = inside.attention_maps(encoder.backbone, part)
            total = total + len(part) * inside.attention_distance(maps, model.image_size)
        found[f"{name} encoder"] = (total / len(chosen)).cpu().numpy()
    return figures.distance_by_layer(found, pixels=model.image_size)


@torch.no_grad()
def similarity(model: Method, data: LoadedSplit, query: int = 0) -> Figure:
    """Cosines between the patch tokens of one photo, before MSTR and after it, in the cells of scale 1.

    Raises InputError for a model without such cells.
    """
    encoder, images, _ = _one(model, data, "photo", query)
    photo, both = data.split.photos[query].id, inside.recycled_tokens(encoder, images)._asdict()
    cosines = {}
    for when, tokens in both.items():
        title = f"photo {photo}, {when} MSTR\nvariance {inside.similarity_variance(tokens).item():.4f}"
        cosines[title] = inside.token_similarity(tokens)[0].cpu().numpy()
    return figures.heatmaps(cosines, label="cosine similarity (-1 to 1)", side="patch token")


def recycling(model: Method, data: LoadedSplit, query: int = 0) -> Figure:
    """The share that each cell of one sketch has in the recycled feature, at each scale."""
    encoder, images, shown = _one(model, data, "sketch", query)
    shares = [100 * part[0].cpu().numpy() for part in inside.recycling_shares(encoder, images)]
    titles = [f"scale {s}: {part.sum():.0f} %" for s, part in zip(encoder.mstr.scales, shares, strict=True)]
    words = {"heading": "what each cell brings to the recycled feature", "label": "share (% of all cells)"}
    return figures.token_overlay(shown, shares, titles, **words)


def discarding(
    model: Method, data: LoadedSplit, query: int = 0, *, fractions: Sequence[float] = FRACTIONS
) -> Figure:
    """Acc@1 against the patch tokens that queries, from `query` on, keep: a curve for each rule.

    They are discarded at the input, for backbones that can go without patches there. The title names the
    rules that this model does not allow, with the reason. Raises InputError as `discard_curve`.
    """
    found, left_out, where = {}, [], earliest_place(model.sketch_encoder)
    data = data._replace(sketches=data.sketches[query:], photo_index=data.photo_index[query:])
    for rule in ORDER:
        try:
            found[rule] = discard_curve(model, data, rule=rule, where=where, fractions=fractions)
        except InputError as error:
            if rule == "random":  # which every model allows: the reason lies elsewhere
                raise
            left_out.append(f"left out: {rule} ({error})")
    curves = {rule: curve.accuracy for rule, curve in found.items()}
    return figures.discard_curves(100 * found["random"].kept, curves, notes=left_out)


KINDS = (embeddings, failures, attention, distance, similarity, recycling, discarding)
PICTURES: dict[str, Callable[[Method, LoadedSplit, int], Figure]] = {kind.__name__: kind for kind in KINDS}


def _one(model: Method, data: LoadedSplit, domain: str, row: int) -> tuple[Encoder, Tensor, np.ndarray]:
    """The encoder of a domain, and one of its pictures as it takes it and as figures do."""
    encoder, pixels = inside.domains(model, data)[domain]
    [images] = inside.batches(model, pixels[row : row + 1], 1)
    return encoder, images, as_picture(pixels[row])

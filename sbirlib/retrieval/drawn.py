"""How early photos are found: ranks while sketches are being drawn, and what they are summed up in."""

from typing import Any

import numpy as np

from sbirlib.data.loading import LoadedSplit
from sbirlib.methods.base import Method
from sbirlib.methods.recordings import drawn_so_far
from sbirlib.retrieval.search import embed, embed_split, score_all, true_ranks


def drawn_ranks(model: Method, data: LoadedSplit, steps: int) -> np.ndarray:
    """(T, q) int64: the rank of each sketch's photo after each of T equal shares of its strokes.

    Any method will do; `model` is in eval mode meanwhile. Raises PairError where a sketch has no strokes.
    """
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    photos, ranks = embed_split(model, data).photos, []
    drawn = drawn_so_far(data.split, steps, model.image_size, model.fit)
    for pages, own in zip(drawn, data.photo_index, strict=True):
        scores = score_all(model.score, embed(model.embed_sketches, pages, device=device), photos)
        ranks.append(true_ranks(scores.numpy(), own.repeat(steps).numpy()))
    model.train(was_training)
    return np.stack(ranks, axis=1)


def drawn_measures(ranks: np.ndarray, gallery: int) -> dict[str, Any]:
    """Percent by step, and m@A and m@B, their means over the steps, of ranks (T, q) among so many photos.

    A step's are the means over sketches of (gallery - rank) / (gallery - 1) and of 1 / rank. Source: Bhunia
    et al., "Sketch Less for More" (CVPR 2020).
    """
    percentile = 100 * (gallery - ranks).mean(axis=1) / max(gallery - 1, 1)
    reciprocal = 100 * (1 / ranks).mean(axis=1)
    sums = {"steps": len(ranks), "m@A": float(percentile.mean()), "m@B": float(reciprocal.mean())}
    return sums | {"percentile": percentile.tolist(), "reciprocal_rank": reciprocal.tolist()}

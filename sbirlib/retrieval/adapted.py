"""How well a model finds photos once it has seen a few pairs by the same designer."""

from typing import Any

import numpy as np
import torch

from sbirlib.data import LoadedSplit, PairError
from sbirlib.methods.base import Method
from sbirlib.retrieval.search import embed, embed_split, score_all, true_ranks


def adapted_ranks(model: Method, data: LoadedSplit, shown: int) -> np.ndarray:
    """(q,) int64: the rank of each sketch's photo after adapting to its designer; 0 for what was shown.

    That is the first so many pairs of each designer, by file name; their photos stay among the others. Any
    method will do; `model` is in eval mode meanwhile. Raises PairError for one designer, or too few sketches.
    """
    if what := data.split.few_designers(shown + 1, whole=True):
        raise PairError(f"adapting to designers by {shown} pairs needs {what}")
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    ranks = np.zeros(len(data.sketches), dtype=np.int64)
    plain = embed_split(model, data).photos
    designers = np.array([sketch.designer for sketch in data.split.sketches])
    for name in data.split.designers:
        support, queries = np.split(np.flatnonzero(designers == name), [shown])
        own = model.adapt(data, torch.from_numpy(support))
        photos = plain if own is model else embed(own.embed_photos, data.photos, device=device)
        sketches = embed(own.embed_sketches, data.sketches[queries], device=device)
        scores = score_all(own.score, sketches, photos).numpy()
        ranks[queries] = true_ranks(scores, data.photo_index[queries].numpy())
    model.train(was_training)
    return ranks


def adapted_measures(plain: np.ndarray, adapted: np.ndarray) -> dict[str, Any]:
    """Percent before and after, of the ranks (q,) of the sketches that were not shown; and their number."""
    left = adapted > 0
    both = plain[left], adapted[left]
    percent = {f"acc@{k}": [100 * float((ranks <= k).mean()) for ranks in both] for k in (1, 5)}
    return {"shown": int((~left).sum()), "queries": int(left.sum()), **percent}

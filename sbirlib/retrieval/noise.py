"""Searches with those strokes alone that a method keeps, and whether it drops what does not belong there."""

import numpy as np
import torch

from sbirlib.data import LoadedSplit, PairError
from sbirlib.methods.base import Method
from sbirlib.methods.recordings import disturbed, drawn, recorder, recording
from sbirlib.retrieval.search import embed_split, score_all, true_ranks


def cleaned(model: Method, data: LoadedSplit) -> LoadedSplit:
    """The split with sketches of those strokes alone that `model` keeps; without strokes, they stay."""
    sketches = data.sketches.clone()
    for row, sketch in enumerate(data.split.sketches if model.cleans else ()):
        if record := recorder(sketch):
            drawing = record()
            keep = model.clean(drawing)
            if not keep.all():
                sketches[row] = drawn(drawing, keep, model.image_size, model.fit)[0]
    return data._replace(sketches=sketches)


def noise_measures(model: Method, data: LoadedSplit, strokes: int) -> dict[str, float]:
    """What becomes of searches with so many strokes of another photo's sketch in each sketch, in percent.

    Acc@1 with all strokes, and with those that the model keeps; how many of the foreign strokes, of the
    sketches' own, and of all it drops, the last being what chance would reach. Raises PairError where a
    sketch has no strokes, or all show one photo. Source: the noise of Bhunia et al. (CVPR 2022).
    """
    drawings, truth = [recording(sketch) for sketch in data.split.sketches], data.photo_index.numpy()
    added, kept, pages = [], [], []
    if len(set(truth)) < 2:
        raise PairError("strokes of another photo's sketch are needed, but all sketches show one photo")
    for row, own in enumerate(drawings):
        chance = np.random.default_rng([strokes, row])
        other = drawings[chance.choice(np.flatnonzero(truth != truth[row]))]
        drawing, numbers = disturbed(own, other, strokes, chance)
        added.append(numbers >= len(own.strokes))
        kept.append(model.clean(drawing))
        pages.append(torch.cat([drawn(drawing, k, model.image_size, model.fit) for k in (None, kept[-1])]))
    found = []
    for sketches in torch.stack(pages, dim=1):
        rows = embed_split(model, data._replace(sketches=sketches))
        found.append(100 * float((true_ranks(score_all(model.score, *rows).numpy(), truth) == 1).mean()))
    foreign, gone = np.concatenate(added), 100 * ~np.concatenate(kept)
    dropped = {"dropped": gone, "dropped_foreign": gone[foreign], "dropped_own": gone[~foreign]}
    means = {name: float(part.mean()) for name, part in dropped.items()}
    return {"strokes": strokes, "acc@1": found[0], "acc@1_kept": found[1], **means}

"""A map of embeddings: where a model puts sketches and photos."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, HPacker, OffsetImage
from numpy.typing import ArrayLike

from sbirlib.errors import InputError
from sbirlib.figures.style import PALETTE, floats, new_figure

FEWEST = 6  # points; with fewer, t-SNE has no neighbourhoods to keep
SIDE = 60  # points, of the pictures beside the map


def project(sketches: ArrayLike, photos: ArrayLike, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """t-SNE of sketch (q, e) and photo (g, e) embeddings together, by direction, as search compares them.

    Returns places on the plane, (q, 2) and (g, 2), near each other where embeddings are alike; no unit. A
    point keeps about 30 neighbours, or a third of the points where these are few. The same seed gives the
    same map, another seed another map of the same neighbours. Raises InputError for fewer than six points,
    and for embeddings with NaN or infinity or all alike. Source: van der Maaten and Hinton 2008, in
    scikit-learn.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    sketches, photos = floats(sketches, photos)
    points = np.concatenate([sketches, photos])
    if len(points) < FEWEST:
        raise InputError(f"{len(points)} sketches and photos are too few for a map: give at least {FEWEST}")
    if not np.isfinite(points).all():
        raise InputError("embeddings contain NaN or infinity: the model is broken (did training diverge?)")
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.finfo(float).tiny)
    if np.allclose(points, points[0]):
        raise InputError("all embeddings are alike, so there is nothing to map: the model has collapsed")
    perplexity = min(30.0, (len(points) - 1) / 3)
    # One thread: several would add up in no fixed order, and wait for each other where cores are busy.
    with threadpool_limits(1):
        places = TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(points)
    return places[: len(sketches)], places[len(sketches) :]


def embedding_map(
    sketches: np.ndarray, photos: np.ndarray, photo_index: ArrayLike, hits: ArrayLike,
    thumbnails: Mapping[int, Sequence[ArrayLike]],
) -> Figure:  # fmt: skip
    """Sketches (q, 2) and photos (g, 2) on the plane, a line from every sketch to its photo.

    `photo_index` (q,) is the row of each sketch's photo; `hits` (q,) bool says whether it was found
    first. `thumbnails` shows some pairs beside the map: sketch row -> (sketch, photo), pictures (h, w, 3).
    Source: the paper's figure 3.2 in kind.
    """
    found = np.asarray(hits, dtype=bool)
    lines = np.stack([sketches, photos[np.asarray(photo_index)]], axis=1)
    axes = new_figure(10.5, 6.4, layout=None).add_axes((0.2, 0.12, 0.6, 0.87), xticks=[], yticks=[])
    kinds = (
        (found, "photo found first", "0.45", "-"),
        (~found, "photo not found first", PALETTE[3], (0, (4, 2))),
    )
    for rows, name, colour, style in kinds:
        look = dict(colors=[colour], linestyles=[style], linewidths=0.9, label=f"{name} ({rows.sum()})")
        axes.add_collection(LineCollection(lines[rows], **look))
    look = dict(linewidth=0.4, edgecolor="white", zorder=3)
    axes.scatter(*photos.T, marker="o", color=PALETTE[1], s=28, label=f"photos ({len(photos)})", **look)
    axes.scatter(*sketches.T, marker="s", color=PALETTE[0], s=17, label=f"sketches ({len(sketches)})", **look)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel("t-SNE of the embeddings. The axes have no unit: only who is near whom counts.")
    axes.figure.legend(fontsize=9.5, frameon=False, loc="lower center", ncols=4)
    # Half of the pairs stand on either side, in the order of their height: their lines cross few others.
    by_side = sorted(thumbnails, key=lambda row: lines[row, 0, 0])
    half = (len(by_side) + 1) // 2
    for x, rows in ((-0.17, by_side[:half]), (1.17, by_side[half:])):
        for place, row in enumerate(sorted(rows, key=lambda row: -lines[row, 0, 1])):
            axes.plot(*lines[row].T, "-o", color="black", markerfacecolor="none", markersize=10, zorder=4)
            pictures = [OffsetImage(picture, zoom=SIDE / len(picture)) for picture in thumbnails[row]]
            pair, spot = HPacker(children=pictures, pad=0, sep=3), (x, 1 - (place + 0.5) / half)
            look = dict(boxcoords="axes fraction", pad=0.2, arrowprops=dict(arrowstyle="-", color="0.3"))
            axes.add_artist(AnnotationBbox(pair, lines[row, 0], spot, **look))
    return axes.figure

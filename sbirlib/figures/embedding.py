"""A map of embeddings: where a model puts sketches and photos."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import ArrayLike

from sbirlib.errors import InputError
from sbirlib.figures.photos import new_page, place_pictures
from sbirlib.figures.style import PALETTE, floats

SKETCH, PHOTO, MISSED = PALETTE[0], PALETTE[1], PALETTE[3]
DASHES = (0, (4, 2))
BESIDE, BELOW = 2.15, 0.75  # inches of the page beside the map for pictures, and below it
FEWEST = 6  # points; with fewer, t-SNE has no neighbourhoods to keep


class Projection(NamedTuple):
    """Places on the plane, near where embeddings are alike: sketches (q, 2) and photos (g, 2); no unit."""

    sketches: np.ndarray
    photos: np.ndarray


def project(sketches: ArrayLike, photos: ArrayLike, *, seed: int = 0) -> Projection:
    """t-SNE of sketch (q, e) and photo (g, e) embeddings together, by direction, as search compares them.

    A point keeps about 30 neighbours, or a third of the points where these are few. The same seed gives the
    same map, another seed another map of the same neighbours. Raises InputError for fewer than six points,
    and for embeddings with NaN or infinity or all alike. Source: van der Maaten and Hinton 2008, in
    scikit-learn.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    sketches, photos = floats(sketches, photos)
    if sketches.ndim != 2 or photos.ndim != 2 or sketches.shape[1] != photos.shape[1]:
        found = f"embeddings {sketches.shape} of sketches and {photos.shape} of photos"
        raise InputError(f"{found}: give (q, e) and (g, e), with the same e")
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
    return Projection(places[: len(sketches)], places[len(sketches) :])


def embedding_map(
    projection: Projection, photo_index: ArrayLike, hits: ArrayLike, thumbnails: Mapping[int, Sequence]
) -> Figure:
    """Sketches and photos on the plane, a line from every sketch to its photo.

    `photo_index` (q,) is the row of each sketch's photo; `hits` (q,) bool says whether it was found
    first. `thumbnails` shows some pairs beside the map, ten at most to be readable: sketch row ->
    (sketch, photo), pictures (h, w, 3). Raises InputError if rows do not fit the projection. Source:
    the paper's figure 3.2 in kind.
    """
    photo_index, found = np.asarray(photo_index), np.asarray(hits, dtype=bool)
    queries, gallery = len(projection.sketches), len(projection.photos)
    for name, values in (("photo_index", photo_index), ("hits", found)):
        if values.shape != (queries,):
            raise InputError(f"{name} has shape {values.shape}, but the map holds {queries} sketches")
    lowest, highest = photo_index.min(), photo_index.max()
    if lowest < 0 or highest >= gallery:
        raise InputError(f"photo_index runs from {lowest} to {highest}, but the map holds {gallery} photos")
    if beyond := [row for row in thumbnails if not 0 <= row < queries]:
        raise InputError(f"thumbnails of sketch {beyond[0]}, but the map holds {queries} sketches")
    width, height = 6.2 + 2 * BESIDE, 6.4
    figure, page = new_page(width, height)
    inner = (BESIDE / width, BELOW / height, 1 - 2 * BESIDE / width, 1 - (BELOW + 0.1) / height)
    axes = figure.add_axes(inner, xticks=[], yticks=[])
    lines = np.stack([projection.sketches, projection.photos[photo_index]], axis=1)
    kinds = (found, "photo found first", "0.45", "-"), (~found, "photo not found first", MISSED, DASHES)
    for rows, name, colour, style in kinds:
        look = dict(colors=[colour], linestyles=[style], linewidths=0.9, label=f"{name} ({rows.sum()})")
        axes.add_collection(LineCollection(lines[rows], **look))
    look = dict(linewidth=0.4, edgecolor="white", zorder=3)
    for name, colour, marker, size in (("photos", PHOTO, "o", 28), ("sketches", SKETCH, "s", 17)):
        points = getattr(projection, name)
        axes.scatter(*points.T, marker=marker, color=colour, s=size, label=f"{name} ({len(points)})", **look)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel("t-SNE of the embeddings. The axes have no unit: only who is near whom counts.")
    figure.legend(fontsize=9.5, frameon=False, loc="lower center", ncols=4, columnspacing=1.2)
    _show_pairs(page, axes, thumbnails, lines, found)
    return figure


def _show_pairs(
    page: Axes, axes: Axes, pictures: Mapping[int, Sequence[ArrayLike]], lines: np.ndarray, found: np.ndarray
) -> None:
    """Pairs of pictures in two columns beside the map, and rings and a letter where they are on it."""
    # From left to right, then from top to bottom: a pair stands about where it is on the map.
    by_side = sorted(pictures, key=lambda row: lines[row, 0, 0])
    half = math.ceil(len(by_side) / 2)
    halves = by_side[:half], by_side[half:]
    order = [row for rows in halves for row in sorted(rows, key=lambda row: -lines[row, 0, 1])]
    columns, height = (0.1, page.get_xlim()[1] - BESIDE + 0.1), page.get_ylim()[0] - BELOW
    reach = 0.035 * np.ptp(lines.reshape(-1, 2), axis=0).max()
    angle = np.arange(16) * np.pi / 8
    taken = list(lines[order].reshape(-1, 2))
    bold = dict(ha="center", va="center", fontsize=13, fontweight="bold", zorder=5)
    bold["path_effects"] = [withStroke(linewidth=3, foreground="white")]
    for k, row in enumerate(order):
        letter, x, y = chr(ord("A") + k), columns[k // half], 0.3 + k % half * height / half
        look = dict(linestyle="-" if found[row] else DASHES, linewidth=1.5, zorder=4)
        rings = dict(marker="o", markerfacecolor="none", markersize=10)
        axes.plot(*lines[row].T, color="black", **look, **rings)
        titles, frames = [f"{letter} sketch", f"{letter} photo"], {0: (SKETCH, 1.5), 1: (PHOTO, 1.5)}
        side = min(0.93, height / half - 0.35)
        place_pictures(page, pictures[row], titles, x, y, side, gap=0.1, frames=frames)
        # The letter stands where it hides neither rings nor letters.
        spots = lines[row, 0] + reach * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        room = np.linalg.norm(spots[:, None] - np.stack(taken), axis=-1).min(axis=1)
        taken.append(spots[room.argmax()])
        axes.text(*taken[-1], letter, **bold)

"""Figures of what a model does: where it puts sketches and photos, how runs went, which queries failed.

Arrays in, a matplotlib Figure out; style, palette and helpers are those of `plots`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from sbirlib.fields import InputError
from sbirlib.plots import GUIDE_COLOUR, PALETTE, TRUE_FRAME, _figure, _page, _picture, message
from sbirlib.plots_tokens import LINES, MARKERS

SKETCH, PHOTO, MISSED = PALETTE[0], PALETTE[1], PALETTE[3]
DASHES = (0, (4, 2))
FEWEST = 6  # points; with fewer, t-SNE has no neighbourhoods to keep


class Projection(NamedTuple):
    """Places on the plane, near where embeddings are alike: sketches (q, 2) and photos (g, 2); no unit."""

    sketches: np.ndarray
    photos: np.ndarray


class Interval(Protocol):
    """What a curve needs of `retrieval.Accuracy`: value and 95 % interval, in percent."""

    @property
    def percent(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def project(sketches: ArrayLike, photos: ArrayLike, *, perplexity: float | None = None, seed: int = 0) -> Projection:
    """t-SNE of sketch (q, e) and photo (g, e) embeddings together, by direction, as search compares them.

    `perplexity` is about how many neighbours a point keeps: 30, or a third of the points where these
    are few. The same seed gives the same map, another seed another map of the same neighbours. Raises
    InputError for fewer than six points, for embeddings that are not numbers or all alike, and for a
    perplexity out of range.
    Source: van der Maaten and Hinton 2008, in scikit-learn.
    """
    sketches, photos = np.asarray(sketches, dtype=float), np.asarray(photos, dtype=float)
    if sketches.ndim != 2 or photos.ndim != 2 or sketches.shape[1] != photos.shape[1]:
        raise InputError(f"embeddings {sketches.shape} of sketches and {photos.shape} of photos: (q, e) and (g, e) "
                         "are needed, with the same e")
    points = np.concatenate([sketches, photos])
    if len(points) < FEWEST:
        raise InputError(f"{len(points)} sketches and photos are too few for a map; at least {FEWEST} are needed")
    if not np.isfinite(points).all():
        raise InputError("embeddings contain NaN or infinity: the model is broken (did training diverge?)")
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.finfo(float).tiny)
    if np.allclose(points, points[0]):
        raise InputError("all embeddings are alike, so there is nothing to map: the model has collapsed")
    perplexity = min(30.0, (len(points) - 1) / 3) if perplexity is None else perplexity
    if not 1 <= perplexity < len(points):
        raise InputError(f"perplexity = {perplexity:g}: from 1 to fewer than the {len(points)} points")
    # One thread: several would add up in any order, and wait for each other where cores are busy.
    with threadpool_limits(1):
        places = TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(points)
    return Projection(places[: len(sketches)], places[len(sketches) :])


def embedding_map(projection: Projection, photo_index: ArrayLike, *,
                  thumbnails: Mapping[int, tuple[ArrayLike, ArrayLike]] | None = None,
                  hits: ArrayLike | None = None) -> Figure:
    """Sketches and photos on the plane, a line from every sketch to its photo.

    `photo_index` (q,) is the row of each sketch's photo; `hits` (q,) bool says whether it was found
    first. `thumbnails` shows some pairs beside the map, ten at most to be readable: sketch row ->
    (sketch, photo), pictures (h, w, 3). Raises InputError if rows do not fit the projection. Source:
    the paper's figure 3.2 in kind.
    """
    thumbnails = thumbnails or {}
    photo_index = np.asarray(photo_index)
    _check_rows(projection, photo_index, hits, thumbnails)
    beside, bottom = (2.15 if thumbnails else 0.1), 0.75
    width, height = 6.2 + 2 * beside, 6.4
    figure, page = _page(width, height)
    axes = figure.add_axes((beside / width, bottom / height, 1 - 2 * beside / width, 1 - (bottom + 0.1) / height))
    lines = np.stack([projection.sketches, projection.photos[photo_index]], axis=1)
    found = np.ones(len(lines), dtype=bool) if hits is None else np.asarray(hits, dtype=bool)
    names = ("sketch to its photo", "") if hits is None else ("photo found first", "photo not found first")
    for rows, name, colour, style in ((found, names[0], "0.45", "-"), (~found, names[1], MISSED, DASHES)):
        if name:
            axes.add_collection(LineCollection(lines[rows], colors=[colour], linestyles=[style], linewidths=0.9,
                                               label=f"{name} ({rows.sum()})"))
    for points, name, colour, marker, size in ((projection.photos, "photos", PHOTO, "o", 28),
                                               (projection.sketches, "sketches", SKETCH, "s", 17)):
        axes.scatter(*points.T, marker=marker, color=colour, s=size, linewidth=0.4, edgecolor="white", zorder=3,
                     label=f"{name} ({len(points)})")
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xticks=[], yticks=[],
             xlabel="t-SNE of the embeddings. The axes have no unit: only who is near whom counts.")
    figure.legend(*axes.get_legend_handles_labels(), fontsize=9.5, frameon=False, loc="lower center", ncols=4,
                  columnspacing=1.2)
    _show_pairs(page, axes, thumbnails, lines, found, (0.1, width - beside + 0.1), height - bottom)
    return figure


def _check_rows(projection: Projection, photo_index: np.ndarray, hits: ArrayLike | None,
                thumbnails: Mapping[int, object]) -> None:
    queries, gallery = len(projection.sketches), len(projection.photos)
    for name, values in (("photo_index", photo_index), ("hits", hits)):
        if values is not None and np.shape(values) != (queries,):
            raise InputError(f"{name} has shape {np.shape(values)}, but the map holds {queries} sketches")
    if photo_index.min() < 0 or photo_index.max() >= gallery:
        raise InputError(f"photo_index runs from {photo_index.min()} to {photo_index.max()}, but the map holds "
                         f"{gallery} photos")
    beyond = [row for row in thumbnails if not 0 <= row < queries]
    if beyond:
        raise InputError(f"thumbnails of sketch {beyond[0]}, but the map holds {queries} sketches")


def _show_pairs(page: Axes, axes: Axes, thumbnails: Mapping[int, tuple[ArrayLike, ArrayLike]], lines: np.ndarray,
                found: np.ndarray, columns: tuple[float, float], height: float) -> None:
    """Pairs of pictures in two columns that start at x, `height` inches each, and where they are on the map."""
    # From left to right, then from top to bottom: a pair stands about where it is on the map.
    by_side = sorted(thumbnails, key=lambda row: lines[row, 0, 0])
    half = math.ceil(len(by_side) / 2)
    order = [row for rows in (by_side[:half], by_side[half:])
             for row in sorted(rows, key=lambda row: -lines[row, 0, 1])]
    for k, row in enumerate(order):
        step, x, y = height / half, columns[k // half], 0.3 + k % half * height / half
        side = min(0.93, step - 0.35)
        axes.plot(*lines[row].T, color="black", linestyle="-" if found[row] else DASHES, linewidth=1.5, marker="o",
                  markerfacecolor="none", markersize=10, zorder=4)
        for place, (picture, name) in enumerate(zip(thumbnails[row], ("sketch", "photo"), strict=True)):
            _picture(page, picture, x + place * (side + 0.1), y, side, f"{chr(ord('A') + k)} {name}",
                     (SKETCH, PHOTO)[place], 1.5)
    _name_pairs(axes, lines[order], reach=0.035 * np.ptp(lines.reshape(-1, 2), axis=0).max())


def _name_pairs(axes: Axes, pairs: np.ndarray, reach: float) -> None:
    """Letters A, B, ... beside the sketches of pairs (p, 2, 2), each where it hides neither rings nor letters."""
    angle = np.arange(16) * np.pi / 8
    taken = list(pairs.reshape(-1, 2))
    for k, (sketch, _) in enumerate(pairs):
        spots = sketch + reach * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        room = np.linalg.norm(spots[:, None] - np.stack(taken), axis=-1).min(axis=1)
        taken.append(spots[room.argmax()])
        axes.text(*taken[-1], chr(ord("A") + k), ha="center", va="center", fontsize=13, fontweight="bold",
                  path_effects=[withStroke(linewidth=3, foreground="white")], zorder=5)


def accuracy_by_epoch(histories: Mapping[str, Mapping[str, Sequence[float]]], *, k: int = 1) -> Figure:
    """Acc@k in percent by epoch of several runs, the epoch that each kept marked with a star.

    `histories[name]` holds columns of history.csv: "epoch", "val_acc@k" (NaN where not measured), and
    "best" (1 where the epoch was kept) where known. Raises InputError for a column that is not there.
    Source: the paper's figure 1.1.1 in kind.
    """
    figure = _figure(9.5, 4.2)
    axes = figure.subplots()
    column = f"val_acc@{k}"
    for place, (name, history) in enumerate(histories.items()):
        if column not in history or "epoch" not in history:
            raise InputError(f"{name}: no column 'epoch' or no column {column!r} in its history; "
                             f"there are: {', '.join(history)}")
        epochs, percent = (np.asarray(history[key], dtype=float) for key in ("epoch", column))
        seen = np.isfinite(percent)
        kept = np.flatnonzero(np.asarray(history.get("best", ()), dtype=float))
        kept = kept[seen[kept]]  # without a search there is no place for a star
        colour = PALETTE[place % len(PALETTE)]
        label = f"{name}: kept epoch {epochs[kept[-1]]:.0f}, {percent[kept[-1]]:.1f} %" if len(kept) else name
        axes.plot(epochs[seen], percent[seen], color=colour, marker=MARKERS[place % len(MARKERS)], markersize=5,
                  markevery=max(1, math.ceil(seen.sum() / 30)), linestyle=LINES[place % len(LINES)], linewidth=1.5,
                  label=label)
        if len(kept):
            axes.plot(epochs[kept[-1]], percent[kept[-1]], "*", color=colour, markeredgecolor="black", markersize=17,
                      zorder=4)
    measured_on = sorted({str(history["selected_on"][0]) for history in histories.values() if "selected_on" in history})
    axes.set_title(f"measured on {', '.join(measured_on)}; star: kept epoch" if measured_on else "star: kept epoch",
                   fontsize=10, loc="left")
    axes.set(xlabel="epoch", ylabel=f"Acc@{k} (% of queries)", ylim=(0, 101))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9")
    figure.legend(fontsize=9.5, frameon=False, loc="outside lower center", ncols=3)
    sns.despine(ax=axes)
    return figure


def failure_gallery(sketches: Sequence[ArrayLike], true_photos: Sequence[ArrayLike],
                    confused: Sequence[Sequence[ArrayLike]], ranks: Sequence[int], *, captions: Sequence[str] = (),
                    side: float = 1.2) -> Figure:
    """A row for each query that failed: the sketch, its true photo framed, then what was found before it.

    `confused[i]` are photos found before query i's, best first, at most `ranks[i]` - 1 of them; pictures
    (h, w, 3), `side` in inches. Raises InputError where more stand before a photo than its rank allows.
    """
    if not len(sketches):
        return message("no failures: every sketch found its photo first")
    for row, (found, rank) in enumerate(zip(confused, ranks, strict=True)):
        if len(found) > rank - 1:
            raise InputError(f"row {row}: {len(found)} photos cannot stand before one of rank {rank}; leave out the "
                             "true photo and what came after it")
    gap, head, top, apart, more = 0.1, 0.27, 0.32, 0.35, 0.75
    most = max(len(found) for found in confused)
    figure, axes = _page((2 + most) * (side + gap) + gap + apart + more, top + len(sketches) * (side + head) + gap)
    start = 2 * (side + gap) + gap + apart
    axes.text(start, 0.08, "found before it, best first", ha="left", va="top", fontsize=11)
    axes.plot((start - apart / 2 - gap / 2,) * 2, (0.1, axes.get_ylim()[0] - gap), color=GUIDE_COLOUR, linewidth=0.8)
    for row, (sketch, photo, found, rank) in enumerate(zip(sketches, true_photos, confused, ranks, strict=True)):
        y = top + head + row * (side + head)
        _picture(axes, sketch, gap, y, side, captions[row] if len(captions) else "sketch", "0.2", 1.5)
        _picture(axes, photo, 2 * gap + side, y, side, f"true photo: rank {rank}", *TRUE_FRAME)
        for place, picture in enumerate(found):
            _picture(axes, picture, start + place * (side + gap), y, side, str(place + 1))
        left_out = rank - 1 - len(found)
        if left_out:
            axes.text(start + len(found) * (side + gap), y + side / 2, f"and {left_out}\nmore", va="center",
                      fontsize=10)
    return figure


def discard_curves(kept: ArrayLike, curves: Mapping[str, Sequence[Interval]]) -> Figure:
    """Acc@1 against how many patch tokens are kept, a line with its 95 % interval for each name.

    `kept` (f,) in percent of the patch tokens; `curves[name]` f accuracies as `retrieval.accuracy_of`
    makes them. Raises InputError where their numbers differ or `kept` looks like fractions.
    """
    kept = np.asarray(kept, dtype=float)
    if kept.max() <= 1:
        raise InputError(f"kept runs to {kept.max():g}: percent of the patch tokens are needed, such as 25 or 100")
    figure = _figure(9.5, 4.2)
    axes = figure.subplots()
    order = np.argsort(kept)
    for place, (name, points) in enumerate(curves.items()):
        if len(points) != len(kept):
            raise InputError(f"{name}: {len(points)} accuracies for {len(kept)} values of kept")
        percent, low, high = np.array([(point.percent, point.low, point.high) for point in points]).T[:, order]
        colour = PALETTE[place % len(PALETTE)]
        axes.fill_between(kept[order], low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(kept[order], percent, color=colour, marker=MARKERS[place % len(MARKERS)], markersize=6,
                  linestyle=LINES[place % len(LINES)], label=name)
    axes.set(xlabel="patch tokens kept (%)", ylabel="Acc@1 (% of queries)", ylim=(0, 101))
    axes.set_title("bands: 95 % intervals", fontsize=10, loc="left")
    axes.grid(axis="y", color="0.9")
    figure.legend(fontsize=9.5, frameon=False, loc="outside lower center", ncols=4)
    sns.despine(ax=axes)
    return figure

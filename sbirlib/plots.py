"""Figures from arrays: every function returns a matplotlib Figure and knows no model.

Colours are seaborn's colour-blind safe palette; a true photo is framed and also named, so that
nothing rests on colour alone. Figures are made without pyplot, so they can be drawn in a thread.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from sbirlib.fields import InputError

PALETTE = sns.color_palette("colorblind")
TRUE_COLOUR, GUIDE_COLOUR = PALETTE[2], "0.55"
TRUE_FRAME = (TRUE_COLOUR, 4)


class _Shown(Figure):
    """A figure that a notebook shows as the last value of a cell, pyplot or not."""

    def _repr_png_(self) -> bytes:
        return png_bytes(self)


def _figure(width: float, height: float) -> Figure:
    figure = _Shown(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _page(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty page measured in inches from its upper left corner.

    Pictures share one Axes: a panel redraws it in a fraction of the time that one Axes each would take.
    """
    figure = _Shown(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def _picture(axes: Axes, image: ArrayLike, x: float, y: float, side: float, title: str = "",
             colour: object = "0.8", width: float = 0.8) -> None:
    """Places a picture (h, w, 3) into the square at (x, y) of a page, its title above."""
    image = np.asarray(image)
    longest = max(image.shape[:2])
    high, wide = (side * length / longest for length in image.shape[:2])
    left, top = x + (side - wide) / 2, y + (side - high) / 2
    axes.imshow(image, interpolation="antialiased", extent=(left, left + wide, top + high, top), aspect="auto")
    axes.add_patch(Rectangle((left, top), wide, high, fill=False, edgecolor=colour, linewidth=width))
    axes.text(x + side / 2, y - 0.06, title, ha="center", va="bottom", fontsize=9)


def save_figure(figure: Figure, path: str | Path, dpi: int = 150) -> None:
    """Writes a figure; the extension of `path` names the format (png, pdf, svg).

    Raises InputError for an extension that matplotlib cannot write.
    """
    known = figure.canvas.get_supported_filetypes()
    if Path(path).suffix.lower().removeprefix(".") not in known:
        raise InputError(f"{path}: a figure cannot be written in this format; known: {', '.join(sorted(known))}")
    figure.savefig(path, dpi=dpi)


def png_bytes(figure: Figure, dpi: int = 100) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def message(text: str, *, width: float = 9.5, height: float = 1.6) -> Figure:
    """Text on an empty page, where there is nothing to plot yet; sizes in inches."""
    figure = _figure(width, height)
    figure.text(0.5, 0.5, text, ha="center", va="center", color="0.35", fontsize=12)
    return figure


def image_grid(images: Sequence[ArrayLike], titles: Sequence[str] = (), *, columns: int = 6,
               side: float = 1.6) -> Figure:
    """Pictures, arrays (h, w, 3) or Pillow's, in rows of `columns`, each with a title; `side` in inches."""
    rows, gap, head = max(1, math.ceil(len(images) / columns)), 0.12, 0.25
    head = max([head, *(0.1 + 0.15 * (1 + title.count("\n")) for title in titles)])
    figure, axes = _page(columns * (side + gap) + gap, rows * (side + head) + gap)
    titles = list(titles) or [""] * len(images)
    for k, (image, title) in enumerate(zip(images, titles, strict=True)):
        row, column = divmod(k, columns)
        _picture(axes, image, gap + column * (side + gap), head + row * (side + head), side, title)
    return figure


def retrieval_strip(sketches: Sequence[np.ndarray], results: Sequence[Sequence[np.ndarray]],
                    true_place: Sequence[int | None] = (), *, captions: Sequence[str] = (),
                    similarities: Sequence[Sequence[float]] = (), side: float = 1.15) -> Figure:
    """A row for each query: the sketch, then its results from best to worst, the true photo framed.

    `true_place[i]` is the 0-based place of query i's photo among `results[i]`, None if it is not
    there or not known; `similarities[i]` are cosines. Source: the paper's figure 3.1 in kind.
    """
    gap, head, columns = 0.1, 0.27, 1 + max(len(row) for row in results)
    figure, axes = _page(columns * (side + gap) + gap, len(sketches) * (side + head) + gap)
    for i, (sketch, row) in enumerate(zip(sketches, results, strict=True)):
        place, y = (true_place[i] if len(true_place) else None), head + i * (side + head)
        _picture(axes, sketch, gap, y, side, captions[i] if len(captions) else "sketch", "0.2", 1.5)
        for k, image in enumerate(row):
            title = f"{k + 1}: {similarities[i][k]:.2f}" if len(similarities) else str(k + 1)
            found = place == k
            _picture(axes, image, gap + (k + 1) * (side + gap), y, side, f"{title} true" if found else title,
                     *(TRUE_FRAME if found else ()))
    return figure


def retrieval_card(sketch: np.ndarray, results: Sequence[np.ndarray], titles: Sequence[str], *,
                   true_place: int | None = None, heading: str = "", columns: int = 5) -> Figure:
    """One query: the sketch, large, beside its results in rows of `columns`, the true photo framed.

    `true_place` is the 0-based place of the true photo among `results`, None if it is not there.
    """
    gap, head, side, top = 0.12, 0.27, 1.35, 0.35
    rows, large = math.ceil(len(results) / columns), 2.2
    figure, axes = _page(large + columns * (side + gap) + 3 * gap, top + rows * (side + head) + gap)
    axes.text(gap, 0.1, heading, ha="left", va="top", fontsize=11)
    _picture(axes, sketch, gap, top + head, large, "query sketch", "0.2", 1.5)
    for k, (image, title) in enumerate(zip(results, titles, strict=True)):
        row, column = divmod(k, columns)
        _picture(axes, image, large + 2 * gap + column * (side + gap), top + head + row * (side + head), side,
                 title, *(TRUE_FRAME if k == true_place else ()))
    return figure


def info_nce_example(first: np.ndarray, second: np.ndarray, temperature: float) -> Figure:
    """InfoNCE over the 2b rows of two (b, 2) arrays of unit vectors, laid open.

    Left the vectors on the unit circle, then every cosine with each row's partner framed, then the
    probability that the softmax at `temperature` gives the partner, and the row's loss in nats.
    """
    pairs = len(first)
    rows = np.concatenate([first, second])
    names = [f"{side}{i + 1}" for side in "sp" for i in range(pairs)]
    partner = (np.arange(2 * pairs) + pairs) % (2 * pairs)
    cosine = rows @ rows.T
    logits = np.where(np.eye(2 * pairs, dtype=bool), -np.inf, cosine / temperature)
    logits -= logits.max(axis=1, keepdims=True)
    chance = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))[np.arange(2 * pairs), partner]
    figure = _Shown(figsize=(11, 3.9))
    FigureCanvasAgg(figure)
    circle, matrix, bars = figure.subplots(
        1, 3, width_ratios=(1, 1.15, 1),
        gridspec_kw={"left": 0.01, "right": 0.93, "bottom": 0.14, "top": 0.91, "wspace": 0.13})

    turn = np.linspace(0, 2 * np.pi, 200)
    circle.plot(np.cos(turn), np.sin(turn), color="0.85")
    for side, marker, colour, start in (("sketch", "s", PALETTE[0], 0), ("photo", "o", PALETTE[1], pairs)):
        points = rows[start : start + pairs]
        circle.scatter(*points.T, marker=marker, color=colour, s=45, label=side, zorder=3)
        for point, name in zip(points, names[start:], strict=False):
            reach = 1.24 if side == "sketch" else 0.76
            circle.annotate(name, reach * point, ha="center", va="center", color=colour)
    circle.set(aspect="equal", xlim=(-1.45, 1.45), ylim=(-1.45, 1.45), xticks=[], yticks=[], title="embeddings")
    circle.legend(fontsize=8, frameon=False, loc="center")
    sns.despine(ax=circle, left=True, bottom=True)

    matrix.imshow(np.where(np.eye(2 * pairs, dtype=bool), np.nan, cosine), vmin=-1, vmax=1, cmap="vlag")
    for row, column in zip(*np.nonzero(~np.eye(2 * pairs, dtype=bool)), strict=True):
        value = cosine[row, column] + 0.0
        matrix.text(column, row, f"{value:.1f}".replace("-0.0", "0.0"), ha="center", va="center", fontsize=7,
                    color="white" if abs(value) > 0.6 else "0.15")
    for row, column in enumerate(partner):
        matrix.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.8))
    matrix.set(title="cosine; each row's partner framed", xticks=range(2 * pairs), yticks=range(2 * pairs),
               xticklabels=names, yticklabels=names)
    matrix.tick_params(length=0)

    places = np.arange(2 * pairs)
    bars.barh(places, chance, color=[PALETTE[0]] * pairs + [PALETTE[1]] * pairs)
    for place, value in zip(places, chance, strict=True):
        bars.text(1.02, place, f"loss {-math.log(max(value, 1e-300)):.2f}", va="center", fontsize=9)
    bars.set(yticks=places, yticklabels=names, xlim=(0, 1), xlabel="softmax probability of the partner",
             title=f"temperature {temperature:.2g}: mean loss {-np.log(np.maximum(chance, 1e-300)).mean():.2f}")
    bars.invert_yaxis()
    sns.despine(ax=bars)
    return figure


def training_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss by term and validation Acc@K by epoch, from the columns of history.csv."""
    figure = _figure(9.5, 3.4)
    left, right = figure.subplots(1, 2)
    epochs = history["epoch"]
    # A term that is 0 throughout belongs to a part that the model does not have.
    terms = [name for name in history if name.startswith("loss_") and name != "loss_total" and any(history[name])]
    for name, colour, marker in zip(terms, PALETTE, "osD^v<>", strict=False):
        left.plot(epochs, history[name], color=colour, marker=marker, markersize=3,
                  label="L_" + name.removeprefix("loss_"))
    has_recycling = any("recyc" in name for name in terms)
    left.set(title="training loss by term", xlabel="epoch",
             ylabel="InfoNCE (nats); recyc: mean square" if has_recycling else "InfoNCE (nats)")
    left.set_ylim(bottom=0)
    for k, colour, marker in zip((1, 5, 10), PALETTE, "osD", strict=False):
        values = np.asarray(history[f"val_acc@{k}"], dtype=float)
        seen = np.isfinite(values)
        right.plot(np.asarray(epochs)[seen], values[seen], color=colour, marker=marker, markersize=3,
                   label=f"Acc@{k}")
    chosen = [epoch for epoch, best in zip(epochs, history["best"], strict=True) if best]
    if chosen:
        right.axvline(chosen[-1], color=GUIDE_COLOUR, linestyle=":", label="kept as best")
    right.set(title=history["selected_on"][0], xlabel="epoch", ylabel="Acc@K (% of queries)", ylim=(0, 101))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8, frameon=False)
        sns.despine(ax=axes)
    return figure


def accuracy_curve(ranks: np.ndarray, gallery: int, *, most: int = 30) -> Figure:
    """Acc@K for K = 1..most, beside what guessing would reach; ranks (q,), 1 = found first."""
    figure = _figure(6, 3.4)
    axes = figure.subplots()
    ks = np.arange(1, min(most, gallery) + 1)
    percent = 100 * (ranks[None] <= ks[:, None]).mean(axis=1)
    axes.plot(ks, percent, color=PALETTE[0], marker="o", markersize=3, label="this model")
    axes.plot(ks, 100 * ks / gallery, color=GUIDE_COLOUR, linestyle="--", label="guessing")
    axes.set(xlabel="K (photos looked at)", ylabel="Acc@K (% of queries)", ylim=(0, 101),
             title=f"{len(ranks)} sketches, {gallery} photos")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    sns.despine(ax=axes)
    return figure


def accuracy_bars(names: Sequence[str], percent: Sequence[float], low: Sequence[float], high: Sequence[float],
                  *, xlabel: str = "", ylabel: str = "Acc@1 (% of queries)") -> Figure:
    """Bars with 95 % intervals, all in percent."""
    figure = _figure(max(4.0, 0.9 * len(names) + 1.5), 3.4)
    axes = figure.subplots()
    percent, low, high = (np.asarray(values, dtype=float) for values in (percent, low, high))
    axes.bar(list(names), percent, color=PALETTE[0], width=0.6)
    axes.errorbar(list(names), percent, yerr=[percent - low, high - percent], fmt="none", ecolor="0.2", capsize=4)
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 101))
    sns.despine(ax=axes)
    return figure


def interval_plot(names: Sequence[str], percent: Sequence[float], low: Sequence[float], high: Sequence[float], *,
                  points: Sequence[Sequence[float]] = (), title: str = "",
                  xlabel: str = "Acc@1 (% of queries)") -> Figure:
    """A line for each name: value with its interval, NaN where there is none, and single `points`; in percent."""
    figure = _figure(9.0, 1.2 + 0.34 * len(names))
    axes = figure.subplots()
    places = np.arange(len(names))
    percent, low, high = (np.asarray(values, dtype=float) for values in (percent, low, high))
    for place, values in zip(places, points, strict=False):
        axes.plot(values, np.full(len(values), place), "o", color=GUIDE_COLOUR, markersize=4, alpha=0.7)
    axes.errorbar(percent, places, xerr=[percent - low, high - percent], fmt="D", color=PALETTE[0], capsize=4)
    axes.set(yticks=places, yticklabels=names, xlabel=xlabel)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    sns.despine(ax=axes)
    return figure


def rank_histogram(ranks: np.ndarray, gallery: int) -> Figure:
    """How often the true photo came at which rank."""
    figure = _figure(6, 3.2)
    axes = figure.subplots()
    edges = np.arange(0.5, min(int(ranks.max()), gallery) + 1.5)
    axes.hist(ranks, bins=edges, color=PALETTE[0])
    axes.axvline(float(np.median(ranks)), color=PALETTE[1], linestyle="--", label=f"median {np.median(ranks):g}")
    axes.set(xlabel=f"rank of the true photo (1 to {gallery})", ylabel="sketches")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8, frameon=False)
    sns.despine(ax=axes)
    return figure

"""Figures from arrays: every function returns a matplotlib Figure and knows no model.

Colours are seaborn's colour-blind safe palette; a true photo is framed and also named, so that
nothing rests on colour alone. Figures are made without pyplot, so they can be drawn in a thread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from sbirlib.errors import InputError
from sbirlib.figures.style import GUIDE_COLOUR, LINES, MARKERS, PALETTE, _figure


def training_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss by term and validation Acc@K by epoch, from the columns of history.csv."""
    figure = _figure(9.5, 3.4)
    left, right = figure.subplots(1, 2)
    epochs = history["epoch"]
    # A term that is 0 throughout belongs to a part that the model does not have.
    terms = [
        name for name in history if name.startswith("loss_") and name != "loss_total" and any(history[name])
    ]
    for name, colour, marker in zip(terms, PALETTE, "osD^v<>", strict=False):
        left.plot(
            epochs,
            history[name],
            color=colour,
            marker=marker,
            markersize=3,
            label="L_" + name.removeprefix("loss_"),
        )
    has_recycling = any("recyc" in name for name in terms)
    left.set(
        title="training loss by term",
        xlabel="epoch",
        ylabel="InfoNCE (nats); recyc: mean square" if has_recycling else "InfoNCE (nats)",
    )
    left.set_ylim(bottom=0)
    for k, colour, marker in zip((1, 5, 10), PALETTE, "osD", strict=False):
        values = np.asarray(history[f"val_acc@{k}"], dtype=float)
        seen = np.isfinite(values)
        right.plot(
            np.asarray(epochs)[seen],
            values[seen],
            color=colour,
            marker=marker,
            markersize=3,
            label=f"Acc@{k}",
        )
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
    axes.set(
        xlabel="K (photos looked at)",
        ylabel="Acc@K (% of queries)",
        ylim=(0, 101),
        title=f"{len(ranks)} sketches, {gallery} photos",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    sns.despine(ax=axes)
    return figure


def accuracy_bars(
    names: Sequence[str],
    percent: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    xlabel: str = "",
    ylabel: str = "Acc@1 (% of queries)",
) -> Figure:
    """Bars with 95 % intervals, all in percent."""
    figure = _figure(max(4.0, 0.9 * len(names) + 1.5), 3.4)
    axes = figure.subplots()
    percent, low, high = (np.asarray(values, dtype=float) for values in (percent, low, high))
    axes.bar(list(names), percent, color=PALETTE[0], width=0.6)
    axes.errorbar(
        list(names), percent, yerr=[percent - low, high - percent], fmt="none", ecolor="0.2", capsize=4
    )
    axes.set(xlabel=xlabel, ylabel=ylabel, ylim=(0, 101))
    sns.despine(ax=axes)
    return figure


def interval_plot(
    names: Sequence[str],
    percent: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    *,
    points: Sequence[Sequence[float]] = (),
    title: str = "",
    xlabel: str = "Acc@1 (% of queries)",
) -> Figure:
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
    axes.axvline(
        float(np.median(ranks)), color=PALETTE[1], linestyle="--", label=f"median {np.median(ranks):g}"
    )
    axes.set(xlabel=f"rank of the true photo (1 to {gallery})", ylabel="sketches")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8, frameon=False)
    sns.despine(ax=axes)
    return figure


class Interval(Protocol):
    """What a curve needs of `retrieval.Accuracy`: value and 95 % interval, in percent."""

    @property
    def percent(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


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
            raise InputError(
                f"{name}: no column 'epoch' or no column {column!r} in its history; "
                f"there are: {', '.join(history)}"
            )
        epochs, percent = (np.asarray(history[key], dtype=float) for key in ("epoch", column))
        seen = np.isfinite(percent)
        kept = np.flatnonzero(np.asarray(history.get("best", ()), dtype=float))
        kept = kept[seen[kept]]  # without a search there is no place for a star
        colour = PALETTE[place % len(PALETTE)]
        label = f"{name}: kept epoch {epochs[kept[-1]]:.0f}, {percent[kept[-1]]:.1f} %" if len(kept) else name
        axes.plot(
            epochs[seen],
            percent[seen],
            color=colour,
            marker=MARKERS[place % len(MARKERS)],
            markersize=5,
            markevery=max(1, math.ceil(seen.sum() / 30)),
            linestyle=LINES[place % len(LINES)],
            linewidth=1.5,
            label=label,
        )
        if len(kept):
            axes.plot(
                epochs[kept[-1]],
                percent[kept[-1]],
                "*",
                color=colour,
                markeredgecolor="black",
                markersize=17,
                zorder=4,
            )
    measured_on = sorted(
        {str(history["selected_on"][0]) for history in histories.values() if "selected_on" in history}
    )
    axes.set_title(
        f"measured on {', '.join(measured_on)}; star: kept epoch" if measured_on else "star: kept epoch",
        fontsize=10,
        loc="left",
    )
    axes.set(xlabel="epoch", ylabel=f"Acc@{k} (% of queries)", ylim=(0, 101))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9")
    figure.legend(fontsize=9.5, frameon=False, loc="outside lower center", ncols=3)
    sns.despine(ax=axes)
    return figure


def discard_curves(kept: ArrayLike, curves: Mapping[str, Sequence[Interval]]) -> Figure:
    """Acc@1 against how many patch tokens are kept, a line with its 95 % interval for each name.

    `kept` (f,) in percent of the patch tokens; `curves[name]` f accuracies as `retrieval.accuracy_of`
    makes them. Raises InputError where their numbers differ or `kept` looks like fractions.
    """
    kept = np.asarray(kept, dtype=float)
    if kept.max() <= 1:
        raise InputError(
            f"kept runs to {kept.max():g}: percent of the patch tokens are needed, such as 25 or 100"
        )
    figure = _figure(9.5, 4.2)
    axes = figure.subplots()
    order = np.argsort(kept)
    for place, (name, points) in enumerate(curves.items()):
        if len(points) != len(kept):
            raise InputError(f"{name}: {len(points)} accuracies for {len(kept)} values of kept")
        percent, low, high = np.array([(point.percent, point.low, point.high) for point in points]).T[
            :, order
        ]
        colour = PALETTE[place % len(PALETTE)]
        axes.fill_between(kept[order], low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(
            kept[order],
            percent,
            color=colour,
            marker=MARKERS[place % len(MARKERS)],
            markersize=6,
            linestyle=LINES[place % len(LINES)],
            label=name,
        )
    axes.set(xlabel="patch tokens kept (%)", ylabel="Acc@1 (% of queries)", ylim=(0, 101))
    axes.set_title("bands: 95 % intervals", fontsize=10, loc="left")
    axes.grid(axis="y", color="0.9")
    figure.legend(fontsize=9.5, frameon=False, loc="outside lower center", ncols=4)
    sns.despine(ax=axes)
    return figure

"""Accuracy and loss as curves and intervals."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from sbirlib.errors import InputError
from sbirlib.figures.style import GUIDE_COLOUR, PALETTE, finish, floats, line_style, new_axes, new_figure


def training_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss by term and validation Acc@K by epoch, from the columns of history.csv."""
    figure = new_figure(9.5, 3.4)
    left, right = figure.subplots(1, 2)
    epochs = np.asarray(history["epoch"])
    # A term that is 0 throughout belongs to a part that the model does not have.
    terms = [name for name in history if name.startswith("loss_") and any(history[name])]
    terms = [name for name in terms if name != "loss_total"]
    for name, colour, marker in zip(terms, PALETTE, "osD^v<>", strict=False):
        label = "L_" + name.removeprefix("loss_")
        left.plot(epochs, history[name], color=colour, marker=marker, markersize=3, label=label)
    unit = "InfoNCE (nats)" + ("; recyc: mean square" if any("recyc" in name for name in terms) else "")
    left.set(title="training loss by term", xlabel="epoch", ylabel=unit, ylim=(0, None))
    for k, colour, marker in zip((1, 5, 10), PALETTE, "osD", strict=False):
        (values,) = floats(history[f"val_acc@{k}"])
        seen, style = np.isfinite(values), dict(color=colour, marker=marker, markersize=3, label=f"Acc@{k}")
        right.plot(epochs[seen], values[seen], **style)
    if chosen := [epoch for epoch, best in zip(epochs, history["best"], strict=True) if best]:
        right.axvline(chosen[-1], color=GUIDE_COLOUR, linestyle=":", label="kept as best")
    right.set(title=history["selected_on"][0], xlabel="epoch", ylabel="Acc@K (% of queries)")
    for axes in (left, right):
        axes.legend(fontsize=8, frameon=False)
        finish(axes, whole="x", percent=axes is right)
    return figure


def interval_plot(
    names: Sequence[str], percent: ArrayLike, low: ArrayLike = math.nan, high: ArrayLike = math.nan, *,
    points: Sequence[ArrayLike] = (), title: str = "", xlabel: str = "Acc@1 (% of queries)",
) -> Figure:  # fmt: skip
    """A row for each name: value, interval (NaN where there is none) and single `points`; in percent."""
    axes = new_axes(9.0, 1.2 + 0.34 * len(names))
    places, (percent, low, high) = np.arange(len(names)), floats(percent, low, high)
    for place, values in zip(places, points, strict=False):
        axes.plot(values, np.full(np.size(values), place), "o", color=GUIDE_COLOUR, markersize=4, alpha=0.7)
    axes.errorbar(percent, places, xerr=[percent - low, high - percent], fmt="D", color=PALETTE[0], capsize=4)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set(yticks=places, yticklabels=names, ylim=(len(names) - 0.5, -0.5), axisbelow=True)
    return finish(axes, grid="x", xlabel=xlabel)


def accuracy_by_epoch(histories: Mapping[str, Mapping[str, Sequence[float]]], *, k: int = 1) -> Figure:
    """Acc@k in percent by epoch of several runs, the epoch that each kept marked with a star.

    `histories[name]` holds columns of history.csv: "epoch", "val_acc@k" (NaN where not measured), and
    "best" (1 where the epoch was kept) where known. Raises InputError for a column that is not there.
    Source: the paper's figure 1.1.1 in kind.
    """
    axes = new_axes(9.5, 4.2)
    column = f"val_acc@{k}"
    for place, (name, history) in enumerate(histories.items()):
        if column not in history or "epoch" not in history:
            lacks = f"no column 'epoch' or no column {column!r} in its history"
            raise InputError(f"{name}: {lacks}; there are: {', '.join(history)}")
        epochs, percent, best = floats(history["epoch"], history[column], history.get("best", ()))
        seen, kept = np.isfinite(percent), np.flatnonzero(best)
        kept = kept[seen[kept]][-1:]  # an epoch without a search has no place for a star
        label = f"{name}: kept epoch {epochs[kept[0]]:.0f}, {percent[kept[0]]:.1f} %" if len(kept) else name
        style, every = line_style(place), max(1, math.ceil(seen.sum() / 30))
        axes.plot(epochs[seen], percent[seen], label=label, markersize=5, markevery=every, **style)
        if len(kept):
            star = dict(color=style["color"], markeredgecolor="black", markersize=17, zorder=4)
            axes.plot(epochs[kept], percent[kept], "*", **star)
    measured_on = sorted({str(run["selected_on"][0]) for run in histories.values() if "selected_on" in run})
    title = [f"measured on {', '.join(measured_on)}"] if measured_on else []
    title += ["star: kept epoch"] if any(any(run.get("best", ())) for run in histories.values()) else []
    axes.set_title("; ".join(title), fontsize=10, loc="left")
    axes.figure.legend(fontsize=9.5, frameon=False, loc="outside lower center", ncols=3)
    return finish(axes, whole="x", grid="y", percent=True, xlabel="epoch", ylabel=f"Acc@{k} (% of queries)")

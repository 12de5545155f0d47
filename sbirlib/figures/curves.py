"""Accuracy and loss as curves and intervals."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from sbirlib.errors import InputError
from sbirlib.figures.style import GUIDE_COLOUR, PALETTE, finish, floats, line_style, new_axes, new_figure


def training_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss by term and validation Acc@K by epoch, from the columns of history.csv."""
    table = pd.DataFrame(history).set_index("epoch")
    losses = table.filter(like="loss_").drop(columns="loss_total")
    # A term that is 0 throughout belongs to a part that the model does not have.
    losses = losses.loc[:, losses.any()].rename(columns=lambda name: name.replace("loss_", "L_"))
    found = table.filter(like="val_acc@").dropna().rename(columns=lambda name: name.replace("val_acc", "Acc"))
    figure = new_figure(9.5, 3.4)
    left, right = figure.subplots(1, 2)
    for axes, columns in ((left, losses), (right, found)):
        for place, name in enumerate(columns):
            axes.plot(columns[name], label=name, markersize=3, **line_style(place))
    if table["best"].any():
        chosen = table.index[table["best"] == 1][-1]
        right.axvline(chosen, color=GUIDE_COLOUR, linestyle=":", label="kept as best")
    unit = "InfoNCE (nats)" + ("; recyc: mean square" if any("recyc" in name for name in losses) else "")
    left.set(title="training loss by term", xlabel="epoch", ylabel=unit, ylim=(0, None))
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

    `histories[name]` holds columns of history.csv: "epoch", "val_acc@k" (NaN where not measured), "best" (1
    where the epoch was kept) and "selected_on". Raises InputError for a column that is not there. Source: the
    paper's figure 1.1.1 in kind.
    """
    axes = new_axes(9.5, 4.2)
    column = f"val_acc@{k}"
    for place, (name, history) in enumerate(histories.items()):
        if missing := {"epoch", column, "best", "selected_on"} - history.keys():
            raise InputError(f"{name}: no {', '.join(sorted(missing))}; there are: {', '.join(history)}")
        epochs, percent, best = floats(history["epoch"], history[column], history["best"])
        seen, kept = np.isfinite(percent), np.flatnonzero(best)
        kept = kept[seen[kept]][-1:]  # an epoch without a search has no place for a star
        label = f"{name}: kept epoch {epochs[kept[0]]:.0f}, {percent[kept[0]]:.1f} %" if len(kept) else name
        style, every = line_style(place), max(1, math.ceil(seen.sum() / 30))
        axes.plot(epochs[seen], percent[seen], label=label, markersize=5, markevery=every, **style)
        if len(kept):
            star = dict(color=style["color"], markeredgecolor="black", markersize=17, zorder=4)
            axes.plot(epochs[kept], percent[kept], "*", **star)
    measured_on = ", ".join(sorted({run["selected_on"][0] for run in histories.values()}))
    axes.set_title(f"measured on {measured_on}; star: kept epoch", fontsize=10, loc="left")
    axes.figure.legend(fontsize=9.5, frameon=False, loc="outside lower center", ncols=3)
    return finish(axes, whole="x", grid="y", percent=True, xlabel="epoch", ylabel=f"Acc@{k} (% of queries)")

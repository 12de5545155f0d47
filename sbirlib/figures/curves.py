"""Accuracy and loss as curves and intervals, and InfoNCE step by step."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from sbirlib.figures.style import GUIDE_COLOUR, PALETTE, new_figure


def training_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss by term and validation Acc@K by epoch, from the columns of history.csv."""
    table = pd.DataFrame(history).set_index("epoch")
    losses = table.filter(like="loss_")
    if losses.shape[1] > 1:
        losses = losses.drop(columns="loss_total")
    # A term that is 0 throughout belongs to a part that the model does not have.
    losses = losses.loc[:, losses.any()].rename(columns=lambda name: name.replace("loss_", "L_"))
    found = table.filter(like="val_acc@").dropna().rename(columns=lambda name: name.replace("val_acc", "Acc"))
    figure = new_figure(9.5, 3.4)
    left, right = figure.subplots(1, 2)
    for axes, columns in ((left, losses), (right, found)):
        if columns.size:
            sns.lineplot(columns, ax=axes, palette=PALETTE[: columns.shape[1]], markers=True, markersize=5)
    if table["best"].any():
        chosen = table.index[table["best"] == 1][-1]
        right.axvline(chosen, color=GUIDE_COLOUR, linestyle=":", label="kept as best")
    unit = "InfoNCE (nats)" if "L_multi" in losses else "loss"
    unit += "; recyc: mean square" if any("recyc" in name for name in losses) else ""
    left.set(title="training loss by term", xlabel="epoch", ylabel=unit)
    left.set_ylim(min(0, left.get_ylim()[0]))  # a reward is a loss below 0
    right.set(title=history["selected_on"][0], xlabel="epoch", ylabel="Acc@K (% of queries)", ylim=(0, 101))
    for axes in (left, right):
        if axes.lines:
            axes.legend(fontsize=8, frameon=False)
        axes.locator_params(axis="x", integer=True)
        sns.despine(ax=axes)
    return figure


def interval_plot(
    names: Sequence[str], percent: ArrayLike, low: ArrayLike = math.nan, high: ArrayLike = math.nan, *,
    points: Sequence[ArrayLike] = (), title: str = "", xlabel: str = "Acc@1 (% of queries)",
) -> Figure:  # fmt: skip
    """A row for each name: value, interval (NaN where there is none) and single `points`; in percent."""
    figure = new_figure(9.0, 1.2 + 0.34 * len(names))
    axes = figure.subplots()
    places = np.arange(len(names))
    percent, low, high = (np.asarray(values, dtype=float) for values in (percent, low, high))
    for place, values in zip(places, points, strict=False):
        axes.plot(values, np.full(np.size(values), place), "o", color=GUIDE_COLOUR, markersize=4, alpha=0.7)
    axes.errorbar(percent, places, xerr=[percent - low, high - percent], fmt="D", color=PALETTE[0], capsize=4)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set(yticks=places, yticklabels=names, ylim=(len(names) - 0.5, -0.5), axisbelow=True, xlabel=xlabel)
    axes.grid(axis="x", color="0.9")
    sns.despine(ax=axes)
    return figure

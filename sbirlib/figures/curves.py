"""Accuracy and loss as curves and intervals, and InfoNCE step by step."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from scipy.special import log_softmax

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


def info_nce_example(first: np.ndarray, second: np.ndarray, temperature: float) -> Figure:
    """InfoNCE over the 2b rows of two (b, 2) arrays of unit vectors, step by step.

    Left the vectors on the unit circle, then every cosine with each row's partner framed, then the
    probability that the softmax at `temperature` gives the partner, and the row's loss in nats.
    """
    pairs = len(first)
    rows, places = np.concatenate([first, second]), np.arange(2 * pairs)
    names = [f"{side}{i + 1}" for side in "sp" for i in range(pairs)]
    partner, itself = (places + pairs) % (2 * pairs), np.eye(2 * pairs, dtype=bool)
    cosine = rows @ rows.T
    logits = np.where(itself, -np.inf, cosine / temperature)
    losses = -log_softmax(logits, axis=1)[places, partner]
    figure = new_figure(11, 3.9, layout=None)
    margins = dict(left=0.01, right=0.93, bottom=0.14, top=0.91, wspace=0.13)
    circle, matrix, bars = figure.subplots(1, 3, width_ratios=(1, 1.15, 1), gridspec_kw=margins)

    turn = np.linspace(0, 2 * np.pi, 200)
    circle.plot(np.cos(turn), np.sin(turn), color="0.85")
    for side, marker, colour, start in (("sketch", "s", PALETTE[0], 0), ("photo", "o", PALETTE[1], pairs)):
        points = rows[start : start + pairs]
        circle.scatter(*points.T, marker=marker, color=colour, s=45, label=side, zorder=3)
        reach = 1.24 if side == "sketch" else 0.76
        for point, name in zip(points, names[start:], strict=False):
            circle.annotate(name, reach * point, ha="center", va="center", color=colour)
    around = (-1.45, 1.45)
    circle.set(aspect="equal", xlim=around, ylim=around, xticks=[], yticks=[], title="embeddings")
    circle.legend(fontsize=8, frameon=False, loc="center")
    sns.despine(ax=circle, left=True, bottom=True)

    look = dict(cmap="vlag", vmin=-1, vmax=1, cbar=False, square=True, annot_kws={"size": 7})
    look |= dict(mask=itself, annot=cosine.round(1) + 0.0, fmt=".1f")  # -0.0 becomes 0.0
    sns.heatmap(cosine, xticklabels=names, yticklabels=names, ax=matrix, **look)
    for corner in zip(partner, places, strict=True):
        matrix.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="black", linewidth=1.8))
    matrix.set_title("cosine; each row's partner framed")
    matrix.tick_params(length=0, labelrotation=0)

    bars.barh(places, np.exp(-losses), color=[PALETTE[0]] * pairs + [PALETTE[1]] * pairs)
    for place, value in zip(places, losses, strict=True):
        bars.text(1.02, place, f"loss {value:.2f}", va="center", fontsize=9)
    bars.set(yticks=places, yticklabels=names, xlim=(0, 1), xlabel="softmax probability of the partner")
    bars.set_title(f"temperature {temperature:.2g}: mean loss {losses.mean():.2f}")
    bars.invert_yaxis()
    sns.despine(ax=bars)
    return figure

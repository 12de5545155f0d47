"""Accuracy and loss as curves, bars and histograms."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

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


def accuracy_curve(ranks: np.ndarray, gallery: int, *, most: int = 30) -> Figure:
    """Acc@K for K = 1..most, beside what guessing would reach; ranks (q,), 1 = found first."""
    axes = new_axes(6, 3.4)
    ks = np.arange(1, min(most, gallery) + 1)
    percent = 100 * (ranks[None] <= ks[:, None]).mean(axis=1)
    axes.plot(ks, percent, color=PALETTE[0], marker="o", markersize=3, label="this model")
    axes.plot(ks, 100 * ks / gallery, color=GUIDE_COLOUR, linestyle="--", label="guessing")
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.set_title(f"{len(ranks)} sketches, {gallery} photos")
    return finish(axes, whole="x", percent=True, xlabel="K (photos looked at)", ylabel="Acc@K (% of queries)")


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
            raise InputError(
                f"{name}: no column 'epoch' or no column {column!r} in its history; "
                f"there are: {', '.join(history)}"
            )
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


def discard_curves(kept: ArrayLike, curves: Mapping[str, Sequence[Any]], notes: Sequence[str] = ()) -> Figure:
    """Acc@1 against how many patch tokens are kept, a line with its 95 % interval for each name.

    `kept` (f,) in percent of the patch tokens; `curves[name]` f accuracies as `retrieval.accuracy_of`
    makes them; `notes` stand above. Raises InputError where their numbers differ or `kept` looks like
    fractions.
    """
    (kept,) = floats(kept)
    if kept.max() <= 1:
        raise InputError(f"kept is {kept.max():g} at most: give percent of the tokens, such as 25 or 100")
    axes = new_axes(9.5, 4.2)
    order = np.argsort(kept)
    for place, (name, points) in enumerate(curves.items()):
        if len(points) != len(kept):
            raise InputError(f"{name}: {len(points)} accuracies for {len(kept)} values of kept")
        percent, low, high = np.array([(points[i].percent, points[i].low, points[i].high) for i in order]).T
        style = line_style(place)
        axes.fill_between(kept[order], low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.plot(kept[order], percent, markersize=6, label=name, **style)
    title = [textwrap.fill(note, 120) for note in (*notes, "bands: 95 % intervals")]
    axes.set_title("\n".join(title), fontsize=10, loc="left")
    axes.figure.legend(fontsize=9.5, frameon=False, loc="outside lower center", ncols=4)
    labels = dict(xlabel="patch tokens kept (%)", ylabel="Acc@1 (% of queries)")
    return finish(axes, grid="y", percent=True, **labels)


def histograms(values: Mapping[str, ArrayLike], *, mark: float, mark_name: str, **labels: str) -> Figure:
    """How often values came, in steps of 1, by name, and one to compare with; `labels`: xlabel and ylabel."""
    axes = new_axes(9.0, 3.4)
    found = floats(*values.values())
    every = np.concatenate(found)
    edges = np.arange(math.floor(every.min()), math.ceil(every.max()) + 1.5, 1.0) - 0.5
    for k, (name, value) in enumerate(zip(values, found, strict=True)):
        look = dict(facecolor=(*PALETTE[k], 0.25), edgecolor=PALETTE[k], linewidth=1.8)
        look |= dict(linestyle=("-", "--", ":")[k % 3], label=f"{name}: mean {value.mean():.1f}")
        axes.hist(value, bins=edges, histtype="stepfilled", **look)
    axes.axvline(mark, color="0.2", linestyle="-.", label=f"{mark_name}: {mark:.1f}")
    axes.legend(fontsize=9, frameon=False)
    return finish(axes, **labels)

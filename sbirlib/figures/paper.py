"""Figures for reading the paper beside its released code; notebook 05 shows every one of these."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from sbirlib.figures.style import GUIDE_COLOUR, PALETTE, finish, floats, new_axes, new_figure, whole_ticks


def rank_pairs(panels: Mapping[str, tuple[np.ndarray, np.ndarray]], gallery: int) -> Figure:
    """Ranks of the same queries in two evaluations, a panel by name; (q,) each, 1 = found first."""
    figure = new_figure(4.4 * len(panels), 4.1)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, (first, second)) in zip(grid, panels.items(), strict=True):
        axes.plot((1, gallery), (1, gallery), color=GUIDE_COLOUR, linestyle="--", linewidth=1)
        axes.plot(first, second, "o", color=PALETTE[0], alpha=0.5, markersize=4)
        axes.set_title(f"{name}:\n{np.mean(first != second):.0%} of {len(first)} ranks differ")
        axes.set(aspect="equal", xlim=(0, gallery + 1), ylim=(0, gallery + 1))
        whole_ticks(axes, "xy", 6)
        finish(axes, xlabel="rank in the first evaluation", ylabel="rank in the second")
    return figure


def moved_bars(parts: Sequence[str], moved: Mapping[str, Sequence[float]]) -> Figure:
    """By how many percent of their length the weights of each part moved, a bar for each variant."""
    axes = new_axes(9.0, 3.2)
    thick = 0.8 / len(moved)
    for k, (name, percent) in enumerate(moved.items()):
        places = np.arange(len(parts)) + (k - (len(moved) - 1) / 2) * thick
        style = dict(color=PALETTE[k], label=name, hatch="//" * k, edgecolor="white")
        bars = axes.bar(places, percent, thick * 0.92, **style)
        axes.bar_label(bars, [f"{value:.1f}" if value else "0" for value in percent], fontsize=9, padding=2)
    axes.set(xticks=range(len(parts)), xticklabels=list(parts))
    axes.margins(y=0.15)
    axes.legend(fontsize=9, frameon=False)
    return finish(axes, ylabel="weights moved (% of length)")


def cell_pictures(
    image: ArrayLike, cells: Mapping[str, ArrayLike], patches: Sequence[tuple[int, int]], *, columns: int = 3
) -> Figure:
    """Which patches of a picture (h, w, 3) uint8 are averaged into one cell, a panel by name.

    `cells[name]` (rows, columns) is the number of the cell that each patch falls into; the cells that
    hold the `patches`, at most four (row, column), are coloured.
    """
    rows = math.ceil(len(cells) / columns)
    figure = new_figure(3.0 * columns, 3.25 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, (name, numbers) in zip(panels, cells.items(), strict=True):
        numbers = np.asarray(numbers)
        high, wide = numbers.shape
        extent = (-0.5, wide - 0.5, high - 0.5, -0.5)
        tint = np.zeros((high, wide, 4))
        for patch, colour in zip(patches, PALETTE[:4], strict=False):
            tint[numbers == numbers[patch]] = (*colour, 0.65)
            axes.plot(patch[1], patch[0], "x", color="black", markersize=7, markeredgewidth=2)
        axes.imshow(np.asarray(image), extent=extent)
        axes.imshow(tint, extent=extent, interpolation="nearest")
        # Lines between patches of different cells.
        row, column = np.nonzero(np.diff(numbers, axis=1))
        axes.vlines(column + 0.5, row - 0.5, row + 0.5, color="0.1", linewidth=1)
        row, column = np.nonzero(np.diff(numbers, axis=0))
        axes.hlines(row + 0.5, column - 0.5, column + 0.5, color="0.1", linewidth=1)
        axes.set(title=f"{name}: {len(np.unique(numbers))} cells", xticks=[], yticks=[])
    return figure


def chosen_epoch(epoch: ArrayLike, acc1: ArrayLike, *, last: int = 50) -> Figure:
    """Test Acc@1 in percent by epoch, the best epoch marked, and the mean of the `last` epochs."""
    epoch, (acc1,) = np.asarray(epoch), floats(acc1)
    axes = new_axes(9.0, 3.6)
    best, mean = int(acc1.argmax()), acc1[-last:].mean()
    axes.plot(epoch, acc1, color=PALETTE[0], linewidth=0.9, label="test Acc@1 of each epoch")
    label = f"mean of the last {len(acc1[-last:])} epochs: {mean:.1f}"
    axes.hlines(mean, epoch[-last:][0], epoch[-1], color=PALETTE[1], linewidth=3, label=label)
    label = f"best epoch, {epoch[best]}: {acc1[best]:.1f}"
    axes.plot(epoch[best], acc1[best], "*", color=PALETTE[3], markersize=13, label=label)
    # The climb of the first epochs would squeeze what the figure is about.
    axes.set_ylim(max(0, mean - 15), acc1[best] + 2.5)
    axes.legend(fontsize=9, frameon=False, loc="lower right")
    return finish(axes, xlabel="epoch", ylabel="Acc@1 (% of test queries)")


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

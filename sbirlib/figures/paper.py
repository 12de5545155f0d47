"""Figures for reading the paper beside its released code: arrays in, a matplotlib Figure out.

Style, palette and helpers are those of `plots`; notebook 05 shows every one of these.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from sbirlib.figures.style import GUIDE_COLOUR, PALETTE, _figure


def angle_dots(angles: Mapping[str, ArrayLike], nearest: Mapping[str, float]) -> Figure:
    """How far an embedding turns, in degrees: a row of dots by name, and a mark where the next picture is.

    `angles[name]` (n,) are angles between embeddings of one picture, `nearest[name]` that to the most
    similar other picture.
    """
    figure = _figure(9.0, 0.55 * len(angles) + 1.1)
    axes = figure.subplots()
    for row, (name, values) in enumerate(angles.items()):
        axes.plot(
            values,
            np.full(len(values), row),
            "o",
            color=PALETTE[0],
            alpha=0.7,
            clip_on=False,
            label=None if row else "same sketch, other batch-mates",
        )
        axes.plot(
            nearest[name], row, "D", color=PALETTE[1], label=None if row else "most similar other sketch"
        )
    axes.set(
        yticks=range(len(angles)),
        yticklabels=list(angles),
        xlabel="angle to the sketch embedded alone (degrees)",
        ylim=(len(angles) - 0.5, -0.5),
    )
    axes.set_xlim(left=0)
    axes.grid(axis="y", color="0.9")
    figure.legend(
        *axes.get_legend_handles_labels(), fontsize=9, frameon=False, loc="outside upper center", ncols=2
    )
    sns.despine(ax=axes)
    return figure


def rank_pairs(panels: Mapping[str, tuple[np.ndarray, np.ndarray]], gallery: int) -> Figure:
    """Ranks of the same queries in two evaluations, a panel by name; (q,) each, 1 = found first."""
    figure = _figure(4.4 * len(panels), 4.1)
    for axes, (name, (first, second)) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        axes.plot((1, gallery), (1, gallery), color=GUIDE_COLOUR, linestyle="--", linewidth=1)
        axes.plot(first, second, "o", color=PALETTE[0], alpha=0.5, markersize=4)
        axes.set(
            title=f"{name}:\n{np.mean(first != second):.0%} of {len(first)} ranks differ",
            aspect="equal",
            xlabel="rank in the first evaluation",
            ylabel="rank in the second",
            xlim=(0, gallery + 1),
            ylim=(0, gallery + 1),
        )
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
        sns.despine(ax=axes)
    return figure


def moved_bars(parts: Sequence[str], moved: Mapping[str, Sequence[float]]) -> Figure:
    """By how many percent of their length the weights of each part moved, a bar for each variant."""
    figure = _figure(9.0, 3.2)
    axes = figure.subplots()
    thick = 0.8 / len(moved)
    for k, (name, percent) in enumerate(moved.items()):
        places = np.arange(len(parts)) + (k - (len(moved) - 1) / 2) * thick
        bars = axes.bar(
            places, percent, thick * 0.92, color=PALETTE[k], label=name, hatch="//" * k, edgecolor="white"
        )
        axes.bar_label(bars, [f"{value:.1f}" if value else "0" for value in percent], fontsize=9, padding=2)
    axes.set(xticks=range(len(parts)), xticklabels=list(parts), ylabel="weights moved (% of length)")
    axes.margins(y=0.15)
    axes.legend(fontsize=9, frameon=False)
    sns.despine(ax=axes)
    return figure


def cell_pictures(
    image: ArrayLike, cells: Mapping[str, ArrayLike], patches: Sequence[tuple[int, int]], *, columns: int = 3
) -> Figure:
    """Which patches of a picture (h, w, 3) uint8 are averaged into one cell, a panel by name.

    `cells[name]` (rows, columns) is the number of the cell that each patch falls into; the cells that
    hold the `patches`, at most four (row, column), are coloured.
    """
    rows = math.ceil(len(cells) / columns)
    figure = _figure(3.0 * columns, 3.25 * rows)
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
        _outline(axes, numbers)
        axes.set(title=f"{name}: {len(np.unique(numbers))} cells", xticks=[], yticks=[])
    return figure


def _outline(axes: Axes, numbers: np.ndarray) -> None:
    """Lines between patches of different cells."""
    row, column = np.nonzero(np.diff(numbers, axis=1))
    axes.vlines(column + 0.5, row - 0.5, row + 0.5, color="0.1", linewidth=1)
    row, column = np.nonzero(np.diff(numbers, axis=0))
    axes.hlines(row + 0.5, column - 0.5, column + 0.5, color="0.1", linewidth=1)


def contrast_maps(maps: Mapping[str, ArrayLike], pooled: int) -> Figure:
    """Contrast maps (m, m) side by side; below, each one's last `pooled` rows and columns, enlarged."""
    figure = _figure(3.1 * len(maps) + 0.5, 6.6)
    panels = figure.subplots(2, len(maps), squeeze=False)
    for column, (name, values) in enumerate(maps.items()):
        values = np.asarray(values)
        first = len(values) - pooled
        for axes, part, start in zip(
            panels[:, column], (values, values[first:, first:]), (0, first), strict=True
        ):
            end = start + len(part)
            shown = axes.imshow(
                part,
                vmin=0,
                vmax=1,
                cmap="cividis",
                interpolation="nearest",
                extent=(start - 0.5, end - 0.5, end - 0.5, start - 0.5),
            )
            axes.set(xlabel="cell", ylabel="" if column else "cell")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        uneven = int((values != values.T).sum())
        panels[0, column].set_title(f"{name}\n{uneven} entries asymmetric", fontsize=10)
        panels[1, column].set_title("pooled cells, enlarged", fontsize=10)
    figure.colorbar(shown, ax=panels, label="wanted similarity (0 to 1)", shrink=0.6)
    return figure


def chosen_epoch(epoch: ArrayLike, acc1: ArrayLike, *, last: int = 50) -> Figure:
    """Test Acc@1 in percent by epoch, the best epoch marked, and the mean of the `last` epochs."""
    epoch, acc1 = np.asarray(epoch), np.asarray(acc1, dtype=float)
    figure = _figure(9.0, 3.6)
    axes = figure.subplots()
    best, mean = int(acc1.argmax()), acc1[-last:].mean()
    axes.plot(epoch, acc1, color=PALETTE[0], linewidth=0.9, label="test Acc@1 of each epoch")
    axes.hlines(
        mean,
        epoch[-last:][0],
        epoch[-1],
        color=PALETTE[1],
        linewidth=3,
        label=f"mean of the last {len(acc1[-last:])} epochs: {mean:.1f}",
    )
    axes.plot(
        epoch[best],
        acc1[best],
        "*",
        color=PALETTE[3],
        markersize=13,
        label=f"best epoch, {epoch[best]}: {acc1[best]:.1f}",
    )
    # The climb of the first epochs would squeeze what the figure is about.
    axes.set(xlabel="epoch", ylabel="Acc@1 (% of test queries)", ylim=(max(0, mean - 15), acc1[best] + 2.5))
    axes.legend(fontsize=9, frameon=False, loc="lower right")
    sns.despine(ax=axes)
    return figure


def score_histograms(scores: Mapping[str, ArrayLike], *, mark: float, mark_name: str) -> Figure:
    """How often each score came, in percent, for each name, and one score `mark` to compare with."""
    figure = _figure(9.0, 3.4)
    axes = figure.subplots()
    values = {name: np.asarray(value, dtype=float) for name, value in scores.items()}
    low, high = (extreme([extreme(value) for value in values.values()]) for extreme in (min, max))
    edges = np.arange(math.floor(low), math.ceil(high) + 1.5, 1.0) - 0.5
    for k, (name, value) in enumerate(values.items()):
        axes.hist(
            value,
            bins=edges,
            histtype="stepfilled",
            facecolor=(*PALETTE[k], 0.25),
            edgecolor=PALETTE[k],
            linewidth=1.8,
            linestyle=("-", "--", ":")[k % 3],
            label=f"{name}: mean {value.mean():.1f}",
        )
    axes.axvline(mark, color="0.2", linestyle="-.", label=f"{mark_name}: {mark:.1f}")
    axes.set(xlabel="Acc@1 (% of queries)", ylabel="repetitions")
    axes.legend(fontsize=9, frameon=False, loc="upper left")
    sns.despine(ax=axes)
    return figure

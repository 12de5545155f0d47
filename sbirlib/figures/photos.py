"""Pictures in rows: grids, strips, cards, and what a model does with patch tokens: where it looks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from sbirlib.figures.style import TRUE_COLOUR, new_figure

Frame = tuple[Any, float]  # colour, and width in points
PLAIN_FRAME, QUERY_FRAME, TRUE_FRAME = ("0.8", 0.8), ("0.2", 1.5), (TRUE_COLOUR, 4)
# Seaborn's colour map: light, so that the picture shows through, where there is little; dark where much.
AMOUNT = "rocket_r"
CELL_ALPHA = 0.62
MOST_COLUMNS = 6
GREY = (0.299, 0.587, 0.114)  # how bright red, green and blue look


def new_page(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty page measured in inches from its upper left corner.

    Pictures share one Axes: a panel redraws it in a fraction of the time that one Axes each would take.
    """
    figure = new_figure(width, height, layout=None)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def place_pictures(
    axes: Axes, images: Sequence[ArrayLike], titles: Sequence[str], x: float, y: float, side: float, *,
    gap: float, head: float = 0.0, columns: int | None = None,
    frames: Mapping[int | None, Frame] | None = None,
) -> None:  # fmt: skip
    """Places pictures (h, w, 3), titles above, from (x, y) of a page on, in rows of `columns` or in one row.

    `gap` lies between neighbours, and `head`, with room for the titles, between rows; `frames[k]` is
    the frame of picture k where it is not the plain one.
    """
    for k, (image, title) in enumerate(zip(map(np.asarray, images), titles, strict=True)):
        row, column = divmod(k, columns or len(images))
        high, wide = (side * length / max(image.shape[:2]) for length in image.shape[:2])
        corner_x, corner_y = x + column * (side + gap), y + row * (side + head)
        left, top = corner_x + (side - wide) / 2, corner_y + (side - high) / 2
        extent = (left, left + wide, top + high, top)
        axes.imshow(image, interpolation="antialiased", extent=extent, aspect="auto")
        colour, width = (frames or {}).get(k, PLAIN_FRAME)
        axes.add_patch(Rectangle((left, top), wide, high, fill=False, edgecolor=colour, linewidth=width))
        axes.text(corner_x + side / 2, corner_y - 0.06, title, ha="center", va="bottom", fontsize=9)


def image_grid(
    images: Sequence[ArrayLike], titles: Sequence[str] = (), *, columns: int = 6, side: float = 1.6
) -> Figure:
    """Pictures, arrays (h, w, 3) or Pillow's, in rows of `columns`, each with a title; `side` in inches."""
    rows, gap = max(1, math.ceil(len(images) / columns)), 0.12
    head = max([0.25, *(0.1 + 0.15 * (1 + title.count("\n")) for title in titles)])
    figure, axes = new_page(columns * (side + gap) + gap, rows * (side + head) + gap)
    titles = list(titles) or [""] * len(images)
    place_pictures(axes, images, titles, gap, head, side, gap=gap, head=head, columns=columns)
    return figure


def retrieval_card(
    sketch: ArrayLike, results: Sequence[ArrayLike], titles: Sequence[str], *,
    true_place: int | None = None, heading: str = "", columns: int = 5,
) -> Figure:  # fmt: skip
    """One query: the sketch, large, beside its results in rows of `columns`, the true photo framed.

    `true_place` is the 0-based place of the true photo among `results`, None if it is not there.
    """
    gap, head, top, large, side = 0.12, 0.27, 0.35, 2.3, 1.35
    high = max(math.ceil(len(results) / columns) * (side + head), large + head)
    figure, axes = new_page(large + columns * (side + gap) + 3 * gap, top + high + gap)
    axes.text(gap, 0.1, heading, ha="left", va="top", fontsize=11)
    place_pictures(axes, [sketch], ["query sketch"], gap, top + head, large, gap=gap, frames={0: QUERY_FRAME})
    grid = dict(gap=gap, head=head, columns=columns, frames={true_place: TRUE_FRAME})
    place_pictures(axes, results, titles, large + 2 * gap, top + head, side, **grid)
    return figure


def token_overlay(
    image: ArrayLike, maps: Sequence[ArrayLike], titles: Sequence[str], *,
    query: tuple[int, int] | None = None, heading: str = "",
) -> Figure:  # fmt: skip
    """A picture (h, w, 3) uint8, then each map (rows, columns) of its patches as cells over the grey picture.

    One colour scale from 0 serves all maps of attention, as shares of 1; `query` (row, column) of the first
    map's grid is framed in the picture.
    """
    image, maps = np.asarray(image), [np.asarray(values, dtype=float) for values in maps]
    grey = (image @ np.array(GREY))[..., None].repeat(3, axis=2).astype(np.uint8)
    pictures, side, gap, head, top, below = [image, *[grey] * len(maps)], 1.65, 0.12, 0.28, 0.35, 0.75
    columns, rows = min(MOST_COLUMNS, len(pictures)), math.ceil(len(pictures) / MOST_COLUMNS)
    width, height = max(5.5, columns * (side + gap) + gap), top + rows * (side + head) + below
    figure, axes = new_page(width, height)
    axes.text(gap, 0.1, heading, ha="left", va="top", fontsize=11)
    titles = ["input" if query is None else "query patch framed", *titles]
    place_pictures(axes, pictures, titles, gap, top + head, side, gap=gap, head=head, columns=columns)
    if query is not None:
        left, right, bottom, upper = axes.images[0].get_extent()
        down, across = (bottom - upper) / maps[0].shape[0], (right - left) / maps[0].shape[1]
        corner = (left + query[1] * across, upper + query[0] * down)
        for colour, thick in (("white", 4.5), ("black", 2)):  # black in white is seen on any ground
            axes.add_patch(Rectangle(corner, across, down, fill=False, edgecolor=colour, linewidth=thick))
    look = dict(vmin=0, vmax=max(map(np.max, maps)) or 1.0, cmap=AMOUNT, alpha=CELL_ALPHA, aspect="auto")
    for ground, values in zip(axes.images[1:], maps, strict=True):
        shown = axes.imshow(values, interpolation="nearest", extent=ground.get_extent(), **look)
    bar = figure.add_axes((0.5 - 1.5 / width, 0.52 / height, 3 / width, 0.11 / height))
    figure.colorbar(shown, cax=bar, orientation="horizontal", label="attention (share of 1)")
    return figure

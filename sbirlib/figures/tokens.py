"""What a model does with patch tokens: where it looks."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from sbirlib.figures.photos import new_page, place_pictures

# Seaborn's colour map: light, so that the picture shows through, where there is little; dark where much.
AMOUNT = "rocket_r"
CELL_ALPHA = 0.62
MOST_COLUMNS = 6
GREY = (0.299, 0.587, 0.114)  # how bright red, green and blue look


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
    # One page, on which a panel draws it in half the time that an Axes for each map would take.
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

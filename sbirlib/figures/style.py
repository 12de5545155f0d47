"""Figures from arrays: every function returns a matplotlib Figure and knows no model.

Colours are seaborn's colour-blind safe palette; a true photo is framed and also named, so that
nothing rests on colour alone. Figures are made without pyplot, so they can be drawn in a thread.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from sbirlib.errors import InputError

PALETTE = sns.color_palette("colorblind")
TRUE_COLOUR, GUIDE_COLOUR = PALETTE[2], "0.55"
TRUE_FRAME = (TRUE_COLOUR, 4)


class _Shown(Figure):
    """A figure that a notebook shows as the last value of a cell, pyplot or not."""

    def _repr_png_(self) -> bytes:
        return png_bytes(self)


def _figure(width: float, height: float) -> Figure:
    figure = _Shown(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _page(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty page measured in inches from its upper left corner.

    Pictures share one Axes: a panel redraws it in a fraction of the time that one Axes each would take.
    """
    figure = _Shown(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, axes


def _picture(
    axes: Axes,
    image: ArrayLike,
    x: float,
    y: float,
    side: float,
    title: str = "",
    colour: object = "0.8",
    width: float = 0.8,
) -> None:
    """Places a picture (h, w, 3) into the square at (x, y) of a page, its title above."""
    image = np.asarray(image)
    longest = max(image.shape[:2])
    high, wide = (side * length / longest for length in image.shape[:2])
    left, top = x + (side - wide) / 2, y + (side - high) / 2
    axes.imshow(
        image, interpolation="antialiased", extent=(left, left + wide, top + high, top), aspect="auto"
    )
    axes.add_patch(Rectangle((left, top), wide, high, fill=False, edgecolor=colour, linewidth=width))
    axes.text(x + side / 2, y - 0.06, title, ha="center", va="bottom", fontsize=9)


def save_figure(figure: Figure, path: str | Path, dpi: int = 150) -> None:
    """Writes a figure; the extension of `path` names the format (png, pdf, svg).

    Raises InputError for an extension that matplotlib cannot write.
    """
    known = figure.canvas.get_supported_filetypes()
    if Path(path).suffix.lower().removeprefix(".") not in known:
        raise InputError(
            f"{path}: a figure cannot be written in this format; known: {', '.join(sorted(known))}"
        )
    figure.savefig(path, dpi=dpi)


def png_bytes(figure: Figure, dpi: int = 100) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def message(text: str, *, width: float = 9.5, height: float = 1.6) -> Figure:
    """Text on an empty page, where there is nothing to plot yet; sizes in inches."""
    figure = _figure(width, height)
    figure.text(0.5, 0.5, text, ha="center", va="center", color="0.35", fontsize=12)
    return figure


MARKERS, LINES = "osD^vPXd<>", ("-", "--", "-.", ":")

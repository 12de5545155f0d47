"""The look that all figures share: palette, axes, and how a figure is shown and saved.

Colours are seaborn's colour-blind safe palette; a true photo is framed and also named, so that
nothing rests on colour alone. Figures are made without pyplot, so they can be drawn in a thread.
"""

import io
import textwrap

import seaborn as sns
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

PALETTE = sns.color_palette("colorblind")
TRUE_COLOUR, GUIDE_COLOUR = PALETTE[2], "0.55"


class ShownFigure(Figure):
    """A figure that a notebook shows as the last value of a cell, pyplot or not."""

    def draw(self, renderer: RendererBase) -> None:
        """Draws it as any figure, but that a $, as in the name of a file or run, begins no formula."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
        super().draw(renderer)

    def _repr_png_(self) -> bytes:
        return png_bytes(self)


def new_figure(width: float, height: float, layout: str | None = "constrained") -> Figure:
    """An empty figure; sizes in inches."""
    figure = ShownFigure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure, caption: str = "") -> bytes:
    """A figure as the bytes of a PNG file, with a caption below it if there is one."""
    buffer = io.BytesIO()
    if caption:
        figure.text(0.01, -0.01, textwrap.fill(caption, 110), va="top", color="0.35")
    figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight" if caption else None)
    return buffer.getvalue()


def message(text: str) -> Figure:
    """Text on an empty page, where there is nothing to plot yet."""
    figure = new_figure(9.5, 1.6)
    figure.text(0.5, 0.5, text, ha="center", va="center", color="0.35", fontsize=12)
    return figure

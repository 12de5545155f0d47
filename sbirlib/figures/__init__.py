"""Arrays in, a matplotlib Figure out."""

from sbirlib.figures.curves import interval_plot, training_curves
from sbirlib.figures.photos import image_grid, retrieval_card
from sbirlib.figures.style import message, png_bytes
from sbirlib.figures.tokens import token_overlay

__all__ = [
    "image_grid", "interval_plot", "message", "png_bytes", "retrieval_card",
    "token_overlay", "training_curves",
]  # fmt: skip

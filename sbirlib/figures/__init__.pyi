"""The names of `sbirlib.figures`: what type checkers see, and what is loaded when first asked for."""

from .curves import interval_plot, training_curves
from .photos import image_grid, retrieval_card, token_overlay
from .style import message, png_bytes

__all__ = [
    "image_grid", "interval_plot", "message", "png_bytes", "retrieval_card", "token_overlay",
    "training_curves",
]  # fmt: skip

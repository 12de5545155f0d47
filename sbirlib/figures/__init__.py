"""Arrays in, a matplotlib Figure out."""

from sbirlib.figures.curves import info_nce_example, interval_plot, training_curves
from sbirlib.figures.photos import embedding_map, image_grid, project, retrieval_card, retrieval_strip
from sbirlib.figures.style import message, png_bytes
from sbirlib.figures.tokens import discard_curves, distance_by_layer, heatmaps, token_overlay, without_patches

__all__ = [
    "discard_curves", "distance_by_layer", "embedding_map", "heatmaps", "image_grid", "info_nce_example",
    "interval_plot", "message", "png_bytes", "project", "retrieval_card", "retrieval_strip", "token_overlay",
    "training_curves", "without_patches",
]  # fmt: skip

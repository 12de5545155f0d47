"""Arrays in, a matplotlib Figure out."""

from sbirlib.figures.curves import (
    accuracy_bars,
    accuracy_by_epoch,
    accuracy_curve,
    discard_curves,
    interval_plot,
    rank_histogram,
    training_curves,
)  # fmt: skip
from sbirlib.figures.embedding import embedding_map, project
from sbirlib.figures.loss import info_nce_example
from sbirlib.figures.paper import (
    angle_dots,
    cell_pictures,
    chosen_epoch,
    contrast_maps,
    moved_bars,
    rank_pairs,
    score_histograms,
)  # fmt: skip
from sbirlib.figures.photos import failure_gallery, image_grid, retrieval_card, retrieval_strip
from sbirlib.figures.style import message, png_bytes, save_figure
from sbirlib.figures.tokens import discard_card, distance_by_layer, similarity_heatmaps, token_overlay

__all__ = [
    "accuracy_bars", "accuracy_by_epoch", "accuracy_curve", "angle_dots", "cell_pictures", "chosen_epoch",
    "contrast_maps", "discard_card", "discard_curves", "distance_by_layer", "embedding_map",
    "failure_gallery", "image_grid", "info_nce_example", "interval_plot", "message", "moved_bars",
    "png_bytes", "project", "rank_histogram", "rank_pairs", "retrieval_card", "retrieval_strip",
    "save_figure", "score_histograms", "similarity_heatmaps", "token_overlay", "training_curves",
]  # fmt: skip

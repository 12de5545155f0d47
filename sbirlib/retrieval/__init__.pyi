"""The names of `sbirlib.retrieval`: what type checkers see, and what is loaded when first asked for."""

from .adapted import adapted_measures
from .drawn import drawn_measures
from .gallery import Gallery, embed_folder, photos_in
from .intervals import Accuracy, accuracy_at, accuracy_of, paired_bootstrap
from .milvus import MilvusGallery
from .scores import Scores, evaluate, score
from .search import embed, embed_split, score_all, true_ranks

__all__ = [
    "Accuracy", "Gallery", "MilvusGallery", "Scores", "accuracy_at", "accuracy_of", "adapted_measures",
    "drawn_measures", "embed", "embed_folder", "embed_split", "evaluate", "paired_bootstrap",
    "photos_in", "score", "score_all", "true_ranks",
]  # fmt: skip

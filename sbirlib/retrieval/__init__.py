"""Embed photos once, search them with sketches, score the result, and say how sure it is."""

from sbirlib.retrieval.adapted import adapted_measures
from sbirlib.retrieval.drawn import drawn_measures
from sbirlib.retrieval.gallery import Gallery
from sbirlib.retrieval.intervals import paired_bootstrap
from sbirlib.retrieval.milvus import MilvusGallery
from sbirlib.retrieval.parts import embed_folder
from sbirlib.retrieval.scores import Accuracy, Scores, accuracy_at, accuracy_of, evaluate, score
from sbirlib.retrieval.search import embed, embed_split, score_all, true_ranks

__all__ = [
    "Accuracy", "Gallery", "MilvusGallery", "Scores", "accuracy_at", "accuracy_of", "adapted_measures",
    "drawn_measures", "embed", "embed_folder", "embed_split", "evaluate", "paired_bootstrap", "score",
    "score_all", "true_ranks",
]  # fmt: skip

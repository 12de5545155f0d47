"""Embed photos once, search them with sketches, score the result, and say how sure it is."""

from sbirlib.retrieval.drawn import drawn_measures, drawn_ranks
from sbirlib.retrieval.gallery import Gallery, Hit
from sbirlib.retrieval.intervals import bootstrap_accuracy, paired_bootstrap
from sbirlib.retrieval.scores import Accuracy, Scores, accuracy_at, accuracy_of, evaluate, score, score_split
from sbirlib.retrieval.search import Rows, embed, embed_split, score_all, true_ranks

__all__ = [
    "Accuracy", "Gallery", "Hit", "Rows", "Scores", "accuracy_at", "accuracy_of", "bootstrap_accuracy",
    "drawn_measures", "drawn_ranks", "embed", "embed_split", "evaluate",
    "paired_bootstrap", "score", "score_all", "score_split", "true_ranks",
]  # fmt: skip

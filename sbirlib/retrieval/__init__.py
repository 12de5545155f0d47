"""Embed photos once, search them with sketches, score the result, and say how sure it is."""

from sbirlib.retrieval.adapted import adapted_measures, adapted_ranks
from sbirlib.retrieval.drawn import drawn_measures, drawn_ranks
from sbirlib.retrieval.gallery import Gallery, Hit
from sbirlib.retrieval.intervals import bootstrap_accuracy, paired_bootstrap
from sbirlib.retrieval.scores import Accuracy, Scores, accuracy_at, accuracy_of, evaluate, score, score_split
from sbirlib.retrieval.search import Found, Rows, best_matches, embed, embed_split, score_all, true_ranks

__all__ = [
    "Accuracy", "Found", "Gallery", "Hit", "Rows", "Scores", "accuracy_at", "accuracy_of",
    "adapted_measures", "adapted_ranks", "best_matches", "bootstrap_accuracy", "drawn_measures",
    "drawn_ranks", "embed", "embed_split", "evaluate", "paired_bootstrap", "score", "score_all",
    "score_split", "true_ranks",
]  # fmt: skip

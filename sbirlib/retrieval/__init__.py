"""Embed photos once, search them with sketches, score the result, and say how sure it is."""

from sbirlib.retrieval.embed import embed
from sbirlib.retrieval.gallery import Gallery, Hit
from sbirlib.retrieval.intervals import bootstrap_accuracy, paired_bootstrap, simulate_selection
from sbirlib.retrieval.scores import (
    Accuracy,
    Scores,
    accuracy_at,
    accuracy_of,
    evaluate,
    score,
    score_split,
    true_ranks,
)

__all__ = [
    "Accuracy",
    "Gallery",
    "Hit",
    "Scores",
    "accuracy_at",
    "accuracy_of",
    "bootstrap_accuracy",
    "embed",
    "evaluate",
    "paired_bootstrap",
    "score",
    "score_split",
    "simulate_selection",
    "true_ranks",
]

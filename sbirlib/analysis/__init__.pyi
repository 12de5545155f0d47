"""The names of `sbirlib.analysis`: what type checkers see, and what is loaded when first asked for."""

from .attention import (
    attention_distance,
    attention_maps,
    global_attention,
    patch_attention,
    recycled_tokens,
    recycling_shares,
    recycling_variance,
    rollout,
    token_similarity,
)  # fmt: skip
from .discard import discard_curve, embed_kept, kept_places, token_scores

__all__ = [
    "attention_distance", "attention_maps", "discard_curve", "embed_kept", "global_attention", "kept_places",
    "patch_attention", "recycled_tokens", "recycling_shares", "recycling_variance", "rollout", "token_scores",
    "token_similarity",
]  # fmt: skip

"""What a trained model looks at, and which tokens it can do without."""

from sbirlib.analysis import pictures
from sbirlib.analysis.attention import (
    attention_maps,
    global_attention,
    patch_attention,
    recycling_shares,
    recycling_variance,
    rollout,
)  # fmt: skip
from sbirlib.analysis.discard import discard_curve

__all__ = [
    "attention_maps", "discard_curve", "global_attention", "patch_attention", "pictures",
    "recycling_shares", "recycling_variance", "rollout",
]  # fmt: skip

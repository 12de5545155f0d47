"""What a trained model looks at, and which tokens it can do without."""

from sbirlib.analysis import pictures
from sbirlib.analysis.attention import attention_maps, global_attention, recycling_variance, rollout
from sbirlib.analysis.discard import discard_curve

__all__ = [
    "attention_maps", "discard_curve", "global_attention", "pictures", "recycling_variance", "rollout",
]  # fmt: skip

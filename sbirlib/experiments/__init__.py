"""Ablations, grids of variants, and the published numbers to stand beside."""

from sbirlib.experiments.ablation import ablate
from sbirlib.experiments.finished import compare, read_rows, summary
from sbirlib.experiments.grids import Variant, grid, vary
from sbirlib.experiments.published import results, training_curve

__all__ = [
    "Variant", "ablate", "compare", "grid", "read_rows", "results", "summary", "training_curve", "vary",
]  # fmt: skip

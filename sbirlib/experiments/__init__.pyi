"""The names of `sbirlib.experiments`: what type checkers see, and what is loaded when first asked for."""

from . import published
from .ablation import ablate
from .finished import compare, read_rows, summary
from .grids import Variant, grid, vary
from .published import results, training_curve

__all__ = [
    "Variant", "ablate", "compare", "grid", "published", "read_rows", "results", "summary", "training_curve",
    "vary",
]  # fmt: skip

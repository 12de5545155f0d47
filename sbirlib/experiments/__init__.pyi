"""The names of `sbirlib.experiments`: what type checkers see, and what is loaded when first asked for."""

from . import published
from .ablation import ablate
from .finished import UNTRAINED, compare, pick, read_rows, summary, warning
from .grids import GridName, Variant, grid, vary
from .published import results, training_curve

__all__ = [
    "UNTRAINED", "GridName", "Variant", "ablate", "compare", "grid", "pick", "published", "read_rows",
    "results", "summary", "training_curve", "vary", "warning",
]  # fmt: skip

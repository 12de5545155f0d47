"""Fine-grained sketch-based image retrieval with ARNet: what notebooks and scripts begin with."""

import os
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

# Threads that wait for one another must sleep, not spin: on a laptop whose cores something else also
# uses, spinning makes training several times slower. Read by OpenMP when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from sbirlib.config import Config
from sbirlib.data import PairFolder, edge_map, epoch_batches, fit_square, load_split, read_image
from sbirlib.layers import MSTR
from sbirlib.methods import ARNet
from sbirlib.miniclothes import near_twins, trace_garment, wardrobe
from sbirlib.retrieval import Gallery, accuracy_of, evaluate, score, simulate_selection
from sbirlib.runs import load_run
from sbirlib.training import train

# What notebooks need besides; loaded when first asked for, since figures and panels take seconds to import.
_LATE = {
    "demo_pairs": "sbirlib.panels:demo_pairs",
    "image_grid": "sbirlib.figures:image_grid",
    "pictures": "sbirlib.analysis.pictures",
    "published": "sbirlib.experiments.published",
}

__all__ = [
    "MSTR", "ARNet", "Config", "Gallery", "PairFolder", "accuracy_of", "edge_map", "epoch_batches",
    "evaluate", "fit_square", "load_run", "load_split", "near_twins", "read_image", "score",
    "simulate_selection", "trace_garment", "train", "wardrobe",
]  # fmt: skip

if not TYPE_CHECKING:  # or a misspelt name would pass for one of these

    def __getattr__(name: str) -> Any:
        if name in _LATE:
            return resolve_name(_LATE[name])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

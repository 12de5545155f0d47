"""Fine-grained sketch-based image retrieval with ARNet: what notebooks and scripts begin with."""

import os
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

# Threads that wait for one another must sleep, not spin: on a laptop whose cores something else also
# uses, spinning makes training several times slower. Read by OpenMP when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Each is loaded when first asked for: torch, figures and panels take seconds to import.
_FROM = {
    "config": ("Config",),
    "data": ("PairFolder", "edge_map", "epoch_batches", "fit_square", "load_split", "read_image"),
    "layers": ("MSTR",),
    "methods": ("ARNet",),
    "miniclothes": ("near_twins", "trace_garment", "wardrobe"),
    "retrieval": ("Gallery", "accuracy_of", "evaluate", "paired_bootstrap", "score", "simulate_selection"),
    "runs": ("load_run",),
    "training": ("train",),
    "panels": ("demo_pairs",),
    "figures": ("image_grid",),
}
_PLACES = {name: f"sbirlib.{room}:{name}" for room, names in _FROM.items() for name in names}
_PLACES |= {"pictures": "sbirlib.analysis.pictures:", "published": "sbirlib.experiments.published:"}

__all__ = [
    "MSTR", "ARNet", "Config", "Gallery", "PairFolder", "accuracy_of", "edge_map", "epoch_batches",
    "evaluate", "fit_square", "load_run", "load_split", "near_twins", "paired_bootstrap",
    "read_image", "score", "simulate_selection", "trace_garment", "train", "wardrobe",
]  # fmt: skip

if TYPE_CHECKING:
    from sbirlib.config import Config
    from sbirlib.data import PairFolder, edge_map, epoch_batches, fit_square, load_split, read_image
    from sbirlib.layers import MSTR
    from sbirlib.methods import ARNet
    from sbirlib.miniclothes import near_twins, trace_garment, wardrobe
    from sbirlib.retrieval import Gallery, accuracy_of, evaluate, paired_bootstrap, score, simulate_selection
    from sbirlib.runs import load_run
    from sbirlib.training import train
else:  # or a misspelt name would pass for one of these

    def __getattr__(name: str) -> Any:
        if name in _PLACES:
            return resolve_name(_PLACES[name])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:  # for the Tab key
        return [*globals(), *_PLACES]

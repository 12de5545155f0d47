"""The names of `sbirlib`: what type checkers see, and what is loaded when it is first asked for."""

from .config import Config
from .data import (
    Epoch,
    PairFolder,
    edge_map,
    fit_square,
    load_split,
    make_view,
    pseudo_sketches,
    read_image,
    redraw,
)
from .experiments import published
from .figures import image_grid, token_overlay
from .layers import MSTR
from .methods import ARNet, recording
from .miniclothes import draw_miniclothes, near_twins, wardrobe
from .panels import demo_pairs
from .retrieval import Gallery, accuracy_of, evaluate, paired_bootstrap, score
from .runs import load_run
from .training import train

__all__ = [
    "MSTR", "ARNet", "Config", "Epoch", "Gallery", "PairFolder", "accuracy_of", "demo_pairs",
    "draw_miniclothes", "edge_map", "evaluate", "fit_square", "image_grid", "load_run", "load_split",
    "make_view", "near_twins", "paired_bootstrap", "pseudo_sketches", "published", "read_image", "recording",
    "redraw", "score", "token_overlay", "train", "wardrobe",
]  # fmt: skip

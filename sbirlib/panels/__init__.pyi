"""The names of `sbirlib.panels`: what type checkers see, and what is loaded when first asked for."""

from .base import Dials, Panel
from .data import demo_config, demo_pairs, fast
from .draw import DrawPage, DrawPanel, search_picture
from .model import RetrievalBrowser
from .training import TrainPanel, load_or_train

__all__ = [
    "Dials", "DrawPage", "DrawPanel", "Panel", "RetrievalBrowser", "TrainPanel", "demo_config",
    "demo_pairs", "fast", "load_or_train", "search_picture",
]  # fmt: skip

"""Panels of controls for the notebooks, and the data and model that these share."""

from sbirlib.data.strokes import Sheet
from sbirlib.panels.base import Dials, Panel
from sbirlib.panels.data import demo_config, demo_pairs, fast
from sbirlib.panels.draw import DrawPanel, search_picture
from sbirlib.panels.model import RetrievalBrowser
from sbirlib.panels.training import TrainPanel, load_or_train

__all__ = [
    "Dials", "DrawPanel", "Panel", "RetrievalBrowser", "Sheet", "TrainPanel",
    "demo_config", "demo_pairs", "fast", "load_or_train", "search_picture",
]  # fmt: skip

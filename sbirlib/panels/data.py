"""What the notebooks begin with: data and settings, smaller ones for a quick pass."""

import os
from pathlib import Path

from sbirlib.config import Config
from sbirlib.data import PairFolder
from sbirlib.miniclothes.dataset import draw_miniclothes


def fast() -> bool:
    """Whether the environment asks, with SBIR_FAST=1, for a quick pass through the notebooks."""
    return os.environ.get("SBIR_FAST") == "1"


def demo_pairs(folder: str | Path = "../data") -> PairFolder:
    """MiniClothes, drawn into `folder` on first use; an eighth of it if `fast()`."""
    small = {"photos": (60, 20), "sketches": (120, 40)} if fast() else {}
    name = "MiniClothes-fast" if small else "MiniClothes"
    return PairFolder(draw_miniclothes(Path(folder) / name, **small))


def demo_config(epochs: int | None = None, preset: str = "mini_full") -> Config:
    """A small preset, with another number of epochs if given; smaller in every way if `fast()`."""
    config = Config.preset(preset)
    epochs = epochs or config.run.epochs
    small = {"run.epochs": min(epochs, 12), "model.image_size": 48}
    return config.updated(small if fast() else {"run.epochs": epochs})

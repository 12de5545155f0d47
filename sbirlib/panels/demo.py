"""The data and the model that the notebooks share."""

import os
from pathlib import Path

from sbirlib.config.config import Config
from sbirlib.data.pairs import PairFolder
from sbirlib.methods.base import Method
from sbirlib.miniclothes.dataset import draw_miniclothes
from sbirlib.runs.folder import Run
from sbirlib.training.trainer import train


def load_or_train(pairs: PairFolder | str | Path, config: Config, *, out: str | Path) -> Method:
    """The model of run `out`; where there is none yet, it is trained first, and each epoch printed.

    A run that was stopped early is used as it is, with a message. A run that has not finished an epoch is
    replaced. Raises what `train` and `load_run` raise.
    """
    run = Run(out)
    if not run.folder(run.chosen).is_dir():
        print(f"{out} holds no run yet: training one, {config.run.epochs} epochs", flush=True)
        for record in train(pairs, config, out=out, overwrite=True):
            print(record, flush=True)
    model = run.model()
    if run.epochs < model.config.run.epochs:
        stopped = f"{out} was stopped after epoch {run.epochs} of {model.config.run.epochs}"
        resume = f"`python -m sbirlib train --out {out} --resume` goes on"
        print(f"{stopped}: this is what it has so far; {resume}")
    return model


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

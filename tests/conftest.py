"""Data that several test files share: a small MiniClothes, and a config that trains in a second."""

import os

# Downloads must fail at once, as on a machine without a network, not after a minute of retries.
os.environ["HF_HUB_OFFLINE"] = "1"
# Models as small as those of the tests are slower on two threads than on one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from sbirlib import Config, PairFolder
from sbirlib.miniclothes.dataset import draw_miniclothes
from sbirlib.training.trainer import train

TINY = {
    "model.image_size": 48,
    "model.embed_dim": 16,
    "optim.batch_size": 8,
    "run.epochs": 2,
    "optim.warmup": 0,
    "run.tracker": "none",
    "data.val_fraction": 0.25,
    "run.keep": "best",
    "loss.intra_every": 1,
    # After two epochs a CLS token says nearly the same of all pictures, and rounding would decide ranks.
    "model.pool": "mean",
}


@pytest.fixture(scope="session")
def clothes(tmp_path_factory):
    """A folder with 16 + 8 photos and 32 + 16 sketches."""
    root = tmp_path_factory.mktemp("data") / "MiniClothes"
    return draw_miniclothes(root, photos=(16, 8), sketches=(32, 16), size=64)


@pytest.fixture(scope="session")
def pairs(clothes):
    return PairFolder(clothes)


@pytest.fixture(scope="session")
def tiny():
    """The mini preset, made tiny."""
    return Config.preset("mini").updated(TINY)


@pytest.fixture(scope="session")
def run(pairs, tiny, tmp_path_factory):
    """A run folder of a tiny model trained for two epochs."""
    out = tmp_path_factory.mktemp("run") / "tiny"
    assert len(list(train(pairs, tiny, out=out))) == 2
    return out

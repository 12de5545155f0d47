"""The public API as a user writes it; mypy reads this file, and nothing runs it."""

from __future__ import annotations

from typing import assert_type

import torch
from torch import Tensor

from sbirlib import MSTR, ARNet, Config, Gallery, PairFolder, evaluate, load_run, train
from sbirlib.data.pairs import Report, Split
from sbirlib.methods import Method
from sbirlib.retrieval.gallery import Hit
from sbirlib.retrieval.scores import Scores
from sbirlib.runs.history import EpochRecord


def train_and_search() -> list[Hit]:
    config = Config.preset("mini").updated({"loss.temperature": 0.1, "run.epochs": 5})
    assert_type(config, Config)
    assert_type(config.loss.temperature, float)
    pairs = PairFolder("data/MiniClothes")
    assert_type(pairs.split("test"), Split)
    assert_type(pairs.report(), Report)
    for record in train(pairs, config, out="outputs/try"):
        assert_type(record, EpochRecord)
    model = load_run("outputs/try")
    assert_type(model, Method)
    scores = evaluate(model, pairs)
    assert_type(scores, Scores)
    gallery = Gallery.from_folder(model, "data/MiniClothes/testB")
    assert_type(gallery, Gallery)
    hits = gallery.search("my_sketch.png", k=10)
    assert_type(hits, list[Hit])
    return hits


def embed(images: Tensor) -> Tensor:
    model = ARNet.from_config(Config.preset("mini"))
    assert_type(model, ARNet)
    assert_type(model.embed_photos(images), Tensor)
    return model.embed_sketches(images)


def recycle() -> Tensor:
    mstr = MSTR(dim=768, grid=(14, 14), scales=(1, 2, 7))
    # A module's call is Any to torch; its loss is not.
    fused, cells = mstr(torch.rand(2, 768), torch.rand(2, 196, 768))
    loss = mstr.loss(cells)
    assert_type(loss, Tensor)
    return fused.mean() + loss

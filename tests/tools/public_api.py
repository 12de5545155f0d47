"""The public API as a user writes it; mypy reads this file, and nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from sbirlib import (
    DESIGNERS,
    METHODS,
    MSTR,
    ARNet,
    Config,
    Dials,
    DrawPanel,
    Epoch,
    Gallery,
    PairFolder,
    ReleasedMSTR,
    RetrievalBrowser,
    Sheet,
    TrainPanel,
    ablate,
    accuracy_of,
    attention_distance,
    attention_maps,
    compare,
    demo_config,
    demo_pairs,
    discard_curve,
    disturbed,
    draw_miniclothes,
    edge_map,
    embed_kept,
    embed_split,
    evaluate,
    fast,
    fit_square,
    global_attention,
    grid,
    image_grid,
    info_nce,
    interval_plot,
    kept_places,
    load_or_train,
    load_run,
    load_split,
    make_view,
    near_twins,
    paired_bootstrap,
    patch_attention,
    pseudo_sketches,
    published,
    read_image,
    read_rows,
    recording,
    recycled_tokens,
    recycling_shares,
    recycling_variance,
    redraw,
    render_photo,
    render_sketch,
    rollout,
    score,
    search_picture,
    summary,
    token_overlay,
    token_scores,
    token_similarity,
    train,
    training_curves,
    wardrobe,
)
from sbirlib.data.batches import Batch
from sbirlib.data.loading import LoadedSplit
from sbirlib.data.pairs import Report
from sbirlib.data.recordings import Recording
from sbirlib.data.splits import Split
from sbirlib.methods.base import Method
from sbirlib.miniclothes.dataset import Twin
from sbirlib.miniclothes.garments import Wardrobe
from sbirlib.retrieval.intervals import Accuracy, Difference
from sbirlib.retrieval.scores import Scores
from sbirlib.retrieval.search import Hit
from sbirlib.runs.records import EpochRecord


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


def look_closer(model: ARNet) -> Tensor:
    config = Config.preset("mini")
    data = load_split(PairFolder("data/MiniClothes").split("train"), config.data, 96)
    assert_type(data, LoadedSplit)
    assert_type(read_image(data.split.photos[0].path), Image.Image)
    batch = Epoch(data, config.data, seed=0, epoch=1).batch(torch.arange(16), "cpu")
    assert_type(batch, Batch)
    assert_type(model.compare(model.encode(batch), batch), dict[str, Tensor])
    assert_type(score(np.eye(3), np.arange(3)), Scores)
    assert_type(accuracy_of(6, 10), Accuracy)
    assert_type(paired_bootstrap([[1, 2]], [[1, 1]], ["a", "b"]), Difference)
    assert_type(near_twins("data/MiniClothes"), dict[str, Twin])
    assert_type(draw_miniclothes("data/MiniClothes"), Path)
    assert_type(recording(data.split.sketches[0]), Recording)
    assert_type(wardrobe(), Wardrobe)
    assert_type(demo_pairs(), PairFolder)
    assert_type(image_grid([np.zeros((8, 8, 3))], ["black"]), Figure)
    assert_type(token_overlay(np.zeros((8, 8, 3)), [np.zeros((2, 2))], ["map"]), Figure)
    assert_type(published.results("ChairV2"), Any)
    drawn = pseudo_sketches(data.photos / 255, torch.rand(len(data.photos), 4))
    assert_type(make_view(data.photos / 255, "A1", torch.rand(len(data.photos), 9), config.data), Tensor)
    assert_type(redraw(drawn, torch.rand(len(drawn), 64), 0.5), Tensor)
    return edge_map(fit_square(data.photos / 255, 96, "pad"))


def known() -> list[object]:
    """What the notebooks also use: a type checker finds each name."""
    return [
        DESIGNERS,
        METHODS,
        Dials,
        DrawPanel,
        ReleasedMSTR,
        RetrievalBrowser,
        Sheet,
        TrainPanel,
        ablate,
        attention_distance,
        attention_maps,
        compare,
        demo_config,
        discard_curve,
        disturbed,
        embed_kept,
        embed_split,
        fast,
        global_attention,
        grid,
        info_nce,
        interval_plot,
        kept_places,
        load_or_train,
        patch_attention,
        read_rows,
        recycled_tokens,
        recycling_shares,
        recycling_variance,
        render_photo,
        render_sketch,
        rollout,
        search_picture,
        summary,
        token_scores,
        token_similarity,
        training_curves,
    ]

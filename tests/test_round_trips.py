"""Every kind of backbone, in every kind of model, through everything that a run goes through."""

import itertools

import pytest
import tools.tiny_models  # noqa: F401  # timm knows them from here on
import torch
from tools.round_trip import assert_alike, trained, view

from sbirlib import PairFolder, load_run, train
from sbirlib.miniclothes.dataset import draw_miniclothes
from sbirlib.runs.folder import Run, describe
from sbirlib.runs.model import load_model_folder, save_model_folder

# The kinds of backbones, by a tiny one each, with the images that it sees.
BACKBONES = {
    "sbir_mini": 48,
    "test_resnet": 64,  # BatchNorm
    "test_efficientnet": 64,  # BatchNorm
    "tf_efficientnet_lite0": 32,  # an earlier map, a grid of means, parts frozen, framed, growing
    "tiny_swin": 64,
    "test_vit": 64,  # CLS
    "tiny_vit_without_cls": 64,
    "tiny_vit_with_registers": 64,  # CLS and registers
    "test_vit2": 64,  # a register, no CLS
}
SETTINGS = {
    "tf_efficientnet_lite0": {
        "data.fit": "frame",
        "model.stride": 8,
        "model.pool": "grid",
        "model.cells": 2,
        "model.freeze": 2,
        "model.keep_statistics": True,
        "model.pointwise_only": True,
        "run.sizes": (0.5, 1),
        "mstr.heads": 2,
        "mstr.channels": 8,
    }
}
ON_OFF = (False, True)
COMBINATIONS = list(itertools.product(BACKBONES, ON_OFF, ON_OFF, ON_OFF))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models as small as these are slower on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A folder with 8 + 4 photos and a sketch of each: three steps of two pairs."""
    root = tmp_path_factory.mktemp("few") / "MiniClothes"
    return PairFolder(draw_miniclothes(root, photos=(8, 4), sketches=(8, 4), size=48))


@pytest.mark.parametrize(
    ("backbone", "share", "recycle", "edges"),
    COMBINATIONS,
    ids=[
        "-".join([name, *(word for word, on in zip(("shared", "mstr", "edges"), flags, strict=True) if on)])
        for name, *flags in COMBINATIONS
    ],
)
def test_a_run_survives_all_that_happens_to_it(
    few, tiny, tmp_path, monkeypatch, backbone, share, recycle, edges
):
    config = tiny.updated(
        {
            "model.backbone": backbone,
            "model.image_size": BACKBONES[backbone],
            "model.share_encoders": share,
            "model.photo_edges": edges,
            "model.pool": "cls",
            "mstr.enabled": recycle,
            "mstr.scales": (1, 2),
            "mstr.heads": 2,
            "mstr.feedforward": 32,
            "optim.batch_size": 2,
            "run.epochs": 1,
            "run.precision": "fp32",
            "run.device": "cpu",
        }
        | SETTINGS.get(backbone, {})
    )
    # Git is asked at every start, which takes a while.
    monkeypatch.setattr("sbirlib.runs.records.code_state", lambda: "not asked for")
    whole, out, moved, again = (tmp_path / name for name in ("whole", "run", "moved", "again"))
    [record], expected = trained(monkeypatch, few, config, whole)
    assert record.losses["total"] > 0

    records, _ = trained(monkeypatch, few, config, out, stop_after=2)
    assert (records, [place.name for place in Run(out).checkpoints]) == ([], ["000001-000002"])
    out.rename(moved)
    [record], live = trained(monkeypatch, few, config, moved, resume=True)
    first, second = expected.state_dict(), live.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)

    loaded, gallery = load_run(moved, "last"), tmp_path / "photos.safetensors"
    sketch, photo = (
        {id(part) for part in (*encoder.embed.parameters(), *encoder.backbone.encoder.buffers())}
        for encoder in (loaded.sketch_encoder, loaded.photo_encoder)
    )
    assert sketch == photo if share else not sketch & photo
    seen = view(live, few, gallery)
    assert_alike(view(loaded, few, gallery), seen)
    assert f"backbone: {backbone}" in describe(moved)

    moved.rename(again)
    assert_alike(view(load_run(again), few, gallery), seen)
    save_model_folder(tmp_path / "alone", loaded, config)
    assert_alike(view(load_model_folder(tmp_path / "alone"), few, gallery), seen)
    assert list(train(few, config, out=again, resume=True)) == []
    assert f"backbone: {backbone}" in describe(again)

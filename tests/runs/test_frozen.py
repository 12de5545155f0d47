"""Backbones that nobody trained."""

import pickle
from pathlib import Path

import pytest
import timm
import torch

from sbirlib import ARNet
from sbirlib.layers.backbone import Backbone, BackboneError
from sbirlib.retrieval.scores import evaluate
from sbirlib.runs.model import load_frozen


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harm-was-done"),))


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("harm.pth").write_bytes(pickle.dumps({"fc.weight": Harmful()}, protocol=2))
    torch.save({"fc.weight": Harmful()}, "harm2.pth")
    for name in ("harm.pth", "harm2.pth"):
        with pytest.raises(BackboneError, match="not a file of weights"):
            Backbone("resnet18", weights=name)
        with pytest.raises(BackboneError, match="not a file of weights"):
            load_frozen("resnet18", weights=name)
    assert not Path("harm-was-done").exists()


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    """Weights of a small ViT of CLIP's kind, in a file."""
    torch.manual_seed(1)
    encoder = Backbone("vit_tiny_patch16_224").encoder
    path = tmp_path_factory.mktemp("tower") / "tower.pth"
    torch.save(encoder.state_dict(), path)
    return path


def test_a_frozen_backbone_is_scored_like_any_model(tower, pairs):
    model = load_frozen("vit_tiny_patch16_224", weights=tower)
    images = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(model.embed_sketches(images), model.embed_photos(images))
        own = model.photo_encoder.backbone.encoder((images - 0.5) / 0.5)
        torch.testing.assert_close(model.photo_encoder(images), own)
    told = f"backbone vit_tiny_patch16_224, frozen, file {tower}: nothing was trained"
    assert told in evaluate(model, pairs).protocol


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tiny_patch16_224", "published weights of 'vit_tiny_patch16_224'"),
        ("vit_tinny", "unknown backbone 'vit_tinny'"),
        ("resnet18.foo", "unknown backbone 'resnet18.foo'; did you mean resnet18"),
        ("sbir_mini", "'sbir_mini' has no published weights"),
    ],
)
def test_a_frozen_backbone_that_cannot_be_had(name, message):
    with pytest.raises(BackboneError, match=message):
        load_frozen(name)


def test_a_backbone_that_pools_to_another_width_is_scored_frozen_but_not_recycled(tmp_path):
    torch.manual_seed(0)
    torch.save(timm.create_model("mobilenetv3_small_050").state_dict(), tmp_path / "w.pth")
    model = load_frozen("mobilenetv3_small_050", weights=tmp_path / "w.pth")
    embedding = model.embed_photos(torch.rand(1, 3, 224, 224))
    assert embedding.shape[1] != model.photo_encoder.backbone.encoder.num_features
    with pytest.raises(BackboneError, match="MSTR cannot mix them"):
        ARNet("mobilenetv3_small_050", pool="own", mstr={"scales": (1,)})


# CLIP, SigLIP and DINOv2 pool in three ways: CLS token, attention, CLS token beside registers.
@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch32_clip_224.openai",
        "vit_base_patch16_siglip_224.webli",
        "vit_small_patch14_reg4_dinov2.lvd142m",
    ],
)
def test_towers_by_name_pool_as_the_model_itself_does(name):
    size = 224 if "dinov2" not in name else 70
    backbone = Backbone(name, image_size=size, pool="own").eval()
    images = torch.rand(1, 3, size, size)
    with torch.inference_mode():
        mean, std = backbone.mean[:, None, None], backbone.std[:, None, None]
        torch.testing.assert_close(backbone(images).cls, backbone.encoder((images - mean) / std))

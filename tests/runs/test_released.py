"""Checkpoints of the released code, and backbones that nobody trained."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from golden.formula import fill, image

from sbirlib import ARNet
from sbirlib.cli.app import main
from sbirlib.layers.backbone import Backbone, BackboneError
from sbirlib.layers.mstr import MSTR
from sbirlib.retrieval.scores import evaluate
from sbirlib.runs.atomic import RunError
from sbirlib.runs.model import load_frozen, load_released

FOLDER = Path(__file__).parents[1] / "golden"
KEYS = json.loads((FOLDER / "golden.json").read_text())["keys"]["arnet_basic"]
GOLDEN = np.load(FOLDER / "golden_arnet_basic.npz")
REST = {"epoch": 3, "loss": 1.5, "top1": 70.0, "top5": 90.0, "top10": 95.0}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file in the released layout with the weights of the golden numbers."""
    states = {
        side: {name: torch.from_numpy(fill(f"{side}.{name}", tuple(shape))) for name, shape in KEYS[side]}
        for side in ("img_model", "skt_model")
    }
    path = tmp_path_factory.mktemp("released") / "model_Best.pth"
    torch.save(states | REST, path)
    yield path
    path.unlink()  # 700 MB


@pytest.fixture(scope="module")
def released(checkpoint):
    return load_released(checkpoint)


def test_a_released_checkpoint_gives_the_released_numbers(released):
    images = torch.from_numpy(np.stack([image(i) for i in range(3)]))
    with torch.inference_mode():
        for side, embed, encoder in (
            ("img_model", released.embed_photos, released.photo_encoder),
            ("skt_model", released.embed_sketches, released.sketch_encoder),
        ):
            golden = torch.from_numpy(GOLDEN[f"{side}_embedding"])
            np.testing.assert_allclose(encoder(images), golden, atol=2e-4)
            unit = torch.nn.functional.normalize(golden, dim=-1)
            np.testing.assert_allclose(embed(images), unit, atol=2e-4)
            cls, patches = encoder.backbone(images)
            np.testing.assert_allclose(cls, GOLDEN[f"{side}_cls"], atol=2e-4)
            mean = torch.cat([cls[:, None], patches], dim=1).mean(dim=1)
            np.testing.assert_allclose(mean, GOLDEN[f"{side}_tokens_mean"], atol=2e-4)


def test_a_released_checkpoint_is_scored_from_the_command_line(checkpoint, pairs, capsys):
    assert main(["evaluate", "--released", str(checkpoint), "--data.root", str(pairs.root)]) == 0
    printed = capsys.readouterr().out
    assert "/16, 95 % CI" in printed
    assert "released checkpoint model_Best.pth" in printed


def full_states(complete):
    """The smallest file that is recognised as a full model, or one of ViT-B with all that was saved."""
    recycling = {"recycle_model.fc.weight": torch.ones(1, 249), "recycle_model.fc.bias": torch.zeros(1)}
    if not complete:
        return {"img_model": recycling, "skt_model": recycling}
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(shape, generator=generator) * 0.02 for name, shape in KEYS["img_model"]
    } | recycling
    return {"img_model": state, "skt_model": state}


def test_a_full_checkpoint_is_refused_with_what_it_lacks(tmp_path, pairs, capsys):
    path = tmp_path / "full.pth"
    torch.save(full_states(complete=False) | REST, path)
    with pytest.raises(RunError, match=r"lacks the MSTR transformers \(recycle_model.transformer_models"):
        load_released(path)
    assert main(["evaluate", "--released", str(path), "--data.root", str(pairs.root)]) == 2
    assert "take a checkpoint of the basic model" in capsys.readouterr().err


def test_a_full_checkpoint_that_holds_its_transformers_is_loaded_whole(tmp_path):
    states = full_states(complete=True)
    transformers = {
        f"recycle_model.transformer_models.{name}": value
        for name, value in MSTR(768, (14, 14)).transformers.state_dict().items()
    }
    torch.save({side: state | transformers for side, state in states.items()}, tmp_path / "full.pth")
    model = load_released(tmp_path / "full.pth")
    assert "random" not in model.origin
    images = torch.from_numpy(np.stack([image(0)]))
    with torch.inference_mode():
        assert torch.equal(model.embed_photos(images), model.embed_photos(images))
    name, cut = "0.layers.1.linear1.weight", "recycle_model.transformer_models.2.layers.1.norm2.bias"
    loaded = model.sketch_encoder.mstr.transformers.state_dict()[name]
    assert torch.equal(loaded, transformers[f"recycle_model.transformer_models.{name}"])
    del transformers[cut]
    torch.save({side: state | transformers for side, state in states.items()}, tmp_path / "full.pth")
    with pytest.raises(RunError, match=r"Missing key.*transformers.2.layers.1.norm2.bias"):
        load_released(tmp_path / "full.pth")


def test_other_files_are_refused_by_name(tmp_path, released):
    path = tmp_path / "file.pth"
    with pytest.raises(BackboneError, match=r"file\.pth: cannot be read \(No such file"):
        load_released(path)
    for content in (b"no checkpoint at all", b"hello world", b"R1", b"s", b""):
        path.write_bytes(content)
        with pytest.raises(BackboneError, match=r"file\.pth: is damaged, or not a file of weights"):
            load_released(path)
    torch.save({"weights": {}, "epoch": 1}, path)
    with pytest.raises(RunError, match="needs img_model and skt_model, found weights, epoch"):
        load_released(path)
    torch.save({"img_model": {0: torch.ones(1)}, "skt_model": {}}, path)
    with pytest.raises(RunError, match="img_model holds something else than named tensors"):
        load_released(path)
    torch.save([1, 2], path)
    with pytest.raises(BackboneError, match="not a file of weights"):
        load_released(path)
    torch.save({"img_model": {"features.0.weight": torch.ones(1)}, "skt_model": {}}, path)
    with pytest.raises(
        RunError, match=r"skt_model is no ViT-B/16 .* in the released layout \(Missing key.*cls_token"
    ):
        load_released(path)
    other_size = {"encoder.cls_token": torch.zeros(1, 1, 192)}
    torch.save({"img_model": other_size, "skt_model": other_size}, path)
    with pytest.raises(RunError, match=r"skt_model is no ViT-B/16 with e = 512"):
        load_released(path)


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harm-was-done"),))


def test_nothing_in_a_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("harm.pth").write_bytes(pickle.dumps({"img_model": Harmful(), "skt_model": {}}, protocol=2))
    with pytest.raises(BackboneError, match="not a file of weights"):
        load_released("harm.pth")
    with pytest.raises(BackboneError, match="not a file of weights"):
        Backbone("resnet18", weights="harm.pth")
    torch.save({"img_model": Harmful(), "skt_model": {}}, "harm2.pth")
    with pytest.raises(BackboneError, match="not a file of weights"):
        load_released("harm2.pth")
    assert not Path("harm-was-done").exists()


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    """Weights of a small ViT of CLIP's kind, in a file."""
    torch.manual_seed(1)
    encoder = Backbone("vit_tiny_patch16_224").encoder
    path = tmp_path_factory.mktemp("tower") / "tower.pth"
    torch.save(encoder.state_dict(), path)
    return path


def test_a_frozen_backbone_is_scored_like_any_model(tower, pairs, capsys):
    model = load_frozen("vit_tiny_patch16_224", weights=tower)
    images = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(model.embed_sketches(images), model.embed_photos(images))
        own = model.photo_encoder.backbone.encoder((images - 0.5) / 0.5)
        torch.testing.assert_close(model.photo_encoder(images), own)
    assert "frozen" in evaluate(model, pairs).protocol
    assert (
        main(
            [
                "evaluate",
                "--frozen",
                "vit_tiny_patch16_224",
                "--weights",
                str(tower),
                "--data.root",
                str(pairs.root),
            ]
        )
        == 0
    )
    assert (
        f"backbone vit_tiny_patch16_224, frozen, file {tower}: nothing was trained" in capsys.readouterr().out
    )


def test_a_frozen_backbone_that_cannot_be_had(pairs, capsys):
    for words, message in (
        (["--frozen", "vit_tiny_patch16_224"], "published weights of 'vit_tiny_patch16_224'"),
        (["--frozen", "vit_tinny"], "unknown backbone 'vit_tinny'"),
        (["--frozen", "resnet18.foo"], "'resnet18' has no weights tagged 'foo'; it has: a1_in1k"),
        (["--frozen", "sbir_mini"], "'sbir_mini' has no published weights"),
        (["--frozen", "resnet18", "--run", "x"], "found run and frozen"),
        (["--run", "x", "--weights", "y"], "--weights goes with --frozen"),
        ([], "found none"),
    ):
        assert main(["evaluate", *words, "--data.root", str(pairs.root)]) == 2
        assert message in capsys.readouterr().err


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

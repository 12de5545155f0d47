import copy
import errno
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from tools.batches import batch_of, loss_of

from sbirlib import ARNet
from sbirlib.data.transforms import fit_square
from sbirlib.layers.backbone import Backbone, BackboneError


@pytest.mark.parametrize(
    ("name", "size", "grid", "has_cls"),
    [
        ("sbir_mini", 96, (8, 8), True),
        ("vit_tiny_patch16_224", 224, (14, 14), True),
        ("resnet18", 224, (7, 7), False),
        ("swin_tiny_patch4_window7_224", 224, (7, 7), False),
        ("vit_small_patch14_reg4_dinov2", 70, (5, 5), True),
    ],
)
def test_any_timm_model_is_a_global_token_and_a_grid(name, size, grid, has_cls):
    backbone = Backbone(name, image_size=size).eval()
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        cls, patches = backbone(images)
    assert backbone.grid == grid
    assert cls.shape == (2, backbone.dim)
    assert patches.shape == (2, grid[0] * grid[1], backbone.dim)
    is_mean = torch.allclose(cls, patches.mean(dim=1), atol=1e-6)
    assert is_mean != has_cls


def test_mean_pooling_of_a_model_with_a_cls_token():
    backbone = Backbone("sbir_mini", image_size=96, pool="mean").eval()
    cls, patches = backbone(torch.rand(1, 3, 96, 96))
    torch.testing.assert_close(cls, patches.mean(dim=1))


@pytest.mark.parametrize(
    ("name", "pool", "uses"),
    [
        ("vit_tiny_patch16_224", "cls", True),
        ("vit_tiny_patch16_224", "mean", False),
        ("vit_tiny_patch16_224", "own", True),
        ("vit_base_patch16_siglip_224", "own", False),
        ("test_vit2", "cls", False),
        ("test_vit2", "own", False),
        ("test_vit3", "cls", False),
        ("vit_small_patch14_reg4_dinov2", "cls", True),
        ("resnet18", "cls", False),
    ],
)
def test_which_global_token_is_the_cls_token(name, pool, uses):
    assert Backbone(name, pool=pool).uses_cls == uses


def test_registers_are_left_out_and_a_norm_after_pooling_is_used():
    own, mean = (Backbone("test_vit2", image_size=64, pool=pool).eval() for pool in ("own", "cls"))
    mean.load_state_dict(own.state_dict())
    images = torch.rand(2, 3, 64, 64)
    # What the model itself makes of the patch tokens; its register is the first token.
    normalised = (images - own.mean[:, None, None]) / own.std[:, None, None]
    features = own.encoder.forward_features(normalised)[:, 1:]
    for backbone in (own, mean):
        torch.testing.assert_close(backbone(images).cls, own.encoder(normalised))
        torch.testing.assert_close(backbone(images).patches, own.encoder.fc_norm(features))


def test_normalises_with_the_models_own_mean_and_std():
    backbone = Backbone("vit_tiny_patch16_224").eval()
    assert backbone.mean.tolist() == pytest.approx(backbone.encoder.pretrained_cfg["mean"])
    images = torch.rand(1, 3, 224, 224)
    normalised = (images - backbone.mean[:, None, None]) / backbone.std[:, None, None]
    expected = backbone.encoder.forward_features(normalised)[:, 0]
    torch.testing.assert_close(backbone(images).cls, expected)


def test_unknown_tag_names_those_there_are():
    with pytest.raises(
        BackboneError, match=r"unknown backbone 'vit_base_patch16_clip_224.opanai'; did you mean .*openai"
    ):
        Backbone("vit_base_patch16_clip_224.opanai", pretrained=True)


def test_unknown_name_suggests_near_ones():
    with pytest.raises(BackboneError, match=r"unknown backbone 'resnet19'; did you mean resnet18"):
        Backbone("resnet19")


def test_missing_weights_name_the_model_the_cache_and_the_ways_out():
    with pytest.raises(BackboneError) as error:
        Backbone("resnet18", pretrained=True)
    message = str(error.value)
    assert "'resnet18'" in message
    assert "huggingface" in message
    assert "once with a network" in message
    assert "--model.no-pretrained" in message


@pytest.fixture
def weights(tmp_path):
    """A ResNet-18 with its classifier, as training scripts save it."""
    torch.manual_seed(3)
    model = timm.create_model("resnet18", num_classes=1000)
    torch.save({"state_dict": model.state_dict(), "epoch": 1}, tmp_path / "w.pth")
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()}, tmp_path / "w.safetensors"
    )
    return model, tmp_path


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_weights_come_from_a_local_file(weights, name):
    model, folder = weights
    backbone = Backbone("resnet18", weights=folder / name)
    assert backbone.source == f"file {folder / name}"
    for key, value in backbone.encoder.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    assert "state_dict" not in backbone.encoder.pretrained_cfg


def test_weights_of_another_size_are_fitted_as_timm_does(tmp_path):
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), tmp_path / "w.pth")
    backbone = Backbone("vit_tiny_patch16_224", image_size=96, weights=tmp_path / "w.pth")
    assert backbone.grid == (6, 6)


def test_the_minis_own_weights_are_not_drawn_over(tmp_path):
    encoder = Backbone("sbir_mini", image_size=48).encoder
    torch.save(encoder.state_dict(), tmp_path / "w.pth")
    again = Backbone("sbir_mini", image_size=48, weights=tmp_path / "w.pth").encoder
    assert torch.equal(again.pos_embed, encoder.pos_embed)


def test_files_that_hold_no_fitting_weights_are_refused_by_name(weights):
    _, folder = weights
    for name, content in (
        ("text.pth", b"words"),
        ("text.safetensors", b"words"),
        ("empty.pth", b""),
        ("key.pth", b"hello world"),
        ("index.pth", b"s"),
        ("call.pth", b"R1"),
    ):
        (folder / name).write_bytes(content)
        with pytest.raises(BackboneError, match=rf"{name}: is damaged, or not a file of weights"):
            Backbone("resnet18", weights=folder / name)
    torch.save({}, folder / "none.pth")
    with pytest.raises(BackboneError, match=r"none\.pth: is damaged, or not a file of weights \(it is empty"):
        Backbone("resnet18", weights=folder / "none.pth")
    torch.save([1, 2], folder / "list.pth")
    with pytest.raises(BackboneError, match=r"list\.pth: is damaged, or not a file of weights"):
        Backbone("resnet18", weights=folder / "list.pth")
    with pytest.raises(BackboneError, match=r"nowhere\.pth: cannot be read \(No such file"):
        Backbone("resnet18", weights=folder / "nowhere.pth")
    with pytest.raises(BackboneError, match=r"w\.pth: does not hold the weights of 'resnet50'"):
        Backbone("resnet50", weights=folder / "w.pth")
    with pytest.raises(BackboneError, match=r"w\.pth: does not hold the weights of 'vit_tiny_patch16_224'"):
        Backbone("vit_tiny_patch16_224", weights=folder / "w.pth")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_weights_that_cannot_be_read_are_not_called_damaged(weights, monkeypatch, name):
    path = weights[1] / name
    with monkeypatch.context() as patch:
        patch.setattr(
            "sbirlib.layers.weights.load_state_dict", failing(OSError(errno.EIO, "Input/output error"))
        )
        with pytest.raises(BackboneError, match=rf"{name}: cannot be read \(Input/output error\)"):
            Backbone("resnet18", weights=path)
        patch.setattr("sbirlib.layers.weights.load_state_dict", failing(MemoryError()))
        with pytest.raises(MemoryError):
            Backbone("resnet18", weights=path)
    monkeypatch.setattr(Path, "open", failing(PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(BackboneError, match=rf"{name}: cannot be read \(Permission denied\)"):
        Backbone("resnet18", weights=path)


def failing(error):
    """A function that raises `error`, whatever it is called with."""

    def fail(*args, **options):
        raise error

    return fail


def test_without_normalisation_images_go_in_as_they_are():
    backbone = Backbone("vit_tiny_patch16_224", normalise=False).eval()
    images = torch.rand(1, 3, 224, 224)
    torch.testing.assert_close(backbone(images).cls, backbone.encoder.forward_features(images)[:, 0])


@pytest.mark.parametrize(
    ("name", "pool", "expected"),
    [
        ("test_resnet", "mean", True),
        ("test_efficientnet", "own", True),
        ("test_convnext", "mean", True),
        ("sbir_mini", "cls", False),
        ("test_vit", "cls", False),
        ("swin_tiny_patch4_window7_224", "own", False),
    ],
)
def test_cnns_run_in_channels_last_and_keep_their_weights_as_they_are(name, pool, expected):
    size = 224 if name.startswith("swin") else 96
    backbone = Backbone(name, image_size=size, pool=pool).eval()
    seen = []
    first = next(module for module in backbone.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    found = backbone(images)
    found.patches.square().mean().backward()
    assert seen[0].is_contiguous(memory_format=torch.channels_last) is expected
    assert all(weight.is_contiguous() for weight in backbone.state_dict().values())
    # The other layout, the same maths.
    normalised = (images - backbone.mean[:, None, None]) / backbone.std[:, None, None]
    torch.testing.assert_close(found, backbone._tokens(backbone._features(normalised)))


# The paper's backbones by their smallest siblings, and others; the slow test below has the five themselves.
SIBLINGS = [
    ("vgg11", 224, (1, 7)),
    ("resnet18", 224, (1, 7)),
    ("inception_v3", 107, (1, 2)),
    ("vit_tiny_patch16_224", 224, (1, 2, 7)),
    ("swin_tiny_patch4_window7_224", 224, (1, 7)),
    # Registers and no CLS, and a norm after pooling: several processes would wait for a weight not used.
    ("test_vit2", 64, (1, 2)),
]
PAPERS = [
    ("vgg16", 224, (1, 7)),
    ("resnet50", 224, (1, 7)),
    ("inception_v3", 299, (1, 2, 8)),
    ("vit_base_patch16_224", 224, (1, 2, 7)),
    ("swin_base_patch4_window7_224", 224, (1, 7)),
]


def one_training_step(name, size, mstr):
    """Forward, backward and one step of the optimiser: every parameter has a gradient, and moves with it."""
    torch.manual_seed(0)
    model = ARNet(name, image_size=size, embed_dim=32, mstr=mstr)
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss = loss_of(model, batch_of(torch.rand(4, 3, 3, size, size)))
    loss.backward()
    assert [key for key, value in model.named_parameters() if value.grad is None] == []
    optimizer.step()
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    # A ResNet's blocks begin with a last norm of 0, which keeps the gradient from what is before it.
    assert moved == {key for key, value in model.named_parameters() if value.grad.any()}
    assert {
        key for key in before if not key.startswith(("sketch_encoder.backbone", "photo_encoder.backbone"))
    } <= moved
    assert loss.isfinite()
    assert (model.photo_encoder.mstr is None) == (mstr is None)


@pytest.mark.parametrize("recycle", [False, True], ids=["basic", "with MSTR"])
@pytest.mark.parametrize(("name", "size", "scales"), SIBLINGS, ids=[name for name, *_ in SIBLINGS])
def test_one_training_step_of_the_papers_families(name, size, scales, recycle):
    one_training_step(name, size, {"scales": scales, "feedforward": 64} if recycle else None)


@pytest.mark.slow
@pytest.mark.parametrize("recycle", [False, True], ids=["basic", "with MSTR"])
@pytest.mark.parametrize(("name", "size", "scales"), PAPERS, ids=[name for name, *_ in PAPERS])
def test_one_training_step_of_the_papers_backbones(name, size, scales, recycle):
    one_training_step(name, size, {"scales": scales} if recycle else None)


def test_mini_has_no_published_weights():
    with pytest.raises(BackboneError, match="'sbir_mini' has no published weights"):
        Backbone("sbir_mini", image_size=96, pretrained=True)


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("sbir_mini", 50, "50 px: that is no multiple of patch size 12"),
        ("crossvit_tiny_240", 240, "does not give one map of features"),
    ],
)
def test_what_has_no_grid_of_tokens_is_refused(name, size, words):
    with pytest.raises(BackboneError, match=words):
        Backbone(name, image_size=size)


def test_pad_keeps_proportions_on_white():
    wide = torch.zeros(1, 3, 20, 40)
    square = fit_square(wide, 40, "pad")
    assert square.shape == (1, 3, 40, 40)
    assert square[..., :10, :].min() == 1
    assert square[..., 30:, :].min() == 1
    assert square[..., 10:30, :].max() == 0


def test_stretch_fills_the_square():
    assert fit_square(torch.zeros(1, 3, 20, 40), 40, "stretch").max() == 0


def test_fit_square_treats_uint8_as_it_treats_floats():
    images = torch.randint(
        0, 256, (2, 3, 50, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    as_bytes = fit_square(images, 32, "pad").float() / 255
    as_floats = fit_square(images.float() / 255, 32, "pad")
    assert (as_bytes - as_floats).abs().max() <= 1.01 / 255


def test_an_image_that_fits_is_not_touched():
    images = torch.rand(1, 3, 32, 32)
    assert fit_square(images, 32, "pad") is images


def box(square):
    """First and last row, first and last column (4,) with something dark in them."""
    _, rows, columns = torch.nonzero(square < 0.5).T
    return torch.stack([rows.min(), rows.max(), columns.min(), columns.max()])


@pytest.mark.parametrize("ground", [1.0, 0.9])
def test_a_framed_thing_is_as_large_wherever_it_was(ground):
    pictures = [torch.full((3, *shape), ground) for shape in ((64, 64), (90, 50), (40, 40), (300, 400))]
    for picture, (top, left, height, width) in zip(
        pictures, [(1, 2, 16, 32), (60, 10, 18, 36), (3, 0, 18, 36), (100, 200, 60, 120)], strict=True
    ):
        picture[:, top : top + height, left : left + width] = 0.2
    squares = torch.cat([fit_square(picture[None], 40, "frame") for picture in pictures])
    assert squares.shape == (4, 3, 40, 40)
    # All but a pixel of 40 to either side, half as high, in the middle, on white.
    expected = torch.tensor([10, 28, 1, 38])
    assert all((box(square) - expected).abs().max() <= 2 for square in squares)
    assert (squares[..., [0, -1], :] == 1).all()
    as_bytes = fit_square((255 * pictures[3][None]).round().to(torch.uint8), 40, "frame")
    assert (as_bytes / 255 - squares[3]).abs().max() <= 2 / 255


@pytest.mark.parametrize("picture", [torch.full((1, 3, 30, 20), 0.95), 0.5 * torch.rand(1, 3, 30, 20)])
def test_a_blank_sheet_and_a_dark_picture_are_only_padded(picture):
    torch.testing.assert_close(fit_square(picture, 40, "frame"), fit_square(picture, 40, "pad"))


@pytest.mark.parametrize(
    ("name", "size", "stride", "width"),
    [("resnet18", 64, 16, 256), ("tf_efficientnet_lite0", 64, 16, 112), ("convnext_atto", 64, 8, 80)],
)
def test_a_map_of_an_earlier_stage_is_the_last_one_of_a_shorter_model(name, size, stride, width):
    whole, cut = Backbone(name, image_size=size).eval(), Backbone(name, image_size=size, stride=stride).eval()
    kept = cut.state_dict().keys()
    assert kept < whole.state_dict().keys()
    cut.load_state_dict({key: value for key, value in whole.state_dict().items() if key in kept})
    images = torch.rand(2, 3, size, size)
    cls, patches = cut(images)
    side = size // stride
    assert (cut.width, cut.dim, cut.grid) == (width, width, (side, side))
    normalised = (images - whole.mean[:, None, None]) / whole.std[:, None, None]
    maps = whole.encoder.forward_intermediates(normalised, intermediates_only=True)
    expected = next(features for features in maps if features.shape[-1] == side)
    torch.testing.assert_close(patches, expected.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(cls, patches.mean(dim=1))


@pytest.mark.parametrize("name", ["sbir_mini", "resnet18"])
def test_a_grid_of_means_knows_what_is_where(name):
    backbone = Backbone(
        name, image_size=96, stride=0 if name == "sbir_mini" else 8, pool="grid", cells=2
    ).eval()
    cls, patches = backbone(torch.rand(2, 3, 96, 96))
    side = backbone.grid[0]
    assert backbone.dim == 4 * backbone.width == cls.shape[1]
    maps = patches.reshape(2, side, side, -1)
    corner = maps[:, side // 2 :, : side // 2].mean(dim=(1, 2))
    torch.testing.assert_close(cls.reshape(2, 4, -1)[:, 2], corner, atol=1e-5, rtol=1e-4)


def test_frozen_parts_and_statistics_stay_as_they_are():
    options = {"image_size": 64, "stride": 16, "pool": "grid", "share_encoders": True, "embed_dim": 16}
    torch.manual_seed(0)
    model = ARNet("tf_efficientnet_lite0", freeze=3, keep_statistics=True, **options).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_of(model, batch_of(torch.rand(4, 4, 3, 64, 64))).backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    parts = {name.partition("backbone.encoder.")[2] for name in changed}
    assert not any(name.startswith(("conv_stem", "bn1.", "blocks.0.", "blocks.1.")) for name in parts)
    assert any(name.startswith("blocks.2.") for name in parts)
    assert not any("running" in name or "batches" in name for name in parts)
    free = ARNet("tf_efficientnet_lite0", **options).train()
    loss_of(free, batch_of(torch.rand(4, 4, 3, 64, 64)))
    assert any((value != 0).any() for name, value in free.state_dict().items() if "running_mean" in name)


def test_only_pointwise_convolutions_learn_and_their_gradients_are_those_of_before():
    torch.manual_seed(0)
    options = {"image_size": 64, "freeze": 3, "keep_statistics": True}
    some, every = (
        Backbone("tf_efficientnet_lite0", pointwise_only=only, **options).train() for only in (True, False)
    )
    every.load_state_dict(some.state_dict())
    images = torch.rand(2, 3, 64, 64)
    for backbone in (some, every):
        backbone(images).patches.square().sum().backward()
    learning = {name: weight.grad for name, weight in some.encoder.named_parameters() if weight.requires_grad}
    kinds = {name.split(".")[-2] for name in learning}
    assert kinds == {"conv_pw", "conv_pwl", "conv_head"}
    for name, gradient in learning.items():
        expected = every.encoder.get_parameter(name).grad
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"stride": 5}, "stride = 5: no such map to stop at (those of 'resnet18' are 2, 4, 8, 16, 32 px"),
        ({"stride": 16, "pool": "own"}, "pool own needs the layers after it"),
        ({"freeze": 5}, "freeze = 5: nothing of backbone 'resnet18' would be left to train; it has 5 parts"),
        ({"pool": "grid", "cells": 3}, "cells = 3: the map of 'resnet18' has 2 x 2 tokens"),
    ],
)
def test_parts_that_a_backbone_does_not_have(options, reason):
    with pytest.raises(BackboneError) as error:
        Backbone("resnet18", image_size=64, **options)
    assert reason in str(error.value)


@pytest.mark.parametrize("pool", ["mean", "grid"])
def test_smaller_images_give_a_map_as_large(pool):
    backbone = Backbone("test_efficientnet", image_size=96, pool=pool).eval()
    tokens = backbone(torch.rand(2, 3, 64, 64))
    assert backbone.grid == (3, 3)
    assert tokens.patches.shape == (2, 9, backbone.width)
    assert tokens.cls.shape == (2, backbone.dim)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "tf_efficientnet_lite0", "densenet121"])
def test_convolutions_do_the_work_of_a_norm_that_learns_nothing(name, monkeypatch):
    torch.manual_seed(0)
    folding, plain = (Backbone(name, image_size=64, keep_statistics=kept) for kept in (True, False))
    norms = [layer for layer in plain.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for layer in norms:
        for values in (layer.weight, layer.running_var):
            torch.nn.init.uniform_(values, 0.8, 1.2)
        for values in (layer.bias, layer.running_mean):
            torch.nn.init.normal_(values, 0, 0.2)
    folding.load_state_dict(plain.state_dict())
    images, used, batch_norm = torch.rand(2, 3, 64, 64), [], torch.nn.functional.batch_norm
    expected = plain.eval()(images).patches
    copied = copy.deepcopy(folding)

    def counted(*values, **options):
        used.append(1)
        return batch_norm(*values, **options)

    monkeypatch.setattr(torch.nn.functional, "batch_norm", counted)
    with torch.no_grad():
        torch.testing.assert_close(folding.train()(images).patches, expected, rtol=1e-3, atol=1e-3)
    # Most norms of a DenseNet come after several maps, not after one convolution.
    assert (len(used) > 0) == (name == "densenet121")
    assert len(used) < len(norms)
    # Where norms learn, they do their own work.
    used.clear()
    learnt = folding(images).patches
    assert len(used) == len(norms)
    torch.testing.assert_close(learnt, expected, rtol=1e-3, atol=1e-3)
    # A copy has layers of its own.
    for weight in folding.parameters():
        weight.data.zero_()
    with torch.no_grad():
        torch.testing.assert_close(copied(images).patches, expected, rtol=1e-3, atol=1e-3)

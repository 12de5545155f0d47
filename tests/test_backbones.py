import pytest
import torch

from sbirlib.backbones import Backbone, BackboneError, fit_square


@pytest.mark.parametrize(("name", "size", "grid", "has_cls"), [
    ("sbir_mini", 96, (8, 8), True), ("vit_tiny_patch16_224", 224, (14, 14), True),
    ("resnet18", 224, (7, 7), False), ("swin_tiny_patch4_window7_224", 224, (7, 7), False),
    ("vit_small_patch14_reg4_dinov2", 70, (5, 5), True)])
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


def test_normalises_with_the_models_own_mean_and_std():
    backbone = Backbone("vit_tiny_patch16_224").eval()
    assert backbone.mean.tolist() == pytest.approx(backbone.encoder.pretrained_cfg["mean"])
    images = torch.rand(1, 3, 224, 224)
    normalised = (images - backbone.mean[:, None, None]) / backbone.std[:, None, None]
    expected = backbone.encoder.forward_features(normalised)[:, 0]
    torch.testing.assert_close(backbone(images).cls, expected)


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


def test_mini_has_no_published_weights():
    with pytest.raises(BackboneError, match="'sbir_mini' has no published weights"):
        Backbone("sbir_mini", image_size=96, pretrained=True)


@pytest.mark.parametrize(("name", "size", "words"), [
    ("sbir_mini", 50, "50 px is not a multiple of the patch size 12"),
    ("crossvit_tiny_240", 240, "does not give one map of features")])
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
    images = torch.randint(0, 256, (2, 3, 50, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    as_bytes = fit_square(images, 32, "pad").float() / 255
    as_floats = fit_square(images.float() / 255, 32, "pad")
    assert (as_bytes - as_floats).abs().max() <= 1.01 / 255


def test_an_image_that_fits_is_not_touched():
    images = torch.rand(1, 3, 32, 32)
    assert fit_square(images, 32, "pad") is images

"""Sketch-a-Net: the sizes of the original, one grey channel, and the ways in which timm's models are used."""

import pytest
import torch
from einops import rearrange
from safetensors.torch import save_file
from tools.batches import images

from sbirlib.layers import Backbone, BackboneError


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Backbone("sketch_a_net", image_size=225, pool="grid", cells=7).eval()


def test_its_layers_have_the_original_sizes(net):
    shapes = [list(weight.shape) for name, weight in net.named_parameters() if name.endswith("weight")]
    assert shapes == [[64, 1, 15, 15], [128, 64, 5, 5], [256, 128, 3, 3], [256, 256, 3, 3], [256, 256, 3, 3]]
    assert (net.width, net.grid, net.dim) == (256, (7, 7), 7 * 7 * 256)
    maps = [images(1, 1, 225, 225)]
    for stage in net.encoder.stages:
        maps.append(stage(maps[-1]))
    assert [value.shape[1:] for value in maps[1:]] == [(64, 35, 35), (128, 15, 15), (256, 7, 7)]


def test_it_sees_grey_less_the_authors_mean(net):
    pictures = images(2, 3, 225, 225)
    grey = pictures.mean(dim=1, keepdim=True)
    seen = []
    handle = net.encoder.stages[0].register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    colour = net(pictures).patches
    handle.remove()
    torch.testing.assert_close(seen[0], 255 * grey - 250.42, atol=1e-3, rtol=0)
    torch.testing.assert_close(net(grey.expand(-1, 3, -1, -1)).patches, colour, atol=1e-3, rtol=1e-3)


def test_a_linear_layer_on_the_grid_is_the_original_fc6(net):
    pictures = images(2, 3, 225, 225)
    layer = torch.nn.Linear(net.dim, 5)
    kernel = rearrange(layer.weight, "out (h w d) -> out d h w", h=7, w=7)
    features = net.encoder.forward_features((pictures - net.mean[0]) / net.std[0])
    expected = torch.nn.functional.conv2d(features, kernel, layer.bias)[:, :, 0, 0]
    torch.testing.assert_close(layer(net(pictures).cls), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "grid", "width"), [({"image_size": 96}, 1, 256), ({"pool": "own"}, 6, 256)]
)
def test_other_sizes_and_pools(options, grid, width):
    backbone = Backbone("sketch_a_net", **options).eval()
    assert (backbone.grid, backbone.width, backbone.dim) == ((grid, grid), width, width)
    size = options.get("image_size", 224)
    cls, patches = backbone(images(1, 3, size, size))
    torch.testing.assert_close(cls, patches.mean(dim=1))
    assert (patches > 0).any()


def test_its_first_stages_can_be_frozen():
    backbone = Backbone("sketch_a_net", image_size=96, freeze=2)
    free = {name.split(".")[2] for name, weight in backbone.named_parameters() if weight.requires_grad}
    assert free == {"2"}


def test_weights_come_from_a_file(net, tmp_path):
    save_file(net.encoder.state_dict(), tmp_path / "w.safetensors")
    again = Backbone("sketch_a_net", image_size=96, weights=tmp_path / "w.safetensors")
    assert torch.equal(again.encoder.stages[2][4].weight, net.encoder.stages[2][4].weight)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 80}, "takes no images of 80 px"),
        ({"pretrained": True}, "has no published weights; train it from scratch"),
        ({"stride": 16}, "stride = 16: no such map to stop at"),
        ({"drop_path": 0.1}, "cannot be built with .*'drop_path_rate'"),
    ],
)
def test_what_it_cannot_do_is_said(options, words):
    with pytest.raises(BackboneError, match=words):
        Backbone("sketch_a_net", **options)

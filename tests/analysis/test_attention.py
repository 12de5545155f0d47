import math

import numpy as np
import pytest
import torch
from einops import rearrange

from sbirlib import ARNet, Config, load_run
from sbirlib.analysis.attention import (
    AttentionMaps,
    attention_distance,
    attention_maps,
    global_attention,
    patch_attention,
    recycled_tokens,
    recycling_shares,
    recycling_variance,
    rollout,
    shares_by_token,
    similarity_variance,
    token_similarity,
)
from sbirlib.data.loading import load_split
from sbirlib.data.transforms import to_float
from sbirlib.errors import InputError
from sbirlib.layers.backbone import Backbone


def test_similarity_equals_a_plain_loop():
    tokens = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    matrix, variance = token_similarity(tokens), similarity_variance(tokens)
    for image in range(2):
        rows = tokens[image].tolist()
        cosines = [
            sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
            for a in rows
            for b in rows
        ]
        assert matrix[image].flatten().tolist() == pytest.approx(cosines, abs=1e-6)
        mean = sum(cosines) / 25
        assert variance[image].item() == pytest.approx(sum((c - mean) ** 2 for c in cosines) / 25, abs=1e-6)


def test_variance_in_closed_form():
    # All alike: every entry is 1. Half one way, half another: half of the entries are 1, half 0.
    assert similarity_variance(torch.ones(1, 6, 3)).item() == pytest.approx(0, abs=1e-12)
    halves = torch.eye(2).repeat_interleave(3, dim=0)[None]
    assert similarity_variance(halves).item() == pytest.approx(0.25)


def test_before_and_after_are_of_the_same_tokens(pairs):
    torch.manual_seed(0)
    changes = {"model.image_size": 48, "mstr.scales": (2, 1)}
    model = ARNet.from_config(Config.preset("mini_full").updated(changes))
    data = load_split(pairs.split("test"), Config().data, 48)
    found = recycling_variance(model, data)
    assert list(found) == ["sketch", "photo"]
    photos = to_float(data.photos, "cpu")
    with torch.no_grad():
        encoder = model.photo_encoder
        encoded = encoder.recycle(encoder.backbone(photos))
    assert found["photo"].before == pytest.approx(
        similarity_variance(encoded.patches).mean().item(), rel=1e-4
    )
    # Cells of scale 2 come first: 4 of them, then 16 of scale 1.
    assert found["photo"].after == pytest.approx(
        similarity_variance(encoded.cells[:, 4:]).mean().item(), rel=1e-4
    )
    assert found["photo"].after != pytest.approx(found["photo"].before, rel=1e-2)


def test_a_model_without_recycling_is_refused(run, pairs):
    with pytest.raises(InputError, match="does not recycle tokens"):
        recycling_variance(load_run(run), load_split(pairs.split("test"), Config().data, 48))


@pytest.mark.parametrize(
    ("name", "size"),
    [("vit_tiny_patch16_224", 224), ("sbir_mini", 96), ("vit_small_patch14_reg4_dinov2", 70)],
)
def test_attention_equals_that_computed_by_hand(name, size):
    torch.manual_seed(0)
    backbone = Backbone(name, image_size=size).eval()
    images = torch.rand(2, 3, size, size)
    found = attention_maps(backbone, images)
    inputs = []
    layers = [block.attn for block in backbone.encoder.blocks]
    handles = [
        layer.register_forward_pre_hook(lambda _layer, given: inputs.append(given[0])) for layer in layers
    ]
    with torch.no_grad():
        backbone(images)
    [handle.remove() for handle in handles]
    assert found.maps.shape[0] == len(layers) > 0
    for layer, tokens, maps in zip(layers, inputs, found.maps, strict=True):
        query, key, _ = rearrange(
            layer.qkv(tokens), "b t (three head d) -> three b head t d", three=3, head=layer.num_heads
        )
        for head in range(layer.num_heads):
            by_hand = (query[:, head] @ key[:, head].transpose(1, 2) / math.sqrt(query.shape[-1])).softmax(-1)
            torch.testing.assert_close(maps[:, head], by_hand, atol=1e-5, rtol=0)


def test_attention_counts_normalised_queries_and_leaves_the_model_as_it_was():
    torch.manual_seed(0)
    backbone = Backbone("sbir_mini", image_size=96).eval()
    for block in backbone.encoder.blocks:
        block.attn.q_norm = torch.nn.LayerNorm(block.attn.head_dim)
    images, seen = torch.rand(2, 3, 96, 96), []
    before, fused = backbone(images), [block.attn.fused_attn for block in backbone.encoder.blocks]
    found = attention_maps(backbone, images)
    assert [block.attn.fused_attn for block in backbone.encoder.blocks] == fused
    assert not any(module._forward_pre_hooks for module in backbone.modules())
    assert all(torch.equal(one, two) for one, two in zip(before, backbone(images), strict=True))
    layer = backbone.encoder.blocks[0].attn
    layer.q_norm.register_forward_hook(lambda *inside: seen.append(inside[-1]))
    layer.k_norm.register_forward_hook(lambda *inside: seen.append(inside[-1]))
    with torch.no_grad():
        backbone(images)
    query, key = seen
    by_hand = (query @ key.transpose(-2, -1) * layer.scale).softmax(dim=-1)
    torch.testing.assert_close(found.maps[0], by_hand, atol=1e-5, rtol=0)


def test_an_error_on_the_way_leaves_no_hook():
    backbone = Backbone("sbir_mini", image_size=96).eval()
    with pytest.raises(RuntimeError):
        attention_maps(backbone, torch.rand(1, 5, 96, 96))
    assert not any(module._forward_pre_hooks for module in backbone.modules())


@pytest.mark.parametrize("name", ["resnet18", "swin_tiny_patch4_window7_224"])
def test_a_model_without_such_attention_is_refused(name):
    with pytest.raises(InputError, match="no attention here.*not a plain ViT"):
        attention_maps(Backbone(name), torch.rand(1, 3, 224, 224))


def made_up(layers=2, batch=3, heads=2, grid=(2, 3), prefix=1):
    tokens = grid[0] * grid[1] + prefix
    maps = torch.rand(layers, batch, heads, tokens, tokens, generator=torch.Generator().manual_seed(0))
    return AttentionMaps(maps / maps.sum(-1, keepdim=True), prefix, grid)


def test_rows_are_found_by_their_place():
    attention = made_up()
    torch.testing.assert_close(
        patch_attention(attention, 4)[1, 2, 0].flatten(), attention.maps[1, 2, 0, 5, 1:]
    )
    own = global_attention(attention, uses_cls=True)[0, 0, 1].flatten()
    torch.testing.assert_close(own, attention.maps[0, 0, 1, 0, 1:])
    mean = sum(attention.maps[0, 0, 1, row, 1:] for row in range(1, 7)) / 6
    torch.testing.assert_close(global_attention(attention, uses_cls=False)[0, 0, 1].flatten(), mean)


def test_a_register_is_not_taken_for_the_global_token():
    backbone = Backbone("test_vit2", image_size=64).eval()
    found = attention_maps(backbone, torch.rand(1, 3, 64, 64))
    assert (found.prefix, found.grid) == (1, (4, 4))
    rows = found.maps[:, :, :, 1:, 1:].mean(dim=-2)
    maps = global_attention(found, uses_cls=backbone.uses_cls)
    torch.testing.assert_close(maps.flatten(start_dim=-2), rows)


def test_average_distance_equals_a_plain_loop():
    attention = made_up()
    found = attention_distance(attention, image_size=60)
    places = [(row * 30, column * 20) for row in range(2) for column in range(3)]
    for layer in range(2):
        for head in range(2):
            total = 0.0
            for image in range(3):
                for i in range(6):
                    row = attention.maps[layer, image, head, 1 + i, 1:].tolist()
                    total += sum(a * math.dist(places[i], places[j]) for j, a in enumerate(row)) / sum(row)
            assert found[layer, head].item() == pytest.approx(total / 18, rel=1e-5)


def test_attention_to_itself_and_to_all_in_closed_form():
    itself = torch.eye(5).expand(1, 1, 1, 5, 5)
    assert attention_distance(AttentionMaps(itself, 1, (2, 2)), 8).item() == 0
    even = torch.full((1, 1, 1, 4, 4), 0.25)
    # To oneself 0, to two neighbours 4 px, across 4 * sqrt(2).
    assert attention_distance(AttentionMaps(even, 0, (2, 2)), 8).item() == pytest.approx((8 + 4 * 2**0.5) / 4)


def test_rollout_equals_matrix_products():
    attention = made_up()
    product = np.eye(7)
    for layer in range(2):
        mean = attention.maps[layer, 1].mean(dim=0).double().numpy()
        product = (0.5 * mean + 0.5 * np.eye(7)) @ product
    found = rollout(attention)
    np.testing.assert_allclose(found.maps[0, 1, 0].numpy(), product, rtol=1e-5)
    assert global_attention(found, uses_cls=True).shape == (1, 3, 1, 2, 3)


@pytest.fixture(scope="module")
def recycler():
    torch.manual_seed(0)
    return ARNet.from_config(Config.preset("mini_full").updated({"model.image_size": 48})).eval()


def test_shares_are_each_cells_part_of_the_recycled_feature(recycler):
    encoder, images = recycler.photo_encoder, torch.rand(2, 3, 48, 48)
    shares = recycling_shares(encoder, images)
    assert [tuple(part.shape) for part in shares] == [(2, 4, 4), (2, 2, 2), (2, 1, 1)]
    with torch.no_grad():
        cells = encoder.recycle(encoder.backbone(images)).cells
    summands = [
        weight * cell for weight, cell in zip(encoder.mstr.mix.weight[0].tolist(), cells[1], strict=True)
    ]
    recycled = sum(summands)
    by_hand = [float(summand @ recycled / (recycled @ recycled)) for summand in summands]
    assert torch.cat([part[1].flatten() for part in shares]).tolist() == pytest.approx(by_hand, abs=1e-5)
    assert sum(by_hand) == pytest.approx(1, abs=1e-5)


def test_tokens_divide_the_share_of_their_cell():
    shares = [torch.arange(16.0).reshape(1, 4, 4), torch.tensor([[[0.0, 4], [8, 12]]])]
    by_token = shares_by_token(shares, (4, 4))
    assert by_token[0, 0].tolist() == [0, 1, 2 + 1, 3 + 1]
    assert by_token[0, 3].tolist() == [12 + 2, 13 + 2, 14 + 3, 15 + 3]
    assert shares_by_token(shares[1:], (4, 4)).sum().item() == 24


def test_shares_need_recycling_with_windows(run, recycler):
    with pytest.raises(InputError, match="does not recycle tokens: train with MSTR"):
        recycling_shares(load_run(run).photo_encoder, torch.rand(1, 3, 48, 48))
    strips = ARNet.from_config(Config.preset("mini_full").updated({"mstr.pooling": "strips"}))
    with pytest.raises(InputError, match="strips, not windows"):
        recycling_shares(strips.photo_encoder, torch.rand(1, 3, 96, 96))
    coarse = ARNet.from_config(Config.preset("mini_full").updated({"mstr.scales": (2, 4)}))
    with pytest.raises(InputError, match=r"no cells of scale 1: train with 1 among mstr.scales \(2, 4\)"):
        recycled_tokens(coarse.photo_encoder, torch.rand(1, 3, 96, 96))

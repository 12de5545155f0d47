import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sbirlib import ARNet, Config
from sbirlib.analysis.attention import attention_maps, global_attention
from sbirlib.analysis.discard import discard_curve, embed_kept, embed_whole, kept_places, token_scores
from sbirlib.config.config import DataConfig
from sbirlib.data.loading import load_split
from sbirlib.data.transforms import to_float
from sbirlib.errors import InputError
from sbirlib.layers.backbone import Tokens
from sbirlib.methods import METHODS, build
from sbirlib.retrieval.scores import score_split

ALL = {"sketch": torch.arange(16).expand(2, -1)}


def model_of(**changes):
    torch.manual_seed(0)
    config = Config.preset("mini_full").updated({"model.image_size": 48, "mstr.weight": 0.5, **changes})
    return ARNet.from_config(config).eval()


@pytest.fixture(scope="module")
def encoder():
    return model_of().sketch_encoder


@pytest.fixture(scope="module")
def images():
    return torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))


def test_the_best_places_are_kept_in_the_order_of_the_grid():
    scores = torch.tensor([[0.1, 0.9, 0.3, 0.8], [4.0, 1.0, 3.0, 2.0]])
    assert kept_places(scores, 0.5).tolist() == [[1, 3], [0, 2]]
    assert kept_places(scores, 1).tolist() == [[0, 1, 2, 3]] * 2
    assert kept_places(scores, 0).tolist() == [[1], [0]]  # never less than one


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_attention_scores_are_the_last_layers(images, pool):
    encoder = model_of(**{"model.pool": pool}).sketch_encoder
    maps = global_attention(attention_maps(encoder.backbone, images), uses_cls=pool == "cls")
    torch.testing.assert_close(token_scores(encoder, images, "attention"), maps[-1].mean(dim=1).flatten(1))


def test_norm_and_recycling_scores(encoder, images):
    patches = encoder.backbone(images).patches
    torch.testing.assert_close(token_scores(encoder, images, "norm"), patches.square().sum(dim=2).sqrt())
    assert token_scores(encoder, images, "recycling").sum(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_random_scores_depend_on_the_seed_alone(encoder, images):
    first, again, other = (token_scores(encoder, images, "random", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("where", ["input", "output"])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_keeping_all_tokens_changes_nothing(images, where, pool):
    encoder = model_of(**{"model.pool": pool}).sketch_encoder
    with torch.no_grad():
        kept = embed_kept(encoder, images, ALL["sketch"], where=where)
        torch.testing.assert_close(kept, F.normalize(encoder(images), dim=-1))


def test_what_is_discarded_at_the_input_is_never_seen(encoder, images):
    places = torch.tensor([[0, 5, 6, 15]] * 2)
    vit = encoder.backbone.encoder
    with torch.no_grad():
        before = embed_kept(encoder, images, places, where="input")
        noise = torch.zeros(1, 17, vit.embed_dim)
        noise[:, [1 + place for place in range(16) if place not in (0, 5, 6, 15)]] = 7.0
        handle = vit.patch_embed.register_forward_hook(lambda _layer, _given, tokens: tokens + noise[:, 1:])
        after = embed_kept(encoder, images, places, where="input")
        handle.remove()
    torch.testing.assert_close(before, after)
    assert not vit.patch_drop._forward_hooks


def test_what_is_discarded_at_the_output_is_filled_with_the_mean_of_the_kept(images):
    encoder = model_of(**{"model.pool": "mean"}).sketch_encoder
    places = torch.tensor([[1, 2, 9]] * 2)
    with torch.no_grad():
        found = embed_kept(encoder, images, places, where="output")
        patches = encoder.backbone(images).patches
        kept = patches[:, [1, 2, 9]].mean(dim=1)
        grid = torch.stack([patches[:, i] if i in (1, 2, 9) else kept for i in range(16)], dim=1)
        expected = F.normalize(encoder.embedding(Tokens(kept, grid)), dim=-1)
        torch.testing.assert_close(found, expected)
        plain = embed_kept(encoder, images, places, where="output", recycle=False)
        torch.testing.assert_close(plain, F.normalize(encoder.embed(kept), dim=-1))


def test_a_trained_cls_token_does_not_miss_what_is_discarded_after_it(images):
    encoder = model_of(**{"model.pool": "cls"}).sketch_encoder
    few, all_of_them = torch.tensor([[3]] * 2), ALL["sketch"]
    with torch.no_grad():
        plain = [
            embed_kept(encoder, images, places, where="output", recycle=False)
            for places in (few, all_of_them)
        ]
        recycled = [embed_kept(encoder, images, places, where="output") for places in (few, all_of_them)]
    torch.testing.assert_close(*plain)
    assert (recycled[0] - recycled[1]).abs().max() > 1e-3


@pytest.mark.parametrize("recycle", [True, False])
def test_the_curve_ends_where_nothing_is_discarded(pairs, recycle):
    model = model_of(**{"model.pool": "mean", "mstr.weight": 0.5 if recycle else 0.0})
    data = load_split(pairs.split("test"), DataConfig(root=str(pairs.root)), 48)
    curve = discard_curve(model, data, rule="norm", fractions=(0.1, 0.5, 1.0), recycle=recycle, batch=5)
    assert curve.kept.tolist() == [2 / 16, 8 / 16, 1]
    # With a share of 0 the model's own embedding is the one without the recycled feature.
    expected = score_split(model, data)
    assert curve.ranks[-1].tolist() == expected.ranks.tolist()
    assert curve.accuracy[-1] == expected.accuracy[1]
    assert not np.array_equal(curve.ranks[0], curve.ranks[-1])
    assert [a.hits for a in curve.accuracy] == [int((row == 1).sum()) for row in curve.ranks]


def test_what_cannot_be_ranked_or_dropped_is_named(encoder, images):
    cnn = ARNet("resnet18", image_size=64, embed_dim=8).sketch_encoder.eval()
    pictures = to_float(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "cpu")
    with pytest.raises(InputError, match="no attention here"):
        token_scores(cnn, pictures, "attention")
    with pytest.raises(InputError, match="does not recycle"):
        token_scores(cnn, pictures, "recycling")
    with pytest.raises(InputError, match="ResNet has no patch tokens.*where=output"):
        embed_kept(cnn, pictures, torch.tensor([[0]]), where="input")
    assert embed_kept(cnn, pictures, torch.tensor([[0]]), where="output").shape == (1, 8)
    with pytest.raises(InputError, match="ranked by attention, norm, recycling, random"):
        token_scores(encoder, images, "best")
    with pytest.raises(InputError, match="discarded at input or output"):
        embed_kept(encoder, images, ALL["sketch"], where="middle")
    pooled = model_of(**{"model.pool": "own"}).sketch_encoder
    with pytest.raises(InputError, match="discard at the input"):
        embed_kept(pooled, images, ALL["sketch"], where="output")
    normed_after = ARNet("test_vit2", image_size=64, embed_dim=8).sketch_encoder.eval()
    pictures, all_places = torch.rand(1, 3, 64, 64), torch.arange(16)[None]
    with pytest.raises(InputError, match=r"last norm after pooling.*discard at the input"):
        embed_kept(normed_after, pictures, all_places, where="output")
    kept = embed_kept(normed_after, pictures, all_places, where="input")
    torch.testing.assert_close(kept, embed_whole(normed_after, pictures))


@pytest.fixture
def siamese():
    torch.manual_seed(0)
    config = Config.preset("mini").updated({"method": "b_siamese", "model.image_size": 48})
    return build(config).eval()


@pytest.fixture
def data(pairs):
    return load_split(pairs.split("test"), DataConfig(root=str(pairs.root)), 48)


@pytest.mark.parametrize("where", ["input", "output"])
@pytest.mark.parametrize("rule", ["norm", "attention", "random"])
def test_with_all_of_its_tokens_another_method_finds_what_it_finds(siamese, data, rule, where):
    curve = discard_curve(siamese, data, rule=rule, where=where, fractions=(0.2, 1))
    expected = score_split(siamese, data).ranks.tolist()
    assert curve.ranks[-1].tolist() == expected
    assert curve.ranks[0].tolist() != expected
    with pytest.raises(InputError, match="does not recycle tokens: train with MSTR"):
        discard_curve(siamese, data, rule="recycling", fractions=(1,))


def test_a_cnn_has_the_curves_of_the_rules_that_need_no_attention(data):
    torch.manual_seed(0)
    cnn = ARNet("resnet18", image_size=48, embed_dim=8).eval()
    for rule in ("random", "norm"):
        assert discard_curve(cnn, data, rule=rule, fractions=(0.5, 1)).accuracy[1].queries == 16
    with pytest.raises(InputError, match="no attention here: ResNet"):
        discard_curve(cnn, data, rule="attention", fractions=(1,))


def test_a_method_without_unit_vectors_is_refused(siamese, data, monkeypatch):
    monkeypatch.setattr(METHODS["b_siamese"], "vectors", False)
    with pytest.raises(InputError, match="unit vectors, which method b_siamese does not make"):
        discard_curve(siamese, data)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].vectors])
def test_a_whole_picture_is_embedded_as_the_method_does(name, tiny):
    model = build(tiny.updated({"method": name, "sketch_aa.levels": (1, 2), "model.pool": "cls"})).eval()
    images = torch.rand(2, 3, model.image_size, model.image_size)
    with torch.no_grad():
        torch.testing.assert_close(embed_whole(model.photo_encoder, images), model.embed_photos(images))

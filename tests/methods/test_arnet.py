import pytest
import torch

from sbirlib import ARNet, Config
from sbirlib.config.methods import LossConfig
from sbirlib.data.transforms import edge_map
from sbirlib.methods.arnet import arnet_loss


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    # Apart, or one encoder could stand for the other unnoticed.
    return ARNet("sbir_mini", image_size=48, embed_dim=16, pool="mean", same_start=False).eval()


def test_forward_encodes_each_view_as_if_alone(model):
    views = torch.rand(4, 3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    output = model(*views)
    encoders = [model.sketch_encoder, model.sketch_encoder, model.photo_encoder, model.photo_encoder]
    for view, encoder, encoded in zip(views, encoders, output[:4], strict=True):
        for name, value in encoded._asdict().items():
            alone = getattr(encoder(view), name)
            torch.testing.assert_close(value, alone, atol=1e-5, rtol=1e-4)
    assert (output.recyc_sketch, output.recyc_photo) == (0, 0)


def test_embeddings_have_unit_length_unless_asked(model):
    images = torch.rand(2, 3, 60, 30)
    assert model.embed_sketches(images).norm(dim=-1).tolist() == pytest.approx([1, 1])
    raw = model.embed_photos(images, normalise=False)
    assert raw.shape == (2, 16)
    torch.testing.assert_close(torch.nn.functional.normalize(raw, dim=-1), model.embed_photos(images))


def test_two_encoders_begin_alike_unless_told_otherwise(model):
    images, alike = torch.rand(1, 3, 48, 48), ARNet("sbir_mini", image_size=48, embed_dim=16).eval()
    assert torch.equal(alike.embed_sketches(images), alike.embed_photos(images))
    assert not {id(p) for p in alike.sketch_encoder.parameters()} & {
        id(p) for p in alike.photo_encoder.parameters()
    }
    assert not torch.allclose(model.embed_sketches(images), model.embed_photos(images))


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
    images = torch.rand(2, 3, 48, 48)
    assert torch.equal(edges.embed_photos(images), plain.embed_photos(edge_map(images)))
    assert torch.equal(edges.embed_sketches(images), plain.embed_sketches(images))
    torch.testing.assert_close(
        edges(*[images] * 4).photo_second.cls, edges.photo_encoder.backbone(images).cls
    )
    assert sum(p.numel() for p in edges.parameters()) == sum(p.numel() for p in plain.parameters())


def test_an_embedding_does_not_depend_on_its_batch(model):
    images = torch.rand(5, 3, 48, 48)
    together = model.embed_photos(images)
    alone = torch.cat([model.embed_photos(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_every_parameter_learns():
    model = ARNet("sbir_mini", image_size=48, embed_dim=16)
    output = model(*torch.rand(4, 4, 3, 48, 48))
    arnet_loss(output, torch.arange(4), LossConfig()).total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(
    "images", [torch.rand(3, 48, 48), torch.rand(1, 1, 48, 48), torch.zeros(1, 3, 48, 48, dtype=torch.uint8)]
)
def test_other_shapes_and_types_are_refused(model, images):
    with pytest.raises(ValueError, match="expected float images"):
        model.embed_photos(images)


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

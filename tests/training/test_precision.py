"""The fast path: bf16 where the device has it, the faster attention kernel, the fused optimiser."""

import copy

import pytest
import torch
from tools.trainers import trainer_of

from sbirlib.config.config import OptimConfig
from sbirlib.methods.arnet import ARNet
from sbirlib.training import trainer as trainer_room
from sbirlib.training.setup import make_optimizer, wants_bf16

CPU = torch.device("cpu")
MODELS = {
    "sbir_mini": {
        "backbone": "sbir_mini",
        "image_size": 96,
        "embed_dim": 128,
        "pool": "mean",
        "mstr": {"scales": (1, 2, 4), "depth": 1, "heads": 4, "feedforward": 256},
    },
    "vit_tiny": {
        "backbone": "vit_tiny_patch16_224",
        "image_size": 64,
        "mstr": {"scales": (1, 2, 4), "heads": 4},
    },
}


@pytest.fixture
def processor(monkeypatch):
    """Lets torch report a processor with these features."""

    def has(*features):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda: dict.fromkeys(features, True), raising=False
        )

    return has


@pytest.fixture(params=MODELS)
def model(request):
    torch.manual_seed(0)
    return ARNet(**MODELS[request.param]).eval()


@pytest.mark.parametrize(
    ("features", "expected"),
    [((), False), (("avx512_f",), False), (("avx512_bf16",), True), (("amx_bf16",), True)],
)
def test_auto_takes_bf16_where_the_processor_has_it(processor, features, expected):
    processor(*features)
    assert wants_bf16("auto", CPU) is expected
    assert wants_bf16("bf16", CPU) is True
    assert wants_bf16("fp32", CPU) is False


def test_a_torch_that_cannot_tell_means_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert wants_bf16("auto", CPU) is False


def test_bf16_embeddings_are_within_a_hundredth(model):
    images = torch.rand(3, 3, model.image_size, model.image_size)
    with torch.no_grad():
        expected = model.photo_encoder(images)
        with torch.autocast("cpu", torch.bfloat16):
            found = model.photo_encoder(images)
    error = ((found.float() - expected).norm(dim=1) / expected.norm(dim=1)).max()
    assert 0 < error < 1e-2  # 0 would be fp32 again


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_validation_computes_in_the_precision_of_the_run(pairs, tiny, tmp_path, monkeypatch, precision):
    seen, real = [], trainer_room.score_split

    def noted(*given, **options):
        seen.append(torch.is_autocast_enabled("cpu"))
        return real(*given, **options)

    monkeypatch.setattr(trainer_room, "score_split", noted)
    trainer = trainer_of(pairs, tiny.updated({"run.precision": precision}), tmp_path)
    assert 0 < trainer.validate(1)["mrr"] <= 1
    assert seen == [precision == "bf16"]
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_auto_takes_bf16_on_gpus_that_do_not_emulate_it(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert wants_bf16("auto", torch.device("cuda")) is expected


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_trainer_exchanges_exactness_for_speed_in_bf16_alone(processor, pairs, tiny, tmp_path, precision):
    processor("avx512_bf16")
    trainer = trainer_of(pairs, tiny.updated({"run.precision": precision}), tmp_path)
    assert trainer.optimizer.defaults["fused"] == (True if precision == "bf16" else None)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_fused_optimiser_takes_the_same_steps(name):
    first = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
    second = copy.deepcopy(first)
    for model, option in ((first, False), (second, True)):
        torch.manual_seed(0)
        optimizer = make_optimizer(model, OptimConfig(name=name, lr=1e-2, weight_decay=0.1), fused=option)
        for _ in range(5):
            model(torch.randn(4, 8)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    start = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
    for a, b, other in zip(first.parameters(), second.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
        assert not torch.allclose(a, other)

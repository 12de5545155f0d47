"""Every kind of backbone, in every kind of model, through everything that a run goes through."""

import itertools

import pytest
import tools.tiny_models  # noqa: F401  # timm knows them from here on
import torch

from sbirlib import Gallery, PairFolder, evaluate, load_run, train
from sbirlib.miniclothes.dataset import draw_miniclothes
from sbirlib.runs.folder import Run
from sbirlib.runs.model import load_model_folder, save_model_folder
from sbirlib.runs.report import write_page
from sbirlib.training.signals import Stop
from sbirlib.training.trainer import Trainer

# The kinds of backbones, by a tiny one each, with the images that it sees.
BACKBONES = {
    "sbir_mini": 48,
    "test_resnet": 64,  # BatchNorm
    "test_efficientnet": 64,  # BatchNorm
    "tiny_swin": 64,
    "test_vit": 64,  # CLS
    "tiny_vit_without_cls": 64,
    "tiny_vit_with_registers": 64,  # CLS and registers
    "test_vit2": 64,  # a register, no CLS
}
ON_OFF = (False, True)
COMBINATIONS = list(itertools.product(BACKBONES, ON_OFF, ON_OFF, ON_OFF))


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A folder with 8 + 4 photos and 16 + 4 sketches: three steps of four pairs."""
    root = tmp_path_factory.mktemp("few") / "MiniClothes"
    return PairFolder(draw_miniclothes(root, photos=(8, 4), sketches=(16, 4), size=48))


def trained(monkeypatch, pairs, config, out, *, stop_after=None, **options):
    """Trains, if asked to only so many steps; the records, and the model as it is in memory."""
    trainers, stop, step = [], Stop(), Trainer.step

    def watched(trainer, plan, number):
        step(trainer, plan, number)
        trainers.append(trainer)
        if len(trainers) == stop_after:
            stop.ask(now=True)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", watched)
        records = list(train(pairs, config, out=out, stop=stop, **options))
    return records, trainers[-1].method.eval()


def rows(model, pictures):
    with torch.no_grad():
        return torch.cat([model.embed_sketches(pictures), model.embed_photos(pictures)])


def assert_found_alike(model, other, pairs, gallery):
    """Two models embed, score and search alike, `other` in the gallery that `model` wrote."""
    pictures = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rows(other, pictures), rows(model, pictures), rtol=0, atol=1e-6)
    assert evaluate(other, pairs).ranks.tolist() == evaluate(model, pairs).ranks.tolist()
    Gallery.from_folder(model, pairs.root / "testB").save(gallery)
    sketch = pairs.split("test").sketches[0].path
    hits = Gallery.load(gallery, other).search(sketch, k=4)
    assert [hit.path for hit in hits] == [
        hit.path for hit in Gallery.load(gallery, model).search(sketch, k=4)
    ]


@pytest.mark.parametrize(
    ("backbone", "share", "recycle", "edges"),
    COMBINATIONS,
    ids=[
        "-".join([name, *(word for word, on in zip(("shared", "mstr", "edges"), flags, strict=True) if on)])
        for name, *flags in COMBINATIONS
    ],
)
def test_a_run_survives_all_that_happens_to_it(
    few, tiny, tmp_path, monkeypatch, backbone, share, recycle, edges
):
    config = tiny.updated(
        {
            "model.backbone": backbone,
            "model.image_size": BACKBONES[backbone],
            "model.share_encoders": share,
            "model.photo_edges": edges,
            "model.pool": "cls",
            "mstr.enabled": recycle,
            "mstr.scales": (1, 2),
            "mstr.heads": 2,
            "mstr.feedforward": 32,
            "optim.batch_size": 4,
            "run.epochs": 1,
            "run.precision": "fp32",
            "run.device": "cpu",
        }
    )
    whole, out, moved, again = (tmp_path / name for name in ("whole", "run", "moved", "again"))
    [record], expected = trained(monkeypatch, few, config, whole)
    assert record.losses["total"] > 0

    records, _ = trained(monkeypatch, few, config, out, stop_after=2)
    assert (records, [place.name for place in Run(out).checkpoints]) == ([], ["000001-000002"])
    out.rename(moved)
    [record], live = trained(monkeypatch, few, config, moved, resume=True)
    first, second = expected.state_dict(), live.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)

    loaded = load_run(moved, "last")
    assert_found_alike(live, loaded, few, tmp_path / "photos.safetensors")
    parts = [
        {id(part) for part in (*encoder.parameters(), *encoder.buffers())}
        for encoder in (loaded.sketch_encoder.backbone.encoder, loaded.photo_encoder.backbone.encoder)
    ]
    assert parts[0] == parts[1] if share else not parts[0] & parts[1]
    assert backbone in write_page(moved).read_text()

    moved.rename(again)
    assert_found_alike(loaded, load_run(again), few, tmp_path / "photos.safetensors")
    save_model_folder(tmp_path / "alone", loaded, config)
    assert_found_alike(loaded, load_model_folder(tmp_path / "alone"), few, tmp_path / "photos.safetensors")
    assert list(train(few, config, out=again, resume=True)) == []
    assert backbone in write_page(again).read_text()

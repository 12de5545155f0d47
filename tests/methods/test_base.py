"""The interface: what a method may be, and what the kit does with one that is not like ARNet."""

from collections import Counter

import pytest
import torch
from tools.batches import batch_of, images
from tools.trainers import trainer_of
from torch import nn

from sbirlib import Config, Gallery, PairFolder, evaluate, load_run, train
from sbirlib.config.config import DEFAULTS
from sbirlib.config.methods import GROUPS
from sbirlib.data.splits import PairError
from sbirlib.data.transforms import read_pixels
from sbirlib.errors import ConfigError
from sbirlib.methods import METHODS, build
from sbirlib.methods.base import Encoder, Method, Stage
from sbirlib.methods.cards import CARDS, Needs
from sbirlib.training.setup import stage_ends

TINY = {"model.image_size": 48, "model.embed_dim": 16}


def test_every_method_is_listed_with_its_settings_and_its_paper():
    assert METHODS.keys() == GROUPS.keys() == DEFAULTS.keys() == CARDS.keys()
    for name, method in METHODS.items():
        assert method.name == name
        assert all(method.paper)
        assert method.paper.link.startswith("https://")
        assert method.terms[0] == "total"
        assert method.__doc__


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_does(name):
    model = build(Config.preset("mini").updated({"method": name, **TINY})).eval()
    batch = batch_of(images(4, 3, 3, 48, 48))
    rows = model(batch)
    assert all(value.ndim == 0 or len(value) == 3 for value in rows.values())
    terms = model.compare(rows, batch)
    assert tuple(terms) == model.terms
    assert all(term.ndim == 0 for term in terms.values())
    sketches, photos = model.embed_sketches(batch.sketch), model.embed_photos(batch.photo)
    assert model.score(sketches, photos).shape == (3, 3)
    assert sum(stage.share for stage in model.stages()) == pytest.approx(1)


@pytest.mark.parametrize("name", METHODS)
def test_in_bf16_rows_stay_close_and_gradients_are_numbers(name):
    torch.manual_seed(0)
    model = build(Config.preset("mini").updated({"method": name, **TINY})).eval()
    batch = batch_of(images(4, 3, 3, 48, 48))
    with torch.no_grad():
        exact = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rows = model(batch)
    model.compare(rows, batch)["total"].backward()
    for key, value in exact.items():
        assert (rows[key].float() - value).norm() <= 0.05 * value.norm() + 1e-6
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_without_second_views_none_are_made(pairs, tiny, monkeypatch):
    seen = []
    encode = METHODS["b_siamese"].encode
    monkeypatch.setattr(
        METHODS["b_siamese"], "encode", lambda self, batch: (seen.append(batch), encode(self, batch))[1]
    )
    config = tiny.updated({"method": "b_siamese", "run.epochs": 1})
    records = train(pairs, config, out=pairs.root.parent / "no-second-views")
    record = next(records)
    records.close()
    assert {(len(batch.sketch_second), len(batch.photo_second)) for batch in seen} == {(0, 0)}
    assert record.views_per_second > 0


@pytest.mark.parametrize(("needs", "words"), [
    (Needs(edges=True), "needs photos as edge maps: add --model.photo_edges"),
])  # fmt: skip
def test_what_a_method_needs_is_checked_before_anything_is_loaded(pairs, tmp_path, monkeypatch, needs, words):
    config = Config.preset("mini").updated({"model.photo_edges": False, **TINY})
    monkeypatch.setattr(METHODS["arnet"], "needs", needs)
    monkeypatch.setattr("sbirlib.training.trainer.load_data", lambda *_: pytest.fail("loaded"))
    with pytest.raises(PairError, match=f"method arnet {words}"):
        train(pairs, config, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Distances(Method):
    """Rows are grids (b, n, d), compared pair by pair, and trained in two stages."""

    name = "arnet"  # stands in its place
    vectors = False

    def __init__(self, backbone="sbir_mini", **options):
        options = {key: value for key, value in options.items() if key not in ("embed_dim", "mstr", "loss")}
        super().__init__(backbone, **options)
        self.steps_of = Counter()

    def make_encoder(self, trunk):
        return Encoder(trunk, nn.Linear(trunk.dim, 8))

    @classmethod
    def from_config(cls, config):
        size, freeze = config.model.image_size, config.model.freeze
        return cls(**{"image_size": size, "share_encoders": True, "freeze": freeze})

    def stages(self):
        return [
            Stage("backbone", 0.5, [self.sketch_encoder.backbone]),
            Stage("head", 0.5, [self.sketch_encoder.embed]),
        ]

    def after_step(self):
        self.steps_of[self.stage] += 1

    def enter(self, stage, data):
        assert stage == self.stage == "head"
        self.seen = data.photos.float().mean() / 255

    def _rows(self, pixels):
        return self.sketch_encoder.embed(self.sketch_encoder.backbone(pixels).patches)

    embed_sketches = embed_photos = lambda self, pixels: self._rows(self._square(pixels))

    def encode(self, batch):
        return {"sketch": self._rows(batch.sketch), "photo": self._rows(batch.photo)}

    def score(self, sketches, photos):
        return -torch.cdist(sketches.flatten(1), photos.flatten(1))

    def compare(self, rows, batch):
        scores = self.score(rows["sketch"], rows["photo"])
        loss = nn.functional.cross_entropy(scores, torch.arange(len(batch.photo_ids)))
        return {"total": loss if self.stage == "backbone" else loss * self.seen}


Distances.needs, Distances.terms = Needs(), ("total",)  # not those of ARNet's card


@pytest.fixture
def distances(monkeypatch):
    monkeypatch.setitem(METHODS, "arnet", Distances)


def test_rows_that_are_no_vectors_are_scored_saved_and_searched(distances, pairs, tiny, tmp_path):
    torch.manual_seed(0)
    model = build(tiny).eval().requires_grad_(False)
    scores = evaluate(model, pairs)
    gallery = Gallery.from_folder(model, pairs.root / "testB")
    assert gallery.embeddings.shape == (8, 16, 8)
    gallery.save(tmp_path / "gallery.safetensors")
    again = Gallery.load(tmp_path / "gallery.safetensors", model)
    assert len(scores.ranks) == 16
    for sketch in pairs.split("test").sketches:
        query = model.embed_sketches(read_pixels(sketch.path)[None] / 255)
        expected = model.score(query, gallery.embeddings)[0].sort(descending=True)
        hits = again.search(sketch.path, k=8)
        assert [hit.path for hit in hits] == [gallery.paths[row] for row in expected.indices]
        assert [hit.similarity for hit in hits] == pytest.approx(expected.values.tolist(), rel=1e-5)
        assert hits[0].similarity < 0


def test_each_stage_trains_its_parts_alone_and_resume_goes_on_in_the_right_one(
    distances, pairs, tiny, tmp_path
):
    config = tiny.updated(
        {"run.epochs": 4, "run.save_minutes": 0, "run.device": "cpu", "optim.schedule": "cosine"}
    )
    states, rates = [], []
    for record in train(pairs, config, out=tmp_path / "whole"):
        states.append(load_run(tmp_path / "whole", "last").state_dict())
        rates.append(record.lr)
    moved = [
        {name.split(".")[1] for name in states[0] if not torch.equal(states[k][name], states[k - 1][name])}
        for k in (1, 2, 3)
    ]
    assert moved == [{"backbone"}, {"embed"}, {"embed"}]
    assert rates[1] == pytest.approx(rates[3])  # each stage has a schedule of its own
    for epochs in (1, 2, 3):
        out = tmp_path / f"stopped after {epochs}"
        records = train(pairs, config, out=out)
        for _ in range(epochs):
            next(records)
        records.close()
        assert len(list(train(pairs, config, out=out, resume=True))) == 4 - epochs
        last = load_run(out, "last").state_dict()
        assert all(torch.equal(last[name], states[-1][name]) for name in last)


def test_what_is_frozen_stays_so_in_every_stage_and_each_step_is_told(distances, pairs, tiny, tmp_path):
    changes = {"run.epochs": 2, "model.freeze": 2, "data.val_fraction": 0.0}
    trainer = trainer_of(pairs, tiny.updated(changes), tmp_path / "run")
    learning = {id(weight) for weight in trainer.learning}
    before = {name: weight.clone() for name, weight in trainer.method.named_parameters()}
    frozen = {name for name, weight in trainer.method.named_parameters() if id(weight) not in learning}
    assert 0 < len(frozen) < len(before)
    assert len(list(trainer.epochs())) == 2
    kept = {name for name, w in trainer.method.named_parameters() if torch.equal(before[name], w)}
    assert kept == frozen
    assert trainer.method.steps_of == {"backbone": 4, "head": 4}


@pytest.mark.parametrize(
    ("shares", "epochs", "ends"),
    [([1.0], 7, [7]), ([0.5, 0.5], 5, [2, 5]), ([0.2, 0.3, 0.5], 10, [2, 5, 10])],
)
def test_stages_share_the_epochs(shares, epochs, ends):
    assert stage_ends([Stage(str(share), share, []) for share in shares], epochs) == ends


def test_a_stage_without_an_epoch_is_refused():
    with pytest.raises(ConfigError, match=r"run\.epochs = 1 leaves none for the method's stage 'first'"):
        stage_ends([Stage("first", 0.5, []), Stage("second", 0.5, [])], 1)


def test_a_folder_of_test_pairs_alone_is_told_apart(pairs, tiny, tmp_path):
    (tmp_path / "data").mkdir()
    for side in "AB":
        (tmp_path / "data" / f"test{side}").symlink_to(pairs.root / f"test{side}")
    with pytest.raises(PairError, match="has no trainA/ and trainB/"):
        train(PairFolder(tmp_path / "data"), tiny, out=tmp_path / "run")


def test_pixels_from_0_to_255_are_refused(run):
    model, pictures = load_run(run), torch.rand(2, 3, 20, 30)
    assert model.embed_photos(pictures).shape[0] == 2
    with pytest.raises(ValueError, match=r"in \[0, 1\], found values up to .*divide by 255"):
        model.embed_photos(255 * pictures)

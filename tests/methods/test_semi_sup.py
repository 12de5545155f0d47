"""Semi-Sup: its likelihoods against scipy, its losses where their weights end, its drawings."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from tools.batches import batch_of, images
from tools.trainers import trainer_of
from torch.nn import functional as F

from sbirlib.config.methods import SemiSupConfig
from sbirlib.data import LoadedSplit, Recording, Split, render_strokes
from sbirlib.data.strokes import Stroke
from sbirlib.layers.chance import drawing
from sbirlib.methods import BSiamese, SemiSup
from sbirlib.methods.sketch_generator import (
    DRAWING_ENDS,
    GOES_ON,
    LATENT,
    STROKE_ENDS,
    UNIT,
    to_points,
    to_strokes,
)  # fmt: skip

COUNT, POINTS = 3, 6
STROKES = [np.array([[0.2, 0.3], [0.7, 0.4], [0.6, 0.8]]), np.array([[0.5, 0.5]])]


@pytest.fixture
def model():
    """In its last stage, with three sketches of three photos, and three photos without one."""
    torch.manual_seed(0)
    own = SemiSupConfig(points=POINTS, hidden=16, flip=0.0)
    model = SemiSup("sbir_mini", image_size=48, embed_dim=8, pool="mean", share_encoders=True, options=own)
    model.stage = "together"
    model.points = torch.stack([to_points(STROKES, POINTS)] * COUNT)
    pixels, none = (255 * images(2, COUNT, 3, 48, 48)).to(torch.uint8), torch.empty(0)
    spare = LoadedSplit(Split("unlabelled", (), ()), none, pixels[1], none)
    model.data = LoadedSplit(Split("train", (), ()), none, pixels[0], torch.arange(COUNT), unlabelled=spare)
    return model.eval()


@pytest.fixture
def batch():
    batch = batch_of(images(4, COUNT, 3, 48, 48))
    return batch._replace(unlabelled=images(COUNT, 3, 48, 48, seed=1), unlabelled_ids=torch.arange(COUNT))


@torch.no_grad()
def test_the_likelihood_of_a_point_is_that_of_scipys_normals(model):
    photos, noise = model.data.photos[:1] / 255, torch.randn(1, LATENT)
    points = torch.tensor([[[0.9, 0.1, DRAWING_ENDS]]])
    found, _ = model.generator(photos, points, noise)
    tokens, _, state = model.generator.look(photos, noise)
    start = torch.tensor([[[0.5, 0.5, STROKE_ENDS]]])
    (mixture, pen), _ = model.generator.step(tokens, start, torch.zeros(1, 1, 2), state, 1.0)
    weights, normals = mixture.mixture_distribution.probs[0, 0].double(), mixture.component_distribution
    offset = (points - start)[0, 0, :2] / UNIT
    covariances = normals.covariance_matrix[0, 0].double()
    each = [
        multivariate_normal(m, c).pdf(offset) for m, c in zip(normals.loc[0, 0], covariances, strict=True)
    ]
    expected = np.log(weights.numpy() @ np.array(each)) + pen.logits[0, 0, DRAWING_ENDS].item()
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_a_drawing_is_as_likely_as_its_points_one_after_another(model):
    """Up to its end: what is behind does not count."""
    generator, noise = model.generator, torch.randn(COUNT, LATENT)
    photos, points = model.data.photos / 255, model.points.clone()
    points[1, 4:] = torch.tensor([0.9, 0.1, STROKE_ENDS])  # behind the end of the drawing
    found, kl = generator(photos, points, noise)
    tokens, latent, state = generator.look(photos, noise)
    last = torch.tensor([0.5, 0.5, STROKE_ENDS]).expand(COUNT, 1, 3)
    offset, sums = torch.zeros(COUNT, 1, 2), torch.zeros(COUNT)
    for place in range(len(STROKES[0]) + len(STROKES[1])):
        (mixture, pen), state = generator.step(tokens, last, offset, state, 1.0)
        now = points[:, place, None]
        offset = (now - last)[..., :2] / UNIT
        sums += (mixture.log_prob(offset) + pen.log_prob(now[..., 2]))[:, 0]
        last = now
    torch.testing.assert_close(found, sums / 4)
    expected = (latent.mean**2 + latent.stddev**2 - 1) / 2 - latent.stddev.log()
    torch.testing.assert_close(kl, expected.mean(dim=1))


def test_a_drawing_depends_on_its_photo_and_its_latent(model):
    noise, photos = torch.randn(COUNT, LATENT), model.data.photos / 255

    def drawn(photos, noise):
        with drawing(1):
            return model.generator.sample(photos, noise, POINTS, 0.3)

    first = drawn(photos, noise)
    assert first.shape == (COUNT, POINTS, 3)
    assert torch.equal(drawn(photos, noise), first)
    assert not torch.allclose(drawn(photos.flip(0), noise), first)
    assert not torch.allclose(drawn(photos, -noise), first)
    assert set(first[..., 2].unique().tolist()) <= {GOES_ON, STROKE_ENDS, DRAWING_ENDS}


def test_drawings_spread_less_at_a_lower_temperature(model):
    noise, photos = torch.zeros(64, LATENT), (model.data.photos[:1] / 255).expand(64, -1, -1, -1)
    warm, cold = (model.generator.sample(photos, noise, 1, t)[:, 0, :2].std(dim=0) for t in (1.0, 0.05))
    assert (cold < warm).all()


def test_points_are_strokes_and_pictures_are_the_renderers(model):
    points = to_points(STROKES, POINTS)
    assert points[:, 2].tolist() == [GOES_ON, GOES_ON, STROKE_ENDS, *[DRAWING_ENDS] * 3]
    found = to_strokes(points)
    for stroke, expected in zip(found, STROKES, strict=True):
        np.testing.assert_allclose(stroke, expected, atol=1e-6)
    drawn = [Stroke(stroke * 48, 3.0 * 48 / 320) for stroke in found]
    expected = torch.from_numpy(render_strokes(drawn, 48)).permute(2, 0, 1) / 255
    torch.testing.assert_close(model._seen(points[None])[0], expected)
    # Cut off, and without an end.
    assert to_points(STROKES, 2)[:, 2].tolist() == [GOES_ON, DRAWING_ENDS]
    unfinished = torch.tensor([[0.1, 0.1, STROKE_ENDS], [0.2, 0.2, GOES_ON], [0.3, 0.3, GOES_ON]])
    assert [len(stroke) for stroke in to_strokes(unfinished)] == [1, 2]


def test_a_photo_is_drawn_again_by_its_seed(model):
    photos = images(2, 3, 60, 90)
    first, again, other = (model.draw(photos, seed=seed) for seed in (1, 1, 2))
    assert len(first) == 2
    assert isinstance(first[0], Recording)
    assert first[0].picture() == again[0].picture()
    assert first[0].picture() != other[0].picture()


def test_without_certainty_the_encoders_learn_from_pairs_alone(model, batch):
    model.options = SemiSupConfig(points=POINTS, hidden=16, flip=0.0, distil=0.0)
    rows = model.encode(batch) | {"trusted": torch.full((COUNT,), -torch.inf)}
    found = gradients(model, model.compare(rows, batch)["total"])
    torch.testing.assert_close(found, gradients(model, BSiamese.compare(model, rows, batch)["total"]))


def test_certain_drawings_that_are_true_sketches_are_pairs(model, batch):
    model.options = SemiSupConfig(points=POINTS, hidden=16, flip=0.0, distil=0.0)
    pairs = batch._replace(photo_ids=batch.unlabelled_ids)
    sketch, photo = model.embed_sketches(batch.sketch), model.embed_photos(batch.unlabelled)
    rows = model.encode(batch) | {"pseudo": sketch, "spare": photo}
    terms = model.compare(rows | {"trusted": torch.full((COUNT,), torch.inf)}, batch)
    expected = BSiamese.compare(model, {"sketch": sketch, "photo": photo}, pairs)["total"]
    torch.testing.assert_close(terms["pseudo"], expected)
    assert terms["certainty"] == 1
    half = model.compare(rows | {"trusted": torch.zeros(COUNT)}, batch)["pseudo"]
    torch.testing.assert_close(half, expected / 2)


def test_a_student_like_its_teacher_has_nothing_to_learn_from_it(model, batch):
    assert model.compare(model.encode(batch), batch)["distil"] == 0
    with torch.no_grad():
        model.sketch_encoder.embed[1].weight.add_(0.1 * torch.randn(8, 128))
    rows = model.encode(batch)
    expected = sum(
        (rows[name] - rows[f"taught_{name}"]).square().sum(dim=1).mean()
        for name in ("sketch", "photo", "spare")
    )
    found = model.compare(rows, batch)["distil"]
    torch.testing.assert_close(found, expected)
    assert found > 0


def test_the_discriminator_learns_to_tell_drawings_from_pairs(model, batch):
    rows = model.encode(batch)
    terms = model.compare(rows, batch)
    expected = -(rows["true"].sigmoid().log().sum() + (1 - rows["trusted"].sigmoid()).log().sum()) / 6
    torch.testing.assert_close(terms["discriminator"], expected)
    assert moved_by(model, terms["discriminator"]) == {"discriminator"}


def test_the_reward_makes_likelier_what_is_trusted_and_found(model, batch):
    rows = model.encode(batch)
    policy = rows["policy"].detach().requires_grad_()
    apart = {"pseudo": torch.eye(8)[:COUNT], "spare": torch.eye(8)[:COUNT], "policy": policy}
    trusted = torch.tensor([0.9, 0.5, 0.1])
    terms = model.compare(rows | apart | {"trusted": trusted.logit()}, batch)
    [found] = torch.autograd.grad(terms["policy"], policy)
    advantage = (trusted - 0.5) / (trusted.std(correction=0) + 1e-3)
    torch.testing.assert_close(found, -advantage / COUNT)
    assert moved_by(model, model.compare(rows, batch)["policy"]) == {"generator"}


def test_the_generator_learns_the_strokes_of_a_photo(model):
    """Two photos and a drawing of each, which become likelier than those of the other."""
    other = to_points([1 - STROKES[0]], POINTS)
    points, photos = (
        torch.stack([model.points[0], other]),
        torch.stack([images(3, 48, 48), torch.ones(3, 48, 48)]),
    )
    optimizer = torch.optim.Adam(model.generator.parameters(), 3e-3)
    noise = torch.zeros(2, LATENT)
    for _ in range(40):
        optimizer.zero_grad()
        (-model.generator(photos, points, noise)[0].mean()).backward()
        optimizer.step()
    with torch.no_grad():
        own, others = (
            model.generator(photos, points, noise)[0],
            model.generator(photos, points.flip(0), noise)[0],
        )
    assert (own > others + 1).all()


def test_each_stage_moves_its_own_part_and_the_teacher_is_what_it_was_then(pairs, tiny, tmp_path):
    small = {"semi_sup.points": 8, "semi_sup.hidden": 8, "run.epochs": 3, "data.val_fraction": 0.0}
    small |= {"run.device": "cpu", "data.unlabelled": str(pairs.root / "testB")}
    config = tiny.updated({"method": "semi_sup"}).updated(small)
    trainer = trainer_of(pairs, config, tmp_path / "run")
    epochs, model, moved = trainer.epochs(), trainer.method, []
    for _ in range(2):
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        next(epochs)
        now = model.state_dict()
        moved.append({name.split(".")[0] for name in now if not torch.equal(now[name], before[name])})
    assert moved[0] == {"sketch_encoder", "photo_encoder", "sketch_teacher", "photo_teacher", "generator"}
    assert moved[1] == {"generator"}
    for teacher, student in (
        (model.sketch_teacher, model.sketch_encoder),
        (model.photo_teacher, model.photo_encoder),
    ):
        torch.testing.assert_close(teacher.state_dict(), student.state_dict(), atol=0, rtol=0)
    assert model.points.shape[1:] == (8, 3)
    epochs.close()


def moved_by(model, loss):
    """The parts that a loss has a gradient for."""
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name.split(".")[0] for name, part in zip(named, found, strict=True) if part is not None}


def gradients(model, loss):
    """Those of the encoders, which are one."""
    return torch.autograd.grad(loss, list(model.sketch_encoder.parameters()), retain_graph=True)


def test_flipped_pairs_are_flipped_together_with_what_is_drawn(model, batch):
    with drawing(0):
        rows = model.encode(batch)
    model.options = SemiSupConfig(points=POINTS, hidden=16, flip=1.0)
    with drawing(0):
        mirrored = model.encode(batch._replace(sketch=batch.sketch.flip(-1), photo=batch.photo.flip(-1)))
    for name in ("sketch", "photo", "taught_sketch", "taught_photo", "likelihood"):
        torch.testing.assert_close(mirrored[name], rows[name])
    torch.testing.assert_close(
        mirrored["spare"], F.normalize(model.photo_encoder(batch.unlabelled.flip(-1)), dim=-1)
    )

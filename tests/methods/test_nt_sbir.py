"""NT-SBIR: its selector, what strokes gain by finite differences, and what it learns to drop."""

import numpy as np
import pytest
import torch
from tools.batches import batch_of
from tools.trainers import trainer_of
from torch.nn import functional as F

from sbirlib.config.methods import NTSBIRConfig
from sbirlib.data import Recording, load_split, to_float
from sbirlib.methods import NTSBIR, recording
from sbirlib.methods.nt_sbir import POINTS, TEMPERATURE, Selector, seen
from sbirlib.methods.recordings import disturbed, drawn, layers
from sbirlib.retrieval import embed_split, score_all
from sbirlib.retrieval.scores import score_split

SIDE = 48
SCRIBBLE = np.stack(
    [np.linspace(0.05, 0.95, 13), np.tile([0.05, 0.95], 7)[:13]], axis=1
)  # all over the picture


def drawings_of(count, strokes=4, seed=0):
    """Drawings of a few short lines."""
    random = np.random.default_rng(seed)
    places = random.uniform(0.1, 0.9, (count, strokes, 1, 2)) + random.uniform(
        -0.1, 0.1, (count, strokes, 3, 2)
    )
    return [Recording(tuple(lines), SIDE) for lines in places]


def ink(images):
    """Rows of pictures, without a network: where there is ink."""
    return F.normalize(F.avg_pool2d(1 - images[:, :1], 6).flatten(1), dim=-1)


def pages_of(drawings):
    return to_float(torch.cat([drawn(drawing, None, SIDE, "pad") for drawing in drawings]), "cpu")


@pytest.fixture
def model():
    """In its second stage; photos look like the sketches, which are found by their ink."""
    torch.manual_seed(0)
    own = NTSBIRConfig(noise=0)
    model = NTSBIR("sbir_mini", image_size=SIDE, embed_dim=8, pool="mean", options=own)
    model.stage, model.embed_sketches = "selector", ink
    use(model, drawings_of(20))
    model.photos, model.photo_index = ink(pages_of(model.drawings)), torch.arange(20)
    return model


def use(model, drawings):
    model.drawings, model.layers = drawings, [layers(drawing, SIDE) for drawing in drawings]


def batch_with(rows, seed=0):
    views = torch.zeros(4, len(rows), 3, SIDE, SIDE)
    return batch_of(views, rows, seed=seed)._replace(rows=torch.tensor(rows))


def test_each_stroke_is_kept_or_dropped_with_a_look_at_the_others():
    points, selector = torch.rand(7, POINTS, 2), Selector()
    torch.testing.assert_close(selector([points])[0].exp(), torch.tensor([[0.1, 0.9]]).expand(7, 2))
    torch.manual_seed(1)
    torch.nn.init.normal_(selector.head.weight)
    found = selector([points])[0]
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(7))
    assert found[:, 0].std() > 0.01
    assert not torch.allclose(selector([points[:3]])[0], found[:3], atol=1e-3)
    several = selector([points[:3], points, points[:1]])
    assert [len(strokes) for strokes in several] == [3, 7, 1]
    for strokes, whole in zip((points[:3], points, points[:1]), several, strict=True):
        torch.testing.assert_close(selector([strokes])[0], whole)
    # In drawing order: a stroke is judged by what was drawn just before and after it.
    assert not torch.allclose(selector([points.flip(0)])[0].flip(0), found, atol=1e-3)


def test_both_decisions_on_a_stroke_count_with_what_they_gain_over_the_mean_one(model):
    model.options = NTSBIRConfig(steady=0.0)
    gains = torch.tensor([[1.0, -2.0, 4.0]])
    model._gains = lambda ink, kept, truth: (gains, torch.ones(1))
    old = torch.tensor([0.3, -0.4, 1.0])
    keep = old.clone().requires_grad_()

    def policy(logits):
        return torch.stack([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=1)

    loss, _ = model._tried(policy(keep), policy(old), torch.zeros(3, SIDE**2), torch.rand(3), torch.tensor(0))
    # Where the selectors agree that is the gradient of the gains that are expected, sum_i p_i g_i.
    fair = (gains[0] - gains.mean()) / (gains.std() + 1e-3)
    expected = -fair * old.sigmoid() * (1 - old.sigmoid()) / 3
    torch.testing.assert_close(torch.autograd.grad(loss, keep)[0], expected)


def test_points_are_chosen_evenly_along_a_stroke():
    bent = np.array([(0.0, 0.0), (0.3, 0.0), (0.3, 0.1)])
    found = seen([bent, bent[1:2]])
    assert found.shape == (2, POINTS, 2)
    halves = torch.linspace(0, 2, POINTS)
    expected = torch.stack([0.3 * halves.clamp(max=1), 0.1 * (halves - 1).clamp(min=0)], dim=1)
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], torch.tensor([(0.3, 0.0)]).expand(POINTS, 2))


def test_the_ink_of_all_strokes_is_the_drawing_and_that_of_some_is_nearly_theirs(pairs):
    for sketch in pairs.split("test").sketches[:8]:
        drawing = recording(sketch)
        ink = layers(drawing, SIDE).toarray().astype(float)
        assert ink.shape == (len(drawing.strokes), SIDE * SIDE)
        whole = drawn(drawing, None, SIDE, "pad")[0, 0].flatten().numpy()
        np.testing.assert_allclose(255 - ink.sum(axis=0), whole, atol=5)
        keep = np.random.default_rng(0).random(len(drawing.strokes)) < 0.7
        some = drawn(drawing, keep, SIDE, "pad")[0, 0].flatten().numpy().astype(float)
        wrong = np.abs(255 - ink[keep].sum(axis=0) - some).mean()
        assert wrong < 0.5 * np.abs(some - whole).mean()


def page_of(lines, shares):
    """A sketch with shares of the ink (n, s * s) of its strokes."""
    return (1 - (lines * shares[:, None]).sum(dim=0).clamp(max=1)).expand(1, 3, -1).reshape(1, 3, SIDE, SIDE)


def test_what_a_stroke_gains_is_a_finite_difference_and_an_empty_set_keeps_all(model):
    kept = torch.tensor(np.random.default_rng(0).random((8, 4)) < 0.5)
    kept[1], kept[2] = False, True
    lines = torch.from_numpy(model.layers[17].toarray()) / 255 / 4  # as faint as not to saturate
    gains, found = model._gains(lines, kept, torch.tensor(17))

    def reward(shares):
        scores = ink(page_of(lines, shares))[0].double() @ model.photos.double().T
        return (scores / TEMPERATURE).exp()[17].log() - (scores / TEMPERATURE).exp().sum().log()

    for keep, gain, one_by_rank in zip(kept, gains, found, strict=True):
        shares = keep.float() if keep.any() else torch.ones(4)
        for stroke, step in enumerate(0.01 * torch.eye(4)):
            difference = (reward(shares + step) - reward(shares - step)) / 0.02
            assert gain[stroke].item() == pytest.approx(difference.item(), rel=0.02, abs=0.02)
        scores = (ink(page_of(lines, shares)) @ model.photos.T)[0]
        rank = sum(bool(score >= scores[17] - 1e-6) for score in scores)
        assert one_by_rank.item() == pytest.approx(1 / rank)
    torch.testing.assert_close(gains[1], gains[2])


def with_scribbles(drawings):
    """Drawings with a scribble among their strokes, and which stroke that is."""
    random, scribble = np.random.default_rng(0), Recording((SCRIBBLE,), SIDE)
    both = [disturbed(drawing, scribble, 1, random) for drawing in drawings]
    return [drawing for drawing, _ in both], np.stack([strokes >= 4 for _, strokes in both])


def test_the_best_of_random_sets_is_at_least_as_good_as_all_strokes(model):
    use(model, with_scribbles(model.drawings)[0])
    random, best, every = np.random.default_rng(0), [], []
    for row, lines in enumerate(model.layers):
        sets = torch.from_numpy(random.random((13, 5)) < 0.7)
        sets[0] = True
        _, found = model._gains(torch.from_numpy(lines.toarray()) / 255, sets, torch.tensor(row))
        best.append(found[1:].max())
        every.append(found[0])
    assert torch.stack(best).mean() > torch.stack(every).mean() + 0.1


def test_what_a_sketch_gains_depends_on_its_own_numbers(model):
    model.options = NTSBIRConfig(noise=2, steady=0.1)
    torch.nn.init.normal_(model.selector.head.bias)
    model.old.module.load_state_dict(model.selector.state_dict())
    batch = batch_with([4, 0, 9])
    rows = model.encode(batch)
    assert {name: value.shape for name, value in rows.items()} == dict.fromkeys(model.terms, (3,))
    part = model.encode(batch._replace(rows=batch.rows[1:], numbers=batch.numbers[1:]))
    for name, value in part.items():
        torch.testing.assert_close(value, rows[name][1:], atol=1e-4, rtol=1e-4)
    other = model.encode(batch._replace(numbers=batch.numbers.flip(0)))

    def gradient(totals):
        return torch.autograd.grad(totals.sum(), model.selector.head.weight, retain_graph=True)[0]

    torch.testing.assert_close(gradient(part["total"]), gradient(rows["total"][1:]), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(gradient(other["total"]), gradient(rows["total"]), atol=1e-3)
    # Where no stroke gains anything, there is nothing to learn but to be as at first.
    model._gains = lambda ink, kept, truth: (torch.zeros(kept.shape), torch.ones(1))
    terms = model.compare(model.encode(batch), batch)
    drop = model.selector.head.bias.softmax(dim=0)[0].item()
    change = 0.1 * np.log(0.1 / drop) + 0.9 * np.log(0.9 / (1 - drop))
    assert terms["total"].item() == pytest.approx(0.1 * change, rel=1e-4)


def test_a_stroke_that_does_nothing_but_harm_is_learnt_to_be_dropped(model):
    drawings, harm = with_scribbles(model.drawings)
    use(model, drawings)
    assert all(model.clean(drawing).all() for drawing in drawings)
    optimizer = torch.optim.Adam(model.selector.parameters(), lr=0.01)
    for step in range(40):
        batch = batch_with(range(20), seed=step)
        optimizer.zero_grad()
        model.compare(model.encode(batch), batch)["total"].backward()
        optimizer.step()
        model.after_step()
    dropped = ~np.stack([model.clean(drawing) for drawing in drawings])
    assert dropped[harm].mean() > 0.8
    assert dropped[~harm].mean() < 0.2


def test_keeping_all_strokes_scores_as_the_network_alone(pairs, tiny):
    torch.manual_seed(0)
    model = NTSBIR("sbir_mini", image_size=SIDE, embed_dim=16, pool="mean").eval()
    data = load_split(pairs.split("test"), tiny.data, SIDE)
    base = score_all(model.score, *embed_split(model, data))
    truth = base.gather(1, data.photo_index[:, None])
    expected = (base >= truth).sum(dim=1).tolist()
    assert score_split(model, data).ranks.tolist() == expected
    # None is left by this selector, and so all are.
    model.selector.head.bias.data = torch.tensor([5.0, -5.0])
    assert score_split(model, data).ranks.tolist() == expected
    assert score_split(model, data, protocol="test").protocol == (
        "test; without the strokes that the model drops"
    )


def test_the_second_stage_moves_the_selector_alone_at_its_own_rate(pairs, tiny, tmp_path):
    small = {"nt_sbir.rate": 3.0, "run.epochs": 2, "run.device": "cpu"}
    config = tiny.updated({"method": "nt_sbir"}).updated(small | {"optim.schedule": "constant"})
    trainer = trainer_of(pairs, config, tmp_path / "run")
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(config.optim.lr)
    epochs, model = trainer.epochs(), trainer.method
    next(epochs)
    assert model.stage == "selector"
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(3 * config.optim.lr)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    record = next(epochs)
    moved = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert {"selector.head.weight", "old.n_averaged"} <= moved
    assert [name for name in moved if not name.startswith(("selector.", "old."))] == []
    assert not any(name.startswith("photo") and "encoder" not in name for name in before)
    assert record.losses["reciprocal_rank"] != 0
    epochs.close()

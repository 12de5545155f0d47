"""NT-SBIR: its selector by itself, its reward against loops, and what it learns to drop."""

import numpy as np
import pytest
import torch
from tools.batches import batch_of
from tools.trainers import trainer_of
from torch.nn import functional as F

from sbirlib.config.methods import NTSBIRConfig
from sbirlib.data import Recording, load_split, to_float
from sbirlib.methods import NTSBIR
from sbirlib.methods.nt_sbir import POINTS, Selector, evenly
from sbirlib.methods.recordings import disturbed, drawn
from sbirlib.retrieval import embed_split, score_all, score_split

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
    own = NTSBIRConfig(noise=0, refresh=1, keep=0.8, entropy=0.01)
    model = NTSBIR("sbir_mini", image_size=SIDE, embed_dim=8, pool="mean", options=own)
    model.stage, model.embed_sketches = "selector", ink
    model.drawings = drawings_of(20)
    model.photos, model.photo_index = ink(pages_of(model.drawings)), torch.arange(20)
    return model


def batch_with(rows, seed=0):
    views = torch.zeros(4, len(rows), 3, SIDE, SIDE)
    return batch_of(views, rows, seed=seed)._replace(rows=torch.tensor(rows))


def random_selector():
    torch.manual_seed(1)
    selector = Selector(0.8)
    torch.nn.init.normal_(selector.head.weight)
    return selector


def test_each_stroke_is_kept_or_dropped_and_other_drawings_do_not_count():
    drawings = [torch.rand(count, POINTS, 2) for count in (3, 1, 7)]
    selector = random_selector()
    found = selector(drawings)
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(11))
    alone = torch.cat([selector([drawing]) for drawing in drawings])
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)
    # Other strokes of the same drawing do.
    assert not torch.allclose(selector([drawings[2][:3]]), found[4:7], atol=1e-3)
    torch.testing.assert_close(Selector(0.7)(drawings).exp(), torch.tensor([[0.3, 0.7]]).expand(11, 2))


def test_points_are_evenly_spaced_along_a_stroke():
    bent = np.array([(0.0, 0.0), (0.3, 0.0), (0.3, 0.1)])
    np.testing.assert_allclose(evenly(bent, 5), [(0, 0), (0.1, 0), (0.2, 0), (0.3, 0), (0.3, 0.1)], atol=1e-9)
    np.testing.assert_array_equal(evenly(bent[1:2], 3), [(0.3, 0)] * 3)


def test_the_reward_is_a_loop_over_sets_of_strokes_and_an_empty_set_keeps_all(model):
    rows = [3, 17]
    kept = [torch.tensor(sets) for sets in np.random.default_rng(0).random((2, 5, 4)) < 0.5]
    kept[0][1] = False
    found = model._reward([model.drawings[row] for row in rows], kept, torch.tensor(rows))
    for b, row in enumerate(rows):
        for k, keep in enumerate(kept[b].numpy()):
            page = drawn(model.drawings[row], keep if keep.any() else None, SIDE, "pad")
            apart = torch.cdist(ink(to_float(page, "cpu")), model.photos)[0]
            rank = sum(bool(other <= apart[row] + 1e-4) for other in apart)
            nearest = min(other for i, other in enumerate(apart.tolist()) if i != row)
            expected = 1 / rank - max(0, 0.2 + apart[row].item() - nearest)
            assert found[b, k].item() == pytest.approx(expected, abs=2e-3)
    whole = [torch.ones(1, 4, dtype=torch.bool)] * 2
    first = model._reward([model.drawings[row] for row in rows], whole, torch.tensor(rows))
    assert first[0].item() == pytest.approx(found[0, 1].item())


def test_the_best_of_random_sets_is_at_least_as_good_as_all_strokes(model):
    random = np.random.default_rng(0)
    noisy = [disturbed(d, Recording((SCRIBBLE,), SIDE), 1, random)[0] for d in model.drawings]
    sets = [torch.from_numpy(random.random((12, 5)) < 0.7) for _ in noisy]
    best = model._reward(noisy, sets, model.photo_index).amax(dim=1)
    every = model._reward(noisy, [torch.ones(1, 5, dtype=torch.bool)] * 20, model.photo_index)[:, 0]
    assert best.mean() > every.mean() + 0.1
    assert (best >= every - 1e-6).float().mean() > 0.9


def test_what_each_row_is_to_gain_depends_on_its_own_numbers(model):
    model.options = NTSBIRConfig(noise=2, sets=3, entropy=0.01)
    batch = batch_with([4, 0, 9])
    rows = model.encode(batch)
    assert {name: value.shape for name, value in rows.items()} == dict.fromkeys(model.terms[1:], (3,))
    part = batch._replace(rows=batch.rows[1:], numbers=batch.numbers[1:])
    for name, value in model.encode(part).items():
        torch.testing.assert_close(value, rows[name][1:], atol=1e-5, rtol=1e-5)
    other = model.encode(batch._replace(numbers=batch.numbers.flip(0)))
    assert not torch.allclose(other["reward"], rows["reward"])
    # Where all of a sketch's sets fare alike, there is nothing to learn but entropy.
    model._reward = lambda drawings, kept, truth: torch.ones(len(drawings), 3)
    terms = model.compare(model.encode(batch), batch)
    assert terms["policy"] == 0
    assert terms["total"].item() == pytest.approx(-0.01 * terms["entropy"].item())
    assert terms["entropy"].item() == pytest.approx(-(0.8 * np.log(0.8) + 0.2 * np.log(0.2)))


def test_a_stroke_that_does_nothing_but_harm_is_learnt_to_be_dropped(model):
    clean, random = model.drawings, np.random.default_rng(0)
    noisy = [disturbed(d, Recording((SCRIBBLE,), SIDE), 1, random) for d in clean]
    model.drawings = [drawing for drawing, _ in noisy]
    assert all(model.clean(drawing) is None for drawing in model.drawings)
    optimizer = torch.optim.Adam(model.selector.parameters(), lr=0.01)
    for step in range(40):
        batch = batch_with(range(20), seed=step)
        optimizer.zero_grad()
        model.compare(model.encode(batch), batch)["total"].backward()
        optimizer.step()
        model.after_step()
    masks = [model.clean(drawing) for drawing in model.drawings]
    dropped = np.stack([np.zeros(5, bool) if mask is None else ~mask for mask in masks])
    harm = np.stack([added for _, added in noisy])
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
        "test; 0 sketches without the strokes that the model drops"
    )


def test_the_second_stage_moves_the_selector_alone_at_its_own_rate(pairs, tiny, tmp_path):
    small = {"nt_sbir.sets": 2, "nt_sbir.rate": 3.0, "run.epochs": 2, "run.device": "cpu"}
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
    assert record.losses["reward"] != 0
    epochs.close()

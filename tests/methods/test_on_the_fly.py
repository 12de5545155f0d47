"""OnTheFly: its rewards against plain loops, its policy in closed form, and what each stage leaves alone."""

import itertools
import math

import pytest
import torch
from tools.batches import batch_of, images
from tools.trainers import trainer_of
from torch.nn import functional as F

from sbirlib.config.methods import OnTheFlyConfig
from sbirlib.data import load_split, to_float
from sbirlib.methods import OnTheFly
from sbirlib.methods.on_the_fly import kendall_distance, noise, ranks, unsettled


@pytest.fixture
def model():
    """In its second stage, with five sketches of four photos that were never drawn: random rows."""
    torch.manual_seed(0)
    own = OnTheFlyConfig(steps=4, spread=0.5, stable=0.1, refresh=3, episodes=1)
    model = OnTheFly("sbir_mini", image_size=48, embed_dim=8, pool="mean", options=own)
    model.stage = "policy"
    model.drawings = images(5, 4, model.policy.mean.in_features) - 0.5
    model.photos = F.normalize(images(4, 8, seed=1) - 0.5, dim=-1)
    model.photo_index = torch.tensor([0, 1, 1, 2, 3])
    return model


def batch_with(rows, seed=0):
    return batch_of(torch.zeros(4, len(rows), 3, 48, 48), seed=seed)._replace(rows=torch.tensor(rows))


def test_the_rank_is_a_plain_loop_and_counts_ties_against_the_photo():
    scores, truth = (4 * images(3, 5, 6)).round(), torch.tensor([2, 0, 5])
    expected = [
        [sum(bool(other >= row[own]) for other in row) for row in steps]
        for steps, own in zip(scores, truth, strict=True)
    ]
    assert ranks(scores, truth).tolist() == expected
    assert ranks(torch.ones(1, 1, 6), truth[:1]).item() == 6


@pytest.mark.parametrize("count", [2, 3, 7, 8, 33])
def test_kendalls_distance_is_the_share_of_pairs_in_another_order(count):
    random = torch.Generator().manual_seed(count)
    first, second = (torch.rand(2, 3, count, generator=random).argsort(dim=-1) for _ in range(2))
    assert not kendall_distance(first, first).any()
    assert (kendall_distance(first, first.flip(-1)) == 1).all()
    swapped = first.clone()
    swapped[..., [count - 2, count - 1]] = first[..., [count - 1, count - 2]]
    torch.testing.assert_close(
        kendall_distance(first, swapped), torch.full((2, 3), 2 / (count * (count - 1)))
    )
    for place in itertools.product(range(2), range(3)):
        one, other = first[place].tolist(), second[place].tolist()
        turned = [
            (one.index(a) < one.index(b)) != (other.index(a) < other.index(b))
            for a, b in itertools.combinations(range(count), 2)
        ]
        assert kendall_distance(first, second)[place].item() == pytest.approx(sum(turned) / len(turned))


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_lists_that_change_more_and_more_are_unsettled(steps):
    lists = images(2, steps, 9).argsort(dim=-1)
    found = unsettled(lists)
    assert found.shape == (2, steps)
    for row, t in itertools.product(range(2), range(steps)):
        before, now, after = (lists[row, min(max(t + step, 0), steps - 1)] for step in (-1, 0, 1))
        more = kendall_distance(now, after) - kendall_distance(before, now)
        assert found[row, t].item() == pytest.approx(max(0.0, more.item()) if 0 < t < steps - 1 else 0.0)


def test_the_probability_of_an_action_is_a_normal_density(model):
    with torch.no_grad():
        model.policy.log_variance.copy_(torch.linspace(-2, 1, 8))
    policy, actions, expected = model.policy(model.drawings), images(5, 4, 8), 0.0
    for i, log_variance in enumerate(torch.linspace(-2, 1, 8).tolist()):
        apart = actions[..., i] - model.policy.mean(model.drawings)[..., i]
        expected -= (apart**2 / math.exp(log_variance) + log_variance + math.log(2 * math.pi)) / 2
    torch.testing.assert_close(policy.log_prob(actions).sum(dim=-1), expected)


def test_noise_is_normal_and_belongs_to_its_row():
    numbers = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    found = noise(numbers, (4, 8))
    assert torch.equal(noise(numbers[2:4], (4, 8)), found[2:4])
    assert found.mean(dim=0).abs().max() < 0.08
    torch.testing.assert_close(found.std(dim=0), torch.ones(4, 8), atol=0.06, rtol=0)


def test_the_first_step_after_a_refresh_is_that_of_reinforce(model):
    batch = batch_with([4, 0, 2])
    terms = model.compare(model.encode(batch), batch)
    found = torch.autograd.grad(terms["total"], list(model.policy.parameters()))
    drawings = model.drawings[batch.rows]
    policy = model.policy(drawings)
    actions = (policy.mean + 0.5 * noise(batch.numbers[:, 2], (1, 4, 8))[:, 0]).detach()
    scores = F.normalize(actions, dim=-1) @ model.photos.T
    reward = 1 / ranks(scores, model.photo_index[batch.rows])
    reward = reward - 0.1 * unsettled(scores.argsort(dim=-1, descending=True))
    loss = -(reward * policy.log_prob(actions).sum(dim=-1)).mean()
    torch.testing.assert_close(found, torch.autograd.grad(loss, list(model.policy.parameters())))
    assert terms["reciprocal_rank"] > 0
    assert [name for name, term in terms.items() if not term] == ["triplet"]


def test_a_constant_reward_teaches_nothing_on_average(model):
    count = 4000
    mean = torch.zeros(count, 1, 4, 8, requires_grad=True)
    policy = torch.distributions.Normal(mean, 0.5)
    numbers = torch.rand(count, generator=torch.Generator().manual_seed(0))
    chosen = policy.log_prob(0.5 * noise(numbers, (1, 4, 8))).sum(dim=-1)
    ones = torch.ones(count, 1, 4)
    rows = {"found": ones, "unsettled": 0 * ones, "new": chosen, "old": chosen}
    model.compare(rows, batch_with(range(5)))["total"].backward()
    of_one = mean.grad * count * 4  # (mean - action) / variance, whose deviation is 2
    assert of_one.std().item() == pytest.approx(2, rel=0.05)
    assert of_one.mean(dim=0).abs().max() < 5 * 2 / math.sqrt(count)


def test_of_several_episodes_what_is_better_than_their_mean_is_rewarded_by_their_spread(model):
    model.options = OnTheFlyConfig(episodes=2, steps=4, stable=0.0)
    assert model.encode(batch_with([4, 0, 2]))["found"].shape == (3, 2, 4)
    new = torch.zeros(1, 2, 4, requires_grad=True)
    rows = {"found": torch.tensor([[[1.0, 0.5, 1.0, 1.0], [1.0, 1.0, 0.5, 0.25]]])}
    rows |= {"unsettled": torch.zeros(1, 2, 4), "new": new, "old": torch.zeros(1, 2, 4)}
    model.compare(rows, batch_with([0]))["total"].backward()
    # Two that differ lie half of the square root of 2 standard deviations to either side of their mean.
    spread = torch.tensor([0, 0.5, 0.5, 0.75]) / math.sqrt(2)
    better = torch.tensor([0, -0.25, 0.25, 0.375]) / (spread + 1e-3)
    torch.testing.assert_close(-8 * new.grad, torch.stack([better, -better])[None])


def test_the_second_stage_embeds_what_the_model_sees_and_moves_the_policy_alone(pairs, tiny, tmp_path):
    small = {"on_the_fly.steps": 3, "run.epochs": 2, "data.val_fraction": 0.0, "run.device": "cpu"}
    config = tiny.updated({"method": "on_the_fly"}).updated(small)
    trainer = trainer_of(pairs, config, tmp_path / "run")
    epochs, model = trainer.epochs(), trainer.method
    next(epochs)
    assert model.stage == "policy"
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    data = load_split(pairs.split("train"), config.data, model.image_size)
    assert model.drawings.shape[:2] == (len(data.sketches), 3)
    model.eval()
    with torch.no_grad():
        whole, photos = model.embed_sketches(to_float(data.sketches, "cpu")), to_float(data.photos, "cpu")
        rows = F.normalize(model.policy.mean(model.drawings), dim=-1)
        torch.testing.assert_close(rows[:, -1], whole)
        assert not torch.allclose(rows[:, 0], whole, atol=1e-3)
        torch.testing.assert_close(model.photos, model.embed_photos(photos))
        # Until its stage, the policy is the layer that learns in the first one.
        torch.testing.assert_close(
            F.normalize(model.sketch_encoder(to_float(data.sketches, "cpu")), dim=-1), whole
        )
    model.train()
    next(epochs)
    moved = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    own = {f"policy.{name}" for name in ("mean.weight", "mean.bias", "log_variance")}
    own |= {f"sketch_encoder.embed.{name}" for name in ("weight", "bias")}
    assert own | {"old.n_averaged"} <= moved
    assert [name for name in moved - own if not name.startswith("old.")] == []
    assert not any(name.startswith(("drawings", "photos")) for name in before)
    epochs.close()


@pytest.mark.parametrize(
    "options", [{"share_encoders": True}, {"share_encoders": True, "photo_edges": True}, {}]
)
def test_sketches_and_photos_begin_alike_and_have_a_last_layer_each(options):
    model = OnTheFly("sbir_mini", image_size=48, embed_dim=8, pool="mean", **options)
    sketch, photo = model.sketch_encoder, model.photo_encoder
    assert torch.equal(sketch.embed.weight, photo.embed.weight)
    assert sketch.embed.weight is model.policy.mean.weight is not photo.embed.weight
    shared = options.get("share_encoders", False)
    assert (sketch.attention[0].weight is photo.attention[0].weight) == shared
    assert photo.backbone.edges == options.get("photo_edges", False)
    torch.testing.assert_close(model.policy(torch.zeros(1, 128)).stddev, torch.full((1, 8), 0.3))


def test_while_the_encoders_learn_the_old_policy_is_the_new_one():
    model = OnTheFly("sbir_mini", image_size=48, embed_dim=8, pool="mean")
    model.stage = "retrieval"
    for _ in range(model.options.refresh + 1):
        with torch.no_grad():
            model.sketch_encoder.embed.weight.add_(1.0)
        model.after_step()
        torch.testing.assert_close(model.old.module.state_dict(), model.policy.state_dict())
    model.stage = "policy"
    model.after_step()
    torch.testing.assert_close(model.old.module.state_dict(), model.policy.state_dict())

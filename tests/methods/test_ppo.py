"""PPO: the clipped surrogate against a plain loop and REINFORCE, and the policy that actions come from."""

import math

import torch
from torch import nn

from sbirlib.methods.ppo import clipped_surrogate, old_policy


def test_the_surrogate_is_a_plain_loop_over_actions():
    random = torch.Generator().manual_seed(0)
    new, old, advantages = (torch.randn(4, 5, generator=random) for _ in range(3))
    expected = []
    for now, before, advantage in zip(*(x.flatten().tolist() for x in (new, old, advantages)), strict=True):
        ratio = math.exp(now - before)
        expected.append(min(ratio * advantage, min(max(ratio, 0.9), 1.1) * advantage))
    found = clipped_surrogate(new, old, advantages, clip=0.1)
    torch.testing.assert_close(found, torch.tensor(expected).view(4, 5))


def test_the_first_step_is_that_of_reinforce():
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(6, 3, generator=random, requires_grad=True)
    actions, advantages = torch.tensor([0, 1, 2, 0, 1, 2]), torch.randn(6, generator=random)
    log_probs = scores.log_softmax(dim=1)[range(6), actions]
    surrogate = clipped_surrogate(log_probs, log_probs, advantages).mean()
    [found] = torch.autograd.grad(surrogate, scores, retain_graph=True)
    [expected] = torch.autograd.grad((advantages * log_probs).mean(), scores)
    torch.testing.assert_close(found, expected)


def test_a_ratio_beyond_the_clip_teaches_nothing_where_it_would_go_on():
    log_probs = torch.tensor([0.5, -0.5, 0.5, -0.5], requires_grad=True)
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0])
    clipped_surrogate(log_probs, torch.zeros(4), advantages).sum().backward()
    assert (log_probs.grad != 0).tolist() == [False, True, True, False]


def test_the_old_policy_follows_every_few_steps_and_is_saved_with_its_count():
    policy = nn.Linear(2, 2)
    old, again = old_policy(policy, refresh=3), old_policy(policy, refresh=3)
    followed = []
    for step in range(7):
        nn.init.constant_(policy.weight, step)
        old.update_parameters(policy)
        followed.append(old.module.weight[0, 0].item() == step)
        if step == 3:
            again.load_state_dict(old.state_dict())
        if step > 3:
            again.update_parameters(policy)
            assert torch.equal(again.module.weight, old.module.weight)
    assert followed == [True, False, False, True, False, False, True]
    assert not any(weight.requires_grad for weight in old.parameters())
    assert torch.equal(old(torch.ones(1, 2)), policy(torch.ones(1, 2)))

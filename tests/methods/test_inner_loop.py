"""The inner loop: one step a task, by plain loops and by finite differences."""

import pytest
import torch
from torch import nn

from sbirlib.methods.inner_loop import in_tasks, inner_step


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def head_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def test_unchanged_weights_give_what_the_head_gives():
    head, rows = head_of(), randn(5, 7, 3)
    weights = {name: weight.expand(5, *weight.shape) for name, weight in head.named_parameters()}
    torch.testing.assert_close(in_tasks(head, weights, rows), head(rows))


def test_each_task_takes_a_step_of_its_own():
    head, rows, goals = head_of(), randn(3, 7, 3), randn(3, 7, 2, seed=1)

    def loss(weights):
        return (in_tasks(head, weights, rows) - goals).square().mean(dim=(1, 2))

    found = inner_step(head, loss, 3, 0.1)
    for task in range(3):
        own = (head(rows[task]) - goals[task]).square().mean()
        gradients = torch.autograd.grad(own, list(head.parameters()))
        for (name, weight), gradient in zip(head.named_parameters(), gradients, strict=True):
            torch.testing.assert_close(found[name][task], weight - 0.1 * gradient)
    before = {name: weight.expand(3, *weight.shape) for name, weight in head.named_parameters()}
    assert (loss(found) < loss(before)).all()
    for name, weight in inner_step(head, loss, 3, 0.0).items():
        assert torch.equal(weight, before[name])


def test_the_gradient_through_a_step_is_that_of_finite_differences():
    head, strength = nn.Linear(1, 1).double(), torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    rows, goals, later = randn(2, 4, 1), randn(2, 4, 1, seed=1), randn(2, 4, 1, seed=2)

    def apart(weights, goals):
        return (in_tasks(head, weights, rows) - goals).pow(4).mean(dim=(1, 2))

    def outer():
        adapted = inner_step(head, lambda weights: strength * apart(weights, goals), 2, 0.05)
        return apart(adapted, later).sum()

    # Weight and bias of the head, and what only the step knows.
    learnt = [*head.parameters(), strength]
    for weight, gradient in zip(learnt, torch.autograd.grad(outer(), learnt), strict=True):
        values = []
        for by in (1e-5, -1e-5):
            weight.data += by
            values.append(outer().item())
            weight.data -= by
        assert gradient.item() != 0
        assert gradient.item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)

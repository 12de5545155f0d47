"""The inner loop of meta-learning: a step of gradient descent, in each task with weights of its own.

Only a small head takes it, on rows that a backbone has made (ANIL; Raghu et al., arXiv 1909.09157).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

Weights = dict[str, Tensor]  # of a head in each task, (tasks, ...)


def inner_step(head: nn.Module, loss: Callable[[Weights], Tensor], tasks: int, rate: float) -> Weights:
    """The weights of `head` in each task after a step down the gradient of `loss`, which is (tasks,).

    A gradient of the result goes through the step as well (second order). Source: MAML (Finn et al., arXiv
    1703.03400).
    """
    weights = {name: weight.expand(tasks, *weight.shape) for name, weight in head.named_parameters()}
    # A task's loss knows its own weights only, so the gradient of the sum is that of each.
    gradients = torch.autograd.grad(loss(weights).sum(), list(weights.values()), create_graph=True)
    steps = zip(weights.items(), gradients, strict=True)
    return {name: weight - rate * gradient for (name, weight), gradient in steps}


def in_tasks(head: nn.Module, weights: Weights, rows: Tensor) -> Tensor:
    """What `head` makes of rows (tasks, ...) with the weights of their task."""
    return torch.vmap(partial(functional_call, head))(weights, rows)

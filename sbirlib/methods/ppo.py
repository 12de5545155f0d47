"""Proximal policy optimisation (Schulman et al., arXiv 1707.06347), for methods that learn from a reward."""

import copy

import torch
from torch import Tensor, nn


def clipped_surrogate(
    log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, clip: float = 0.2
) -> Tensor:
    """What is to grow for each action: min(r A, clip(r, 1 - clip, 1 + clip) A), r = pi / pi_old.

    All three have one shape, an element for an action; gradients flow into `log_probs` alone. While pi is
    pi_old, the gradient is that of REINFORCE, A grad log pi. A method minimises the negative mean over those
    actions that count.
    """
    advantages = advantages.detach()
    ratio = (log_probs - old_log_probs.detach()).exp()
    return torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


class OldPolicy(nn.Module):
    """The copy of a policy that actions are drawn from, brought up to date every `refresh` steps.

    Copy and count of steps are saved with the model, so that a run that goes on draws as it would have.
    """

    steps: Tensor

    def __init__(self, policy: nn.Module, refresh: int) -> None:
        super().__init__()
        self.policy, self.refresh = copy.deepcopy(policy).requires_grad_(False), refresh
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def follow(self, policy: nn.Module) -> None:
        """To be called after each step of the optimiser on `policy`."""
        self.steps += 1
        if self.steps % self.refresh == 0:
            self.policy.load_state_dict(policy.state_dict())

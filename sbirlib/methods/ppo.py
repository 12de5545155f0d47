"""Proximal policy optimisation (Schulman et al., arXiv 1707.06347), for methods that learn from a reward."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


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


def old_policy(policy: nn.Module, refresh: int) -> AveragedModel:
    """A copy of a policy that actions are drawn from, made anew at every so many `update_parameters(policy)`.

    It is called as the policy is. Weights and count of steps are saved with the model.
    """
    copied = AveragedModel(policy, avg_fn=lambda old, new, steps: new if steps % refresh == 0 else old)
    return copied.requires_grad_(False)

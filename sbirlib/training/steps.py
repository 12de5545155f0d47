"""One step of training: its loss over all processes, and its gradient, whole or in chunks."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from accelerate.utils import gather
from torch import Tensor, nn

from sbirlib.data.batches import LABELS, Batch, Epoch
from sbirlib.layers.chance import drawing
from sbirlib.methods.base import Method


def backward(
    accelerator: Accelerator, model: nn.Module, plan: Epoch, rows: Tensor, key: tuple[int, ...],
    chunk: int = 0,
) -> Tensor:  # fmt: skip
    """Adds the gradient of the loss on this process's sketches `rows` (b,); returns the loss terms (t,).

    The pairs of all processes make one batch. Dropout depends on `key` alone. With `chunk` pairs at a time
    the encoders run twice with the same views and dropout: first without a graph, for the rows, then chunk
    by chunk, for the weights. The gradient is that of the whole batch, which the sum of smaller batches'
    gradients is not: their pairs would not be each other's negatives. Source: gradient caching (Gao et al.,
    arXiv 2101.06983).
    """
    method: Method = accelerator.unwrap_model(model)
    if not chunk or chunk >= len(rows):
        batch = plan.batch(rows, accelerator.device)
        with drawing(*key, device=accelerator.device):
            terms = joint_loss(accelerator, method, model(batch), batch)
            accelerator.backward(accelerator.num_processes * terms["total"])
    else:
        terms = _cached(accelerator, model, method, plan, rows.split(chunk), key)
    return torch.stack([terms[name].detach().float() for name in method.terms])


def joint_loss(
    accelerator: Accelerator, method: Method, rows: dict[str, Tensor], batch: Batch
) -> dict[str, Tensor]:
    """The loss terms of the pairs of all processes.

    Rows of other processes have no graph: each process finds the derivative by its own rows, and their sum is
    the whole. Since processes average gradients, each must differentiate the loss times their number.
    """
    if accelerator.num_processes > 1:
        rows = {name: _everyone(accelerator, value) for name, value in rows.items()}
        batch = Batch(*map(gather, batch[:LABELS]))
    return method.compare(rows, batch)


def _cached(
    accelerator: Accelerator, model: nn.Module, method: Method, plan: Epoch, parts: Sequence[Tensor],
    key: tuple[int, ...],
) -> dict[str, Tensor]:  # fmt: skip
    device, size = accelerator.device, sum(map(len, parts))
    encoded, labels = [], []
    with torch.no_grad():
        for number, rows in enumerate(parts):
            batch = plan.batch(rows, device)
            with drawing(*key, number, device=device):
                encoded.append(model(batch))
            labels.append(batch[:LABELS])
    leaves = {}
    for name in encoded[0]:
        values = [part[name] for part in encoded]
        shares = [value * (len(rows) / size) for value, rows in zip(values, parts, strict=True)]
        whole = torch.cat(values) if values[0].ndim else torch.stack(shares).sum(dim=0)
        leaves[name] = whole.requires_grad_()
    known = Batch(*map(torch.cat, zip(*labels, strict=True)))
    with drawing(*key, len(parts), device=device):
        terms = joint_loss(accelerator, method, leaves, known)
    total = accelerator.num_processes * terms["total"]
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    gradients = {name: value.float() for name, value in zip(leaves, found, strict=True) if value is not None}
    done = 0
    for number, rows in enumerate(parts):
        # Processes exchange gradients once a step, not once a chunk.
        last, batch = number == len(parts) - 1, plan.batch(rows, device)
        exchange = nullcontext() if last or accelerator.num_processes == 1 else accelerator.no_sync(model)
        with exchange, drawing(*key, number, device=device):
            again = model(batch)
            surrogate = torch.zeros((), device=device)
            for name, gradient in gradients.items():
                own = gradient[done : done + len(rows)] if gradient.ndim else gradient * (len(rows) / size)
                surrogate = surrogate + (again[name].float() * own).sum()
            accelerator.backward(surrogate)
        done += len(rows)
    return terms


def _everyone(accelerator: Accelerator, value: Tensor) -> Tensor:
    """The rows of all processes, or the mean of their scalars; those of this process with their graph."""
    if value.ndim:
        rows = list(gather(value.detach().contiguous()).chunk(accelerator.num_processes))
        rows[accelerator.process_index] = value
        return torch.cat(rows)
    mean = accelerator.reduce(value.detach(), "mean")
    return mean + (value - value.detach()) / accelerator.num_processes

"""One step of training: its loss over all processes, and its gradient, whole or chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import gather
from torch import Tensor, nn

from sbirlib.config.methods import LossConfig
from sbirlib.data.batches import Epoch
from sbirlib.layers.backbone import Tokens
from sbirlib.methods.arnet import ARNetOutput, Encoded, LossTerms, arnet_loss
from sbirlib.runs.state import random_state, set_random_state


def backward(
    accelerator: Accelerator, model: nn.Module, plan: Epoch, rows: Tensor, config: LossConfig, chunk: int = 0
) -> Tensor:
    """Adds the gradient of the loss of sketches `rows` (b,) of this process; returns its terms (7,).

    In several processes the pairs of all of them are one batch. With `chunk` pairs at a time the
    encoders run twice, first without a graph for the embeddings, then chunk by chunk for the weights,
    with the same views and the same dropout; the gradient is that of the whole batch. (Adding up the
    gradients of smaller batches would not be: their pairs would not be each other's negatives.)
    Source: gradient caching (Gao et al., arXiv 2101.06983).
    """
    if not chunk or chunk >= len(rows):
        views = plan.views(rows, accelerator.device)
        loss, objective = joint_loss(accelerator, model(*views[:-1]), views.photo_ids, config)
        accelerator.backward(objective)
        return _detached(loss)
    return _cached(accelerator, model, plan, rows.split(chunk), config)


class JointLoss(NamedTuple):
    """The `loss` of all pairs of a step, and the `objective` of this process, a scalar to go back from."""

    loss: LossTerms
    objective: Tensor


def joint_loss(
    accelerator: Accelerator, output: ARNetOutput, photo_ids: Tensor, config: LossConfig
) -> JointLoss:
    """The loss of the pairs of all processes, and what each must differentiate so that their mean is right.

    Rows of other processes come without a graph: each process brings the derivative by its own rows,
    and the sum of these is the whole. Since processes average gradients, the part that they share is
    counted once for each of them.
    """
    count = accelerator.num_processes
    if count == 1:
        loss = arnet_loss(output, photo_ids, config)
        return JointLoss(loss, loss.total)
    own = _recycling(output, config)
    mean = [accelerator.reduce(value.detach(), "mean") for value in (output.recyc_sketch, output.recyc_photo)]
    everyone = _with_features(output, [_gathered(accelerator, value) for value in _features(output)])
    everyone = everyone._replace(recyc_sketch=mean[0], recyc_photo=mean[1])
    loss = arnet_loss(everyone, gather(photo_ids), config)
    shared = loss.total - _recycling(everyone, config)
    return JointLoss(loss, count * shared + own)


def _recycling(output: ARNetOutput, config: LossConfig) -> Tensor:
    return config.recyc_sketch * output.recyc_sketch + config.recyc_photo * output.recyc_photo


def _cached(
    accelerator: Accelerator, model: nn.Module, plan: Epoch, parts: Sequence[Tensor], config: LossConfig
) -> Tensor:
    device, size = accelerator.device, sum(map(len, parts))
    states, features, ids, recyc = [], [], [], []
    with torch.no_grad():
        for rows in parts:
            states.append(random_state(device))
            views = plan.views(rows, device)
            output = model(*views[:-1])
            features.append(_features(output))
            ids.append(views.photo_ids)
            recyc.append(torch.stack([output.recyc_sketch, output.recyc_photo]) * (len(rows) / size))
    leaves = [torch.cat(values).requires_grad_() for values in zip(*features, strict=True)]
    sketch, photo = torch.stack(recyc).sum(dim=0)
    whole = _with_features(output, leaves)._replace(recyc_sketch=sketch, recyc_photo=photo)
    loss, objective = joint_loss(accelerator, whole, torch.cat(ids), config)
    gradients = torch.autograd.grad(objective, leaves)
    after = random_state(device)
    for number, (rows, state) in enumerate(zip(parts, states, strict=True), start=1):
        set_random_state(state, device)
        # Processes exchange gradients once a step, not once a chunk.
        last = number == len(parts)
        with nullcontext() if last or accelerator.num_processes == 1 else accelerator.no_sync(model):
            output = model(*plan.views(rows, device)[:-1])
            done = sum(map(len, parts[: number - 1]))
            surrogate = sum(
                (value.float() * gradient[done : done + len(rows)].float()).sum()
                for value, gradient in zip(_features(output), gradients, strict=True)
            )
            accelerator.backward(surrogate + _recycling(output, config) * (len(rows) / size))
    set_random_state(after, device)
    return _detached(loss)


def _features(output: ARNetOutput) -> list[Tensor]:
    """The rows that InfoNCE compares."""
    return [
        output.sketch.embedding,
        output.photo.embedding,
        output.sketch.cls,
        output.photo.cls,
        output.sketch_second.cls,
        output.photo_second.cls,
    ]


def _with_features(output: ARNetOutput, features: Sequence[Tensor]) -> ARNetOutput:
    sketch, photo, sketch_cls, photo_cls, sketch_second, photo_second = features

    def encoded(embedding: Tensor, cls: Tensor) -> Encoded:
        return Encoded(embedding, cls, cls.new_empty(0), None)

    return output._replace(
        sketch=encoded(sketch, sketch_cls),
        photo=encoded(photo, photo_cls),
        sketch_second=Tokens(sketch_second, sketch_second.new_empty(0)),
        photo_second=Tokens(photo_second, photo_second.new_empty(0)),
    )


def _gathered(accelerator: Accelerator, rows: Tensor) -> Tensor:
    """The rows of all processes, those of this one with their graph."""
    everyone = list(gather(rows.detach().contiguous()).chunk(accelerator.num_processes))
    everyone[accelerator.process_index] = rows
    return torch.cat(everyone)


def _detached(loss: LossTerms) -> Tensor:
    return torch.stack([term.detach().float() for term in loss])

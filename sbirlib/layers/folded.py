"""Convolutions that do the work of the BatchNorm after them, while neither learns."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from einops import rearrange
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import get_same_padding
from torch import Tensor, nn
from torch.nn import functional as F


def fold_norms(model: nn.Module, run: Callable[[], object]) -> None:
    """BatchNorm with fixed statistics is done by the convolution before it, where that needs no gradient.

    It scales and shifts each channel, as weights and a bias can: a pass over every map is saved. Parameters
    stay where they are. `run` calls the model, which shows what follows what. Source: Jacob et al. (CVPR
    2018), section 3.2, where it is done once, after training.
    """
    made: list[tuple[Tensor, nn.Module]] = []

    def watch(layer: Any, given: tuple[Tensor], rows: Tensor) -> None:
        if isinstance(layer, nn.BatchNorm2d):
            pairs.extend((conv, layer) for output, conv in made if output is given[0])
        elif 1 in layer.stride + layer.dilation:  # else `_convolve` could not pad it
            made.append((rows, layer))

    pairs: list[tuple[Any, Any]] = []
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    hooks = [layer.register_forward_hook(watch) for layer in layers]
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    for conv, norm in pairs:
        conv.forward, norm.forward = partial(_convolve, conv, norm), partial(_activate, norm)


def _folds(norm: Any) -> bool:
    return not (norm.training or (torch.is_grad_enabled() and norm.weight.requires_grad))


def _convolve(conv: Any, norm: Any, images: Tensor) -> Tensor:
    if not _folds(norm):
        return type(conv).forward(conv, images)
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    bias = norm.bias + scale * ((0 if conv.bias is None else conv.bias) - norm.running_mean)
    weight, padding = conv.weight * rearrange(scale, "o -> o 1 1 1"), conv.padding
    if isinstance(conv, Conv2dSame):
        # Weights of 0 before the first do the work of a pixel more behind the last: no map is copied for it.
        more = get_same_padding(images.shape[-1], conv.kernel_size[0], conv.stride[0], conv.dilation[0])
        weight, padding = F.pad(weight, (more % 2, 0, more % 2, 0)), (more + 1) // 2
    return F.conv2d(images, weight, bias, conv.stride, padding, conv.dilation, conv.groups)


def _activate(norm: Any, rows: Tensor) -> Tensor:
    if not _folds(norm):
        return type(norm).forward(norm, rows)
    return norm.act(norm.drop(rows)) if hasattr(norm, "act") else rows  # timm's has these inside

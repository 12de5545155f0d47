"""Photos as line drawings: what a small model from scratch can match with sketches."""

from __future__ import annotations

import torch
from einops import reduce
from torch import Tensor
from torch.nn import functional as F

DARKEST = 0.1  # added to the light of every pixel, so that noise in black cloth draws no lines


def edge_map(images: Tensor) -> Tensor:
    """(b, 3, h, w) in [0, 1] -> the same shape and range: dark lines on white where colour or light changes.

    The steepest channel's gradient of the logarithm of light, by central differences, cut off at 1: what
    counts is the ratio of neighbours, so that a seam in dark cloth is drawn as strongly as one in light
    cloth. Source: edge maps stand for photos since Yu et al., "Sketch Me That Shoe" (CVPR 2016), which
    has them from a trained detector; the logarithm is ours.
    """
    light = F.pad(torch.log(images + DARKEST), (1, 1, 1, 1), mode="replicate")
    across = light[..., 1:-1, 2:] - light[..., 1:-1, :-2]
    down = light[..., 2:, 1:-1] - light[..., :-2, 1:-1]
    steepest = reduce(torch.hypot(across, down), "b c h w -> b 1 h w", "max")
    return (1 - steepest.clamp(max=1)).expand_as(images)

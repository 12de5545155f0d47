"""Pictures as tensors: squares, edge maps and augmented views, all on the batch."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange, reduce
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from sbirlib.config.config import DataConfig
from sbirlib.data.images import read_image

Fit = Literal["pad", "stretch", "frame"]
# A light ground, and what differs enough to lie on it, in [0, 1]; how much of a framed square that fills.
LIGHT, DIFFERENCE, FILL = 0.8, 0.1, 0.95
DARKEST = 0.1  # added to the light of every pixel, so that noise in black cloth draws no lines in an edge map


def read_pixels(path: str | Path) -> Tensor:
    """The picture of a file as a (3, h, w) uint8 tensor. Raises ImageError as `read_image` does."""
    return as_pixels(read_image(path))


def as_pixels(picture: Image.Image | np.ndarray) -> Tensor:
    """An RGB picture, or an array (h, w, 3) uint8, copied into a (3, h, w) uint8 tensor."""
    return rearrange(torch.from_numpy(np.array(picture)), "h w c -> c h w")


def fit_square(images: Tensor, size: int, fit: Fit) -> Tensor:
    """(b, 3, h, w) uint8 or float -> (b, 3, size, size), the same in training, evaluation and search.

    `pad` keeps the proportions and centres the picture on white; `stretch` does not; `frame` cuts out what
    lies on a light ground and pads that, so that things are as large wherever they were in their pictures.
    Values keep their type and range; images already of that size come back as they are, unless framed.
    """
    if fit == "frame":
        return torch.cat([_framed(image, size) for image in images.split(1)])
    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    scale = size / max(height, width)
    target = (max(1, round(height * scale)), max(1, round(width * scale))) if fit == "pad" else (size, size)
    white = 1.0 if images.is_floating_point() else 255.0
    # In float also for bytes, which torch would round and clip between the two directions.
    resized = F.interpolate(images.float(), target, mode="bicubic", antialias=True).clamp(0, white)
    top, left = (size - target[0]) // 2, (size - target[1]) // 2
    square = F.pad(resized, (left, size - target[1] - left, top, size - target[0] - top), value=white)
    return square if images.is_floating_point() else square.round().to(images.dtype)


def _framed(image: Tensor, size: int) -> Tensor:
    """(1, 3, h, w) -> (1, 3, size, size): only padded if the rim is not light or nothing lies inside."""
    white = 1.0 if image.is_floating_point() else 255.0
    pixels = image.float() / white
    rim = torch.cat([pixels[..., [0, -1], :].flatten(2), pixels[..., [0, -1]].flatten(2)], dim=2)
    ground = rim.median(dim=2).values[..., None, None]
    # The mean of nine neighbours, or the noise of a JPEG would count.
    found = F.avg_pool2d((pixels - ground).abs().amax(dim=1), 3, 1, 1)[0] > DIFFERENCE
    rows, columns = (found.any(dim=side).nonzero() for side in (1, 0))
    if ground.amin() < LIGHT or not len(rows):
        return fit_square(image, size, "pad")
    cut = pixels[..., int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
    margin = round(size * (1 - FILL) / 2)
    # The ground becomes white, as what is padded.
    inner = fit_square((cut / ground).clamp(max=1), size - 2 * margin, "pad")
    framed = white * F.pad(inner, (margin,) * 4, value=1.0)
    return framed if image.is_floating_point() else framed.round().to(image.dtype)


def edge_map(images: Tensor) -> Tensor:
    """(b, 3, h, w) in [0, 1] -> the same shape and range: dark lines on white where colour or light changes.

    The steepest channel's gradient of the logarithm of light, by central differences, cut off at 1: what
    counts is the ratio of neighbours, so that a seam in dark cloth is drawn as strongly as one in light
    cloth. Source: edge maps have stood for photos since Yu et al., "Sketch Me That Shoe" (CVPR 2016),
    which takes them from a trained detector; the logarithm is the kit's own.
    """
    light = F.pad(torch.log(images + DARKEST), (1, 1, 1, 1), mode="replicate")
    across = light[..., 1:-1, 2:] - light[..., 1:-1, :-2]
    down = light[..., 2:, 1:-1] - light[..., :-2, 1:-1]
    steepest = reduce(torch.hypot(across, down), "b c h w -> b 1 h w", "max")
    return (1 - steepest.clamp(max=1)).expand_as(images)


def to_float(pixels: Tensor, device: torch.device | str) -> Tensor:
    """uint8 (...) -> float32 in [0, 1] on `device`; the bytes travel, not the floats."""
    return pixels.to(device, non_blocking=True) / 255


def make_view(images: Tensor, kind: str, numbers: Tensor, config: DataConfig) -> Tensor:
    """One view of each image: (b, 3, s, s) or grey (b, 1, s, s), float in [0, 1] -> the same shape and range.

    A0 is the image itself; A1 enlarges, rotates, flips and crops the centre; A2 crops a random part, flips
    and jitters colour. `numbers` (b, DRAWS) in [0, 1) decide; what lies outside the image is white paper.
    Source: released code, except for the white (it fills with black).
    """
    if kind == "A0":
        return images
    flip = 1 - 2 * (numbers[:, 0] < config.flip).float()
    zero = torch.zeros_like(flip)
    if kind == "A1":
        angle = torch.deg2rad((2 * numbers[:, 1] - 1) * config.rotation)
        cos, sin = torch.cos(angle) / config.enlarge, torch.sin(angle) / config.enlarge
        return _warp(images, [[cos * flip, -sin, zero], [sin * flip, cos, zero]])
    if kind == "A2":
        area = config.crop + (1 - config.crop) * numbers[:, 1]
        # Aspect ratio between 3:4 and 4:3, evenly in its logarithm.
        aspect = torch.exp((2 * numbers[:, 2] - 1) * math.log(4 / 3))
        width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        x, y = (2 * numbers[:, 3] - 1) * (1 - width), (2 * numbers[:, 4] - 1) * (1 - height)
        crop = _warp(images, [[width * flip, zero, x], [zero, height, y]])
        return _recolour(crop, numbers[:, 5:9], config.jitter, config.hue)
    raise ValueError(f"unknown view {kind!r}; known: A0, A1, A2")


def _warp(images: Tensor, rows: list[list[Tensor]]) -> Tensor:
    """Samples each image through its affine map from output to input coordinates, both in [-1, 1]."""
    height, width = images.shape[-2:]
    # Where the centres of the pixels lie in [-1, 1].
    across, down = ((2 * torch.arange(n, device=images.device) + 1) / n - 1 for n in (width, height))
    grid = torch.empty(len(images), height, width, 2, device=images.device)
    for axis, (x, y, shift) in enumerate(rows):
        # The sum of a row and a column, several times faster than a product with every pixel's coordinates.
        row, column = x[:, None, None] * across, y[:, None, None] * down[:, None] + shift[:, None, None]
        torch.add(row, column, out=grid[..., axis])
    # Zeros outside the shifted picture are white outside the picture.
    return F.grid_sample(images - 1, grid, mode="bilinear", padding_mode="zeros", align_corners=False).add_(1)


def _recolour(images: Tensor, numbers: Tensor, jitter: float, hue: float) -> Tensor:
    """Turns the hue by up to `hue` degrees, then scales brightness, contrast and saturation by 1 +- `jitter`.

    The hue turns about the grey axis, which leaves the mean of the channels, and so all greys, alone. All
    four are linear in the channels of a pixel, so they are done as one.
    """
    brightness, contrast, saturation = rearrange(1 + jitter * (2 * numbers[:, :3] - 1), "b f -> f b 1 1 1")
    angle = torch.deg2rad((2 * numbers[:, 3] - 1) * hue)[:, None, None, None]
    scale, cos = brightness * contrast, torch.cos(angle)
    grey = reduce(images, "b c h w -> b 1 h w", "mean")
    level = reduce(grey, "b 1 h w -> b 1 1 1", "mean") * brightness * (1 - contrast)
    if images.shape[1] == 1:
        return torch.addcmul(level, images, scale).clamp_(0, 1)
    rest = torch.addcmul(level, grey, scale * (1 - saturation * cos))
    # At right angles to a colour and to grey: each channel less the one before it.
    turned = images[:, [2, 0, 1]] - images[:, [1, 2, 0]]
    turned.mul_(scale * saturation * torch.sin(angle) / 3**0.5)
    return turned.addcmul_(images, scale * saturation * cos).add_(rest).clamp_(0, 1)

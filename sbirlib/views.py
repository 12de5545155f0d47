"""Images decoded once and held as uint8; views made on the batch, on the device.

Every random number of a view is a function of (seed, epoch, sketch) alone: a run can be repeated,
and gone on with, without saving the state of any generator.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange, reduce
from torch import Tensor
from torch.nn import functional as F

from sbirlib.backbones import Fit, fit_square
from sbirlib.config import DataConfig
from sbirlib.images import Fault, faults_message, read_all, read_image
from sbirlib.pairs import PairError, Split

DRAWS = 9  # uniform numbers a view may use
# Streams of random numbers that must not share draws; the order of epochs has stream 0.
_ORDER, _SKETCH_FIRST, _SKETCH_SECOND, _PHOTO_FIRST, _PHOTO_SECOND = range(5)


class LoadedSplit(NamedTuple):
    """A split in memory: sketches (n, 3, s, s) and photos (m, 3, s, s) uint8, photo_index (n,) int64.

    `photo_index[i]` is the row of sketch i's photo; `split.left_out` lists what was skipped. `grey`: whether
    the three channels of all sketches are known to be equal.
    """

    split: Split
    sketches: Tensor
    photos: Tensor
    photo_index: Tensor
    grey: bool = False

    def part(self, split: Split) -> LoadedSplit:
        """The pairs of `split`, which holds some of the files of this one."""
        sketch_row = {sketch.path: row for row, sketch in enumerate(self.split.sketches)}
        photo_row = {photo.path: row for row, photo in enumerate(self.split.photos)}
        sketches = _take(self.sketches, [sketch_row[sketch.path] for sketch in split.sketches])
        photos = _take(self.photos, [photo_row[photo.path] for photo in split.photos])
        return LoadedSplit(split, sketches, photos, torch.from_numpy(split.photo_index), self.grey)


class Views(NamedTuple):
    """One batch for `ARNet.forward`: four views (b, 3, s, s) float in [0, 1], and photo_ids (b,)."""

    sketch: Tensor
    sketch_second: Tensor
    photo: Tensor
    photo_second: Tensor
    photo_ids: Tensor


def load_split(split: Split, config: DataConfig, image_size: int) -> LoadedSplit:
    """Decodes the pictures of a split into squares of `image_size` px.

    Raises PairError with the list of files if any cannot be used and `config.on_fault` is "stop",
    or if nothing is left.
    """
    budget = config.ram_budget * 2**30
    sketches, faults = load_images([s.path for s in split.sketches], image_size, config.fit, budget, "sketches")
    photos, photo_faults = load_images([p.path for p in split.photos], image_size, config.fit, budget, "photos")
    faults = (*faults, *photo_faults)
    usable = split.without(faults) if faults else split
    if usable.left_out and config.on_fault == "stop":
        raise PairError(faults_message(config.root, usable.left_out))
    if not usable.sketches:
        raise PairError(f"{config.root}: no usable pair is left in the {split.name} split")
    grey = is_grey(sketches)
    if usable is split:
        return LoadedSplit(split, sketches, photos, torch.from_numpy(split.photo_index), grey)
    lost = {fault.path for fault in faults}
    readable = Split(split.name, tuple(s for s in split.sketches if s.path not in lost),
                     tuple(p for p in split.photos if p.path not in lost))
    loaded = LoadedSplit(readable, sketches, photos, torch.empty(0), grey)
    return loaded.part(usable)


def load_images(paths: Sequence[Path], size: int, fit: Fit, budget: float = math.inf,
                what: str = "images") -> tuple[Tensor, list[Fault]]:
    """The readable ones of `paths` as (n, 3, size, size) uint8, in order, and the faults of the rest.

    Beyond `budget` bytes the pixels live in a memory-mapped file that vanishes with the tensor.
    """
    shape = (len(paths), 3, size, size)
    pixels = _allocate(shape, mapped=math.prod(shape) > budget)
    row_of = {path: row for row, path in enumerate(paths)}

    def read(path: Path) -> int:
        image = torch.from_numpy(np.array(read_image(path)))
        pixels[row_of[path]] = fit_square(rearrange(image, "h w c -> 1 c h w"), size, fit)[0]
        return row_of[path]

    rows, faults = read_all(read, paths, f"decoding {what}")
    return (_take(pixels, rows) if faults else pixels), faults


def _allocate(shape: Sequence[int], mapped: bool) -> Tensor:
    """A uint8 tensor in RAM, or in a file of its own that has no name and goes with the tensor."""
    if not mapped or not math.prod(shape):
        return torch.empty(shape, dtype=torch.uint8)
    with tempfile.NamedTemporaryFile(prefix="sbirlib-") as file:
        return torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=torch.uint8).reshape(shape)


def _take(pixels: Tensor, rows: Sequence[int]) -> Tensor:
    """Some rows, memory-mapped if the whole is."""
    taken = _allocate((len(rows), *pixels.shape[1:]), mapped=is_mapped(pixels))
    return torch.index_select(pixels, 0, torch.tensor(rows, dtype=torch.int64), out=taken)


def is_mapped(pixels: Tensor) -> bool:
    """Whether these pixels live in a memory-mapped file."""
    return pixels.untyped_storage().filename is not None


def to_float(pixels: Tensor, device: torch.device | str) -> Tensor:
    """uint8 (...) -> float32 in [0, 1] on `device`; the bytes travel, not the floats."""
    return pixels.to(device, non_blocking=True) / 255


def is_grey(pixels: Tensor) -> bool:
    """Whether the channels of all pictures (n, 3, s, s) are equal."""
    # Some at a time: the answer for coloured pictures comes with the first.
    return all(bool((part[:, 1:] == part[:, :1]).all()) for part in pixels.split(64))


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """(count,) the order in which the sketches are seen in this epoch."""
    return np.random.default_rng([seed, epoch, _ORDER]).permutation(count)


def draws(seed: int, epoch: int, stream: int, count: int) -> np.ndarray:
    """(count, DRAWS) float32 in [0, 1); row i depends on (seed, epoch, stream, i) and on nothing else."""
    return np.random.default_rng([seed, epoch, stream]).random((count, DRAWS), dtype=np.float32)


class Epoch:
    """The order and the random numbers of one epoch: which rows a step takes, and what their views are.

    Both depend on seed and epoch alone, so a run that goes on in the middle of an epoch sees what it
    would have seen, in one process or in several.
    """

    def __init__(self, data: LoadedSplit, config: DataConfig, *, seed: int, epoch: int) -> None:
        self.data, self.config, count = data, config, len(data.sketches)
        self.order = torch.from_numpy(epoch_order(seed, epoch, count))
        self._tables = [torch.from_numpy(draws(seed, epoch, stream, count))
                        for stream in (_SKETCH_FIRST, _SKETCH_SECOND, _PHOTO_FIRST, _PHOTO_SECOND)]

    def rows(self, step: int, batch_size: int) -> Tensor:
        """(b,) the sketches of a step, counted from 0."""
        return self.order[step * batch_size : (step + 1) * batch_size]

    def views(self, rows: Tensor, device: torch.device | str) -> Views:
        """The views of these sketches (b,) and their photos, each with the numbers of its own row."""
        config, photo_ids = self.config, self.data.photo_index[rows]
        # One channel says it all where strokes have no colour, in a third of the time.
        sketches = self.data.sketches[:, :1] if self.data.grey else self.data.sketches
        sketches, photos = to_float(sketches[rows], device), to_float(self.data.photos[photo_ids], device)
        views = [make_view(images, kind, table[rows].to(device), config)
                 for (images, kind), table in zip(
                     [(sketches, config.first_view), (sketches, config.second_view),
                      (photos, config.first_view), (photos, config.second_view)], self._tables, strict=True)]
        return Views(*(view.expand(-1, 3, -1, -1) for view in views), photo_ids.to(device))


def epoch_batches(data: LoadedSplit, config: DataConfig, *, seed: int, epoch: int, batch_size: int,
                  device: torch.device | str) -> Iterator[Views]:
    """The batches of one epoch: every sketch once, less the rest that does not fill a batch."""
    plan, batch_size = Epoch(data, config, seed=seed, epoch=epoch), min(batch_size, len(data.sketches))
    for step in range(len(data.sketches) // batch_size):
        yield plan.views(plan.rows(step, batch_size), device)


def make_view(images: Tensor, kind: str, numbers: Tensor, config: DataConfig) -> Tensor:
    """One view of each image: (b, 3, s, s), or grey (b, 1, s, s), float in [0, 1] -> the same shape and range.

    A0 is the image itself; A1 enlarges, rotates, flips and crops the centre; A2 crops a random part,
    flips and jitters colour. `numbers` (b, DRAWS) in [0, 1) decide; what lies outside the image is
    white paper. Source: released code, but for the white (it fills with black).
    """
    if kind == "A0":
        return images
    flip = 1 - 2 * (numbers[:, 0] < config.flip).float()
    if kind == "A1":
        angle = torch.deg2rad((2 * numbers[:, 1] - 1) * config.rotation)
        cos, sin = torch.cos(angle) / config.enlarge, torch.sin(angle) / config.enlarge
        zero = torch.zeros_like(angle)
        return _warp(images, [[cos * flip, -sin, zero], [sin * flip, cos, zero]])
    if kind == "A2":
        area = config.crop + (1 - config.crop) * numbers[:, 1]
        # Aspect ratio between 3:4 and 4:3, evenly in its logarithm.
        aspect = torch.exp((2 * numbers[:, 2] - 1) * math.log(4 / 3))
        width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
        x, y = (2 * numbers[:, 3] - 1) * (1 - width), (2 * numbers[:, 4] - 1) * (1 - height)
        zero = torch.zeros_like(area)
        crop = _warp(images, [[width * flip, zero, x], [zero, height, y]])
        return _recolour(crop, numbers[:, 5:9], config.jitter, config.hue)
    raise ValueError(f"unknown view {kind!r}; known: A0, A1, A2")


def _warp(images: Tensor, rows: list[list[Tensor]]) -> Tensor:
    """Samples `images` through one affine map each: output coordinates in [-1, 1] to input coordinates."""
    height, width = images.shape[-2:]
    across, down = _centres(width, images.device), _centres(height, images.device)[:, None]
    grid = torch.empty(len(images), height, width, 2, device=images.device)
    for axis, (x, y, shift) in enumerate(rows):
        # The sum of a row and a column: a product with the coordinates of every pixel takes several times longer.
        torch.add(x[:, None, None] * across, y[:, None, None] * down + shift[:, None, None], out=grid[..., axis])
    # Zeros outside the shifted picture are white outside the picture.
    return F.grid_sample(images - 1, grid, mode="bilinear", padding_mode="zeros", align_corners=False).add_(1)


def _centres(count: int, device: torch.device) -> Tensor:
    """(count,) where the centres of so many pixels lie in [-1, 1]."""
    return (2 * torch.arange(count, device=device) + 1) / count - 1


def _recolour(images: Tensor, numbers: Tensor, jitter: float, hue: float) -> Tensor:
    """Turns the hue by up to `hue` degrees, then brightness, contrast and saturation times a factor in 1 +- `jitter`.

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
    turned = (images[:, [2, 0, 1]] - images[:, [1, 2, 0]]).mul_(scale * saturation * torch.sin(angle) / 3**0.5)
    return turned.addcmul_(images, scale * saturation * cos).add_(rest).clamp_(0, 1)

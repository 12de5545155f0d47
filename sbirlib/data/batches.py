"""The order and the random numbers of an epoch, and the batches they make."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sbirlib.config.config import DataConfig
from sbirlib.data.loading import LoadedSplit
from sbirlib.data.transforms import make_view, to_float

DRAWS = 9  # uniform numbers a view may use
# Streams of random numbers that must not share draws.
_ORDER, _SKETCH_FIRST, _SKETCH_SECOND, _PHOTO_FIRST, _PHOTO_SECOND = range(5)


class Views(NamedTuple):
    """One batch for `ARNet.forward`: four views (b, 3, s, s) float in [0, 1], and photo_ids (b,)."""

    sketch: Tensor
    sketch_second: Tensor
    photo: Tensor
    photo_second: Tensor
    photo_ids: Tensor


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """(count,) the order in which the sketches are seen in this epoch."""
    return np.random.default_rng([seed, epoch, _ORDER]).permutation(count)


def draws(seed: int, epoch: int, stream: int, count: int) -> np.ndarray:
    """(count, DRAWS) float32 in [0, 1); row i depends on (seed, epoch, stream, i) and on nothing else."""
    return np.random.default_rng([seed, epoch, stream]).random((count, DRAWS), dtype=np.float32)


class Epoch:
    """The order and the random numbers of one epoch: which rows a step takes, and what their views are.

    Both depend on seed and epoch alone, so a run resumed in the middle of an epoch sees what it would
    have seen, in one process or in several.
    """

    def __init__(self, data: LoadedSplit, config: DataConfig, *, seed: int, epoch: int) -> None:
        self.data, self.config, count = data, config, len(data.sketches)
        self.order = torch.from_numpy(epoch_order(seed, epoch, count))
        self._tables = [
            torch.from_numpy(draws(seed, epoch, stream, count))
            for stream in (_SKETCH_FIRST, _SKETCH_SECOND, _PHOTO_FIRST, _PHOTO_SECOND)
        ]

    def rows(self, step: int, batch_size: int) -> Tensor:
        """(b,) the sketches of a step, counted from 0."""
        return self.order[step * batch_size : (step + 1) * batch_size]

    def views(self, rows: Tensor, device: torch.device | str) -> Views:
        """The views of these sketches (b,) and their photos, each with the numbers of its own row."""
        config, photo_ids = self.config, self.data.photo_index[rows]
        # Where strokes have no colour, one channel says it all in a third of the time.
        sketches = self.data.sketches[:, :1] if self.data.grey else self.data.sketches
        sketches, photos = to_float(sketches[rows], device), to_float(self.data.photos[photo_ids], device)
        views = [
            make_view(images, kind, table[rows].to(device), config)
            for (images, kind), table in zip(
                [
                    (sketches, config.first_view),
                    (sketches, config.second_view),
                    (photos, config.first_view),
                    (photos, config.second_view),
                ],
                self._tables,
                strict=True,
            )
        ]
        return Views(*(view.expand(-1, 3, -1, -1) for view in views), photo_ids.to(device))


def epoch_batches(
    data: LoadedSplit,
    config: DataConfig,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    device: torch.device | str,
) -> Iterator[Views]:
    """The batches of one epoch: every sketch once, except the last few that do not fill a batch."""
    plan, batch_size = Epoch(data, config, seed=seed, epoch=epoch), min(batch_size, len(data.sketches))
    for step in range(len(data.sketches) // batch_size):
        yield plan.views(plan.rows(step, batch_size), device)

"""The order and the random numbers of an epoch, and the batches they make."""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from sbirlib.config.config import DataConfig
from sbirlib.data.drawings import NUMBERS, REDRAWS, pseudo_sketches, redraw
from sbirlib.data.loading import LoadedSplit
from sbirlib.data.transforms import make_view, to_float

DRAWS = 9  # uniform numbers for each row and stream
LABELS = 4  # fields of a batch, the first ones, that it keeps when it is put together from parts
NOTHING = torch.empty(0)
# Streams of random numbers that must not share draws.
(
    _ORDER, _SKETCH_FIRST, _SKETCH_SECOND, _PHOTO_FIRST, _PHOTO_SECOND, _ROW, _REDRAW, _MADE, _SISTER,
    _UNLABELLED, _UNLABELLED_SECOND, _SKETCH_THIRD,
) = range(12)  # fmt: skip


class Batch(NamedTuple):
    """What a method sees of one step: views (b, 3, s, s) float in [0, 1], and what is known of each row.

    Row i is a sketch and its photo. `photo_ids` (b,) int64 tells which rows show the same photo; `numbers`
    (b, DRAWS) uniform in [0, 1) are a row's own, for whatever a method draws by chance. `unlabelled` are
    photos without a sketch, one for each row, and `unlabelled_ids` (b,) int64 tell them apart. `rows` (b,)
    int64 says which sketches of the split these are, `designers` (b,) int64 whose (below 0: nobody knows).
    Further views and these photos are empty unless the method needs them (and there are any), and so is
    every view of a batch that was put together from parts, and its `designers`.
    """

    photo_ids: Tensor
    numbers: Tensor
    unlabelled_ids: Tensor
    rows: Tensor
    sketch: Tensor = NOTHING
    photo: Tensor = NOTHING
    sketch_second: Tensor = NOTHING
    photo_second: Tensor = NOTHING
    sketch_third: Tensor = NOTHING
    unlabelled: Tensor = NOTHING
    unlabelled_second: Tensor = NOTHING
    designers: Tensor = NOTHING

    def flipped(self, probability: float) -> tuple[Tensor, Tensor]:
        """Sketches and photos, flipped left-right together, by the first of each row's numbers."""
        flip = rearrange(self.numbers[:, 0] < probability, "b -> b 1 1 1")
        sketch, photo = (torch.where(flip, view.flip(-1), view) for view in (self.sketch, self.photo))
        return sketch, photo


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """(count,) the order in which the sketches are seen in this epoch."""
    return np.random.default_rng([seed, epoch, _ORDER]).permutation(count)


def draws(seed: int, epoch: int, stream: int, count: int, size: int = DRAWS) -> np.ndarray:
    """(count, size) float32 in [0, 1); row i depends on (seed, epoch, stream, i) and on nothing else."""
    return np.random.default_rng([seed, epoch, stream]).random((count, size), dtype=np.float32)


def find_sisters(photo_index: Tensor, numbers: Tensor) -> Tensor:
    """For each sketch another one of the same photo, (n,) int64; itself where there is none.

    `photo_index` (n,) int64 names the photo of each sketch, `numbers` (n,) in [0, 1) choose among the others.
    """
    order = photo_index.argsort(stable=True)
    _, group, sizes = photo_index[order].unique_consecutive(return_inverse=True, return_counts=True)
    first = (sizes.cumsum(0) - sizes)[group]
    place, size = torch.arange(len(order)) - first, sizes[group]
    # So many places further round the sketches of the photo, and never all the way round.
    ahead = 1 + torch.minimum((numbers[order] * (size - 1)).long(), (size - 2).clamp(min=0))
    return torch.empty_like(order).scatter_(0, order, order[first + (place + ahead) % size])


class Epoch:
    """The order and the random numbers of one epoch: which rows a step takes, and what their views are.

    Both depend on seed and epoch alone, so a run that goes on in the middle of an epoch sees what it
    would have seen, in one process or in several. With `sisters`, the second view of a sketch is one of
    another sketch of the same photo, where there is one; with 2 the third is a view of another than that one,
    which may be the first.
    """

    def __init__(
        self, data: LoadedSplit, config: DataConfig, *, seed: int, epoch: int, second_views: bool = True,
        sisters: int = 0,
    ) -> None:  # fmt: skip
        self.data, self.config, self.second_views, count = data, config, second_views, len(data.sketches)
        self.order, self._made = torch.from_numpy(epoch_order(seed, epoch, count)), data.made

        @cache  # a stream that no view asks for is never drawn
        def numbers(stream: int, size: int = DRAWS) -> Tensor:
            return torch.from_numpy(draws(seed, epoch, stream, count, size))

        self._numbers = numbers
        self._sisters = find_sisters(data.photo_index, numbers(_SISTER, 1)[:, 0]) if sisters else None
        self._thirds = self._sisters[self._sisters] if self._sisters is not None and sisters > 1 else None
        split, names = data.split, data.split.designers
        # A sketch without a designer may be by anybody: no two of them are by the same.
        own = (names.index(s.designer) if s.designer else ~row for row, s in enumerate(split.sketches))
        self._designers = torch.tensor(list(own))
        # In the order of the steps: a photo is seen again only after all others.
        spare = len(data.unlabelled.photos) if data.unlabelled else 0
        turns = np.resize(np.random.default_rng([seed, epoch, _UNLABELLED]).permutation(spare), count)
        self._unlabelled = torch.from_numpy(turns)[self.order.argsort()] if spare else None

    def rows(self, step: int, batch_size: int) -> Tensor:
        """(b,) the sketches of a step, counted from 0."""
        return self.order[step * batch_size : (step + 1) * batch_size]

    def batch(self, rows: Tensor, device: torch.device | str) -> Batch:
        """These sketches (b,) and their photos, each view made with the numbers of its own row."""
        config, photo_ids = self.config, self.data.photo_index[rows]
        photos, sketches = to_float(self.data.photos[photo_ids], device), self._sketches(rows, device)

        def view(images: Tensor, kind: str, stream: int) -> Tensor:
            made = make_view(images, kind, self._numbers(stream)[rows].to(device), config)
            return made.expand(-1, 3, -1, -1)

        # Another hand draws the first view only: the second one, which it is matched with, keeps the details.
        redrawn, others = sketches, sketches
        if config.redraw:
            redrawn = redraw(sketches, self._numbers(_REDRAW, REDRAWS)[rows].to(device), config.redraw)
        if self._sisters is not None:
            others = self._sketches(self._sisters[rows], device)
        first, second, unlabelled_ids = config.first_view, config.second_view, torch.zeros_like(photo_ids)
        views = {"sketch": view(redrawn, first, _SKETCH_FIRST), "photo": view(photos, first, _PHOTO_FIRST)}
        if self.second_views:
            views["sketch_second"] = view(others, second, _SKETCH_SECOND)
            views["photo_second"] = view(photos, second, _PHOTO_SECOND)
        if self._thirds is not None:
            views["sketch_third"] = view(self._sketches(self._thirds[rows], device), second, _SKETCH_THIRD)
        if self.data.unlabelled and self._unlabelled is not None:
            unlabelled_ids = self._unlabelled[rows]
            pixels = to_float(self.data.unlabelled.photos[unlabelled_ids], device)
            views["unlabelled"] = view(pixels, first, _UNLABELLED)
            if self.second_views:
                views["unlabelled_second"] = view(pixels, second, _UNLABELLED_SECOND)
        labels = photo_ids, self._numbers(_ROW)[rows], unlabelled_ids, rows
        views["designers"] = self._designers[rows].to(device)
        return Batch(*(label.to(device) for label in labels), **views)

    def _sketches(self, rows: Tensor, device: torch.device | str) -> Tensor:
        """The sketches (b, 1 or 3, s, s) of these rows, some made anew of photos in each epoch."""
        made = self._made[rows]
        # One channel says it all where strokes have no colour, in a third of the time.
        grey = self.data.grey or bool(made.all())
        sketches = to_float(self.data.sketches[rows], device)
        if made.any():
            dials = self._numbers(_MADE, NUMBERS)[rows[made]].to(device)
            drawn = pseudo_sketches(sketches[made], dials, edge_maps=self.data.edge_maps)
            sketches[made] = drawn.expand(-1, 3, -1, -1)
        return sketches[:, :1] if grey else sketches

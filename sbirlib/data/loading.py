"""Pictures decoded once and held in memory as uint8."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sbirlib.config.config import Config, DataConfig
from sbirlib.data.drawings import NUMBERS, pseudo_sketches
from sbirlib.data.images import Fault, faults_message, list_images, list_unread, read_all
from sbirlib.data.pairs import PairFolder
from sbirlib.data.splits import PairError, Photo, Split
from sbirlib.data.transforms import Fit, fit_square, read_pixels


class LoadedSplit(NamedTuple):
    """A split in memory: sketches (n, 3, s, s) and photos (m, 3, s, s) uint8, photo_index (n,) int64.

    `photo_index[i]` is the row of sketch i's photo; `split.left_out` lists what was skipped. `grey`: whether
    the three channels of all sketches are known to be equal. Where a sketch is to be made of a photo (`made`
    (n,) bool), its pixels are the photo's; `edge_maps`: whether photos are edge maps. `unlabelled` are photos
    without a sketch, for the methods that learn from them.
    """

    split: Split
    sketches: Tensor
    photos: Tensor
    photo_index: Tensor
    grey: bool = False
    edge_maps: bool = False
    unlabelled: "LoadedSplit | None" = None

    @property
    def made(self) -> Tensor:
        """(n,) bool: which sketches are to be made of their photos."""
        return torch.tensor([sketch.made for sketch in self.split.sketches])

    def as_drawn(self, seed: int) -> "LoadedSplit":
        """The same with all sketches that are to be made drawn once, so that they can be searched with."""
        random = np.random.default_rng([seed, 2]).random((len(self.sketches), NUMBERS), np.float32)
        numbers = torch.from_numpy(random)
        for rows in self.made.nonzero()[:, 0].split(64):
            drawn = pseudo_sketches(self.sketches[rows] / 255, numbers[rows], edge_maps=self.edge_maps)
            self.sketches[rows] = (255 * drawn).round().to(torch.uint8)
        return self

    def resized(self, size: int) -> "LoadedSplit":
        """The same with pictures of `size` px; itself, not a copy, where they are that large."""
        if self.photos.shape[-1] == size:
            return self
        parts = self.sketches.split(64), self.photos.split(64)
        sketches, photos = (torch.cat([fit_square(few, size, "stretch") for few in part]) for part in parts)
        rest = self.unlabelled and self.unlabelled.resized(size)
        return self._replace(sketches=sketches, photos=photos, unlabelled=rest)

    def part(self, split: Split) -> "LoadedSplit":
        """The pairs of `split`, which holds some of the files of this one."""
        sketch_row = {sketch.path: row for row, sketch in enumerate(self.split.sketches)}
        photo_row = {photo.path: row for row, photo in enumerate(self.split.photos)}
        sketches = self.sketches[[sketch_row[sketch.path] for sketch in split.sketches]]
        photos = self.photos[[photo_row[photo.path] for photo in split.photos]]
        index = torch.from_numpy(split.photo_index)
        return self._replace(split=split, sketches=sketches, photos=photos, photo_index=index)


def load_data(
    pairs: PairFolder, config: Config, unlabelled: bool = False
) -> tuple[LoadedSplit, LoadedSplit | None, int]:
    """Training and validation pairs in memory (None if nothing is held out), and files left out.

    With `unlabelled`, photos without a sketch are not left out but loaded as well, if there are any. Under
    the released protocol nothing is held out and the test split takes the place of validation. Where sketches
    are made of photos (`data.sketches`), held-out photos are searched with real ones if they have any, else
    with ones that are made once and stay the same.
    """
    split, spare = pairs.split("train"), None
    if config.flat().get("loss.attributes"):
        split = split.described(pairs.root / "attributes.csv")
    if unlabelled:
        split, spare = split.sketched, _load_unlabelled(split, config)
    whole = load_split(split, config.data, config.model.image_size)
    whole = whole._replace(edge_maps=pairs.edge_maps, unlabelled=spare)
    skipped = len(whole.split.left_out) + (len(spare.split.faults) if spare else 0)
    if len(set(whole.photo_index.tolist())) < 2:
        raise PairError(f"{pairs.root}: only one photo has a sketch; training needs at least two")
    if config.run.protocol == "released":
        return whole, load_split(pairs.split("test"), config.data, config.model.image_size), skipped
    if not config.data.val_fraction:
        return whole, None, skipped
    kept, held = whole.split.holdout(config.data.val_fraction, config.run.seed)
    real = held.real
    validation = whole.part(real) if real.sketches else whole.part(held).as_drawn(config.run.seed)
    return whole.part(kept), validation, skipped


def _load_unlabelled(split: Split, config: Config) -> LoadedSplit | None:
    """The photos of `split` without a sketch, and those of the folder `data.unlabelled`; None without any."""
    data, paths, faults = config.data, list(split.unsketched), []
    if data.unlabelled:
        paths = list(dict.fromkeys([*paths, *list_images(Path(data.unlabelled))]))  # each once
        faults += list_unread(Path(data.unlabelled))
    pixels, broken = load_images(paths, config.model.image_size, data.fit, "photos without a sketch")
    if (faults := faults + broken) and data.on_fault == "stop":
        raise PairError(faults_message(data.unlabelled or data.root, faults))
    lost = {fault.path for fault in faults}
    photos = tuple(Photo(path, str(path)) for path in paths if path not in lost)
    rest = Split("unlabelled", (), photos, tuple(faults))
    return LoadedSplit(rest, pixels[:0], pixels, torch.empty(0, dtype=torch.int64)) if photos else None


def load_split(split: Split, config: DataConfig, image_size: int) -> LoadedSplit:
    """Decodes the pictures of a split into squares of `image_size` px.

    Raises PairError if nothing is left, and, with the list of files, if any cannot be used and
    `config.on_fault` is "stop".
    """
    load = partial(load_images, size=image_size, fit=config.fit)
    sketches, faults = load([sketch.path for sketch in split.sketches], what="sketches")
    photos, photo_faults = load([photo.path for photo in split.photos], what="photos")
    faults += photo_faults
    usable = split.without(faults)
    if usable.left_out and config.on_fault == "stop":
        raise PairError(faults_message(config.root, usable.left_out))
    if not usable.sketches:
        raise PairError(f"{config.root}: no usable pair is left in the {split.name} split")
    loaded = LoadedSplit(split.readable(faults), sketches, photos, torch.from_numpy(usable.photo_index))
    # Sketches that are to be made of photos will be grey.
    loaded = loaded._replace(grey=is_grey(sketches[~loaded.made] if loaded.made.any() else sketches))
    return loaded.part(usable) if faults else loaded


def load_images(
    paths: Sequence[Path], size: int, fit: Fit, what: str = "images"
) -> tuple[Tensor, list[Fault]]:
    """The readable ones of different `paths` as (n, 3, size, size) uint8, and the faults of the others."""
    pixels = torch.empty((len(paths), 3, size, size), dtype=torch.uint8)
    row_of = {path: row for row, path in enumerate(paths)}

    def read(path: Path) -> int:
        pixels[row_of[path]] = fit_square(read_pixels(path)[None], size, fit)[0]
        return row_of[path]

    rows, faults = read_all(read, paths, what and f"decoding {what}")
    return (pixels[rows] if faults else pixels), faults


def is_grey(pixels: Tensor) -> bool:
    """Whether the channels of all pictures (n, 3, s, s) are equal."""
    # Some at a time: coloured pictures give the answer with the first.
    return all(bool((part[:, 1:] == part[:, :1]).all()) for part in pixels.split(64))

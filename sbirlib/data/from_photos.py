"""Photos turned into drawings, so that a model can be trained without a single sketch."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange, reduce
from torch import Tensor
from torch.nn import functional as F

from sbirlib.data.images import EXTENSIONS
from sbirlib.data.pairs import PairFolder, Pattern, read_split
from sbirlib.data.splits import PairError, Sketch
from sbirlib.data.transforms import edge_map
from sbirlib.errors import check_utf8

Sketches = Literal["pairs", "from_photos", "both"]
NUMBERS = 4  # uniform numbers for each row
MARGIN = 3  # px at the picture's edge that are not drawn: a scan has a border there
SIDE = 13  # px of the neighbourhood in which a line must have some length
_blurred = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
LEVEL = 0.98  # share of pixels below full strength, by kthvalue: torch.quantile takes 16 million at most


def training_folder(root: str | Path, pattern: Pattern, sketches: Sketches) -> PairFolder:
    """The folder `root` with the sketches that `data.sketches` asks for in its train split.

    For "from_photos" trainB is enough, or a folder of photos alone. Raises PairError if there are no photos,
    and as `PairFolder` does.
    """
    if sketches == "pairs":
        return PairFolder(root, pattern=pattern)
    folder = Path(root)
    if sketches == "both":
        split = PairFolder(root, pattern=pattern).split("train")
    else:
        photos = folder / "trainB" if (folder / "trainB").is_dir() else folder
        check_utf8(root)
        if not photos.is_dir():
            raise PairError(f"{root}: no such folder")
        split = read_split("train", None, photos)
        if not split.photos:
            raise PairError(f"{photos}: no photos to train on ({', '.join(EXTENSIONS)})")
    made = tuple(Sketch(photo.path, photo.id, "", made=True) for photo in split.photos)
    splits = {"train": replace(split, sketches=split.sketches + made)}
    if (folder / "testA").is_dir() and (folder / "testB").is_dir():
        splits["test"] = read_split("test", folder / "testA", folder / "testB", pattern)
    return PairFolder(root, pattern=pattern, splits=splits)


def pseudo_sketches(photos: Tensor, numbers: Tensor, *, edge_maps: bool = False) -> Tensor:
    """(b, 3, s, s) in [0, 1] -> (b, 1, s, s): dark lines on white where a photo has its strongest edges.

    The edges are thinned to lines, faint ones and short pieces are dropped, and the rest is drawn with a pen.
    Row i of `numbers` (b, NUMBERS) in [0, 1) decides for photo i: how faint and how short a line may be, how
    wide the pen is, and how soft. With `edge_maps` the photos are edge maps already. Source: edge maps stand
    for photos in Yu et al., "Sketch Me That Shoe" (CVPR 2016), here for sketches; the dials are our own.
    """
    faint, short, width, soft = rearrange(numbers[:, :NUMBERS], "b n -> n b 1 1 1")
    # Cloth and noise have edges as well, but fainter ones than an outline once the photo is blurred.
    edges = photos if edge_maps else edge_map(_blurred(_blurred(photos)))
    strength = _blurred(1 - reduce(edges, "b c h w -> b 1 h w", "mean"))
    inside = F.pad(torch.ones_like(strength[..., MARGIN:-MARGIN, MARGIN:-MARGIN]), (MARGIN,) * 4)
    full = strength.flatten(1).kthvalue(round(LEVEL * strength[0].numel())).values[:, None, None, None]
    strength = inside * strength / full.clamp(min=1e-3)
    lines = _ridges(strength) * (strength > 0.12 + 0.4 * faint)
    lines = lines * (SIDE**2 * F.avg_pool2d(lines, SIDE, 1, SIDE // 2) > 3 + 6 * short)
    # A pen of one to five pixels.
    middle, wide = (F.max_pool2d(lines, side, 1, side // 2) for side in (3, 5))
    ink = torch.lerp(torch.lerp(lines, middle, (2 * width).clamp(max=1)), wide, (2 * width - 1).clamp(min=0))
    return 1 - torch.lerp(ink, _blurred(ink), soft)


def _ridges(strength: Tensor) -> Tensor:
    """1 where an edge is stronger than on either side of it, which leaves lines a pixel or two wide."""
    padded = F.pad(strength, (1, 1, 1, 1))
    height, width = strength.shape[-2:]
    found = torch.zeros_like(strength, dtype=torch.bool)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one, other = (
            padded[..., 1 + sign * down :, 1 + sign * right :][..., :height, :width] for sign in (1, -1)
        )
        # Higher than both by a little: a plateau is no line.
        found |= (strength >= one) & (strength > other) & (2 * strength - one - other > 0.08)
    return found.float()

"""Drawings that nobody drew: sketches made of photos alone, and the same sketch by another hand.

What another hand changes: proportions, wobble, width and darkness of lines, what is left out.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
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

Sketches = Literal["pairs", "from_photos", "both"]
NUMBERS = 4  # uniform numbers for each row that is made of a photo
MARGIN = 3  # px at the picture's edge that are not drawn: a scan has a border there
SIDE = 13  # px of the neighbourhood in which a line must have some length
_blurred = partial(F.avg_pool2d, kernel_size=3, stride=1, padding=1, count_include_pad=False)
LEVEL = 0.98  # share of pixels below full strength, by kthvalue: torch.quantile takes 16 million at most

REDRAWS = 64  # uniform numbers for each row that is redrawn
_OWN = 16  # numbers with a meaning of their own; the others are spread over the control points
_COARSE, _FINE = 6, 18  # control points a side: of proportions and parts, of wobble and gaps
# At full strength. Lengths in half sides of the picture, as `grid_sample` counts; angles in radians.
_STRETCH, _LEAN, _TURN, _SHIFT, _SWELL, _WOBBLE = 0.24, 0.16, 0.12, 0.10, 0.24, 0.05
_THICKER, _THINNER, _PALER, _FAINTEST = 0.012, 0.5, 0.4, 0.3  # first in sides of the picture, then shares
_GAPS, _MOST = 0.3, 0.2  # depth of the gaps' field at which ink is gone; share of the ink that may go


def training_folder(root: str | Path, pattern: Pattern, sketches: Sketches) -> PairFolder:
    """The folder `root` with the sketches that `data.sketches` asks for in its train split.

    For "from_photos" trainB is enough, or a folder of photos alone. Raises PairError if there are no photos,
    ImageError if there is no folder, and as `PairFolder` does.
    """
    if sketches == "pairs":
        return PairFolder(root, pattern=pattern)
    folder = Path(root)
    if sketches == "both":
        split = PairFolder(root, pattern=pattern).split("train")
    else:
        photos = folder / "trainB" if (folder / "trainB").is_dir() else folder
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
        one = padded[..., 1 + down :, 1 + right :][..., :height, :width]
        other = padded[..., 1 - down :, 1 - right :][..., :height, :width]
        # Higher than both by a little: a plateau is no line.
        found |= (strength >= one) & (strength > other) & (2 * strength - one - other > 0.08)
    return found.float()


def redraw(sketches: Tensor, numbers: Tensor, strength: float) -> Tensor:
    """Each sketch as another person might draw it: dark ink on white (b, 1 or 3, s, s), float in [0, 1].

    `numbers` (b, REDRAWS), uniform in [0, 1), decide, each row for its own sketch. `strength` goes from 0,
    which returns the sketches themselves, to 1; a row gets between a third of it and all. The drawing is
    stretched, sheared and turned, its lower half in its own way, swells slowly and wobbles quickly; its
    lines become thicker or thinner and paler, the faintest get lost, and up to a fifth of the ink is missing.
    """
    if not strength:
        return sketches
    own = rearrange(2 * numbers[:, :_OWN] - 1, "b n -> n b 1 1 1")
    amount = strength * (2 + own[0]) / 3
    noise = amount * _noise(numbers[:, _OWN:])
    # Three fields over the control points: where x and y are taken from, and how much ink is left.
    x = ((torch.arange(_FINE) - 1) * 2 / (_FINE - 3) - 1).to(numbers.device)
    y, to_pixels = x[:, None], _splines(sketches.shape[-1], _FINE).to(numbers.device)
    lower = torch.sigmoid(6 * (y + 0.3 * own[1]))
    # Rather smaller than larger, since what leaves the picture is lost.
    across, down = (1 + amount * _STRETCH * (one + 0.25) for one in (own[2] + own[3] * lower, own[4]))
    turn, lean = amount * _TURN * own[5], amount * _LEAN * (own[6] * lower + own[7])
    column = x * across + y * (lean + turn) + amount * _SHIFT * own[8] + noise[:, :1]
    row = y * down - x * turn + amount * _SHIFT * own[9] + noise[:, 1:2]
    fields = to_pixels @ torch.cat([column, row, noise[:, 2:]], dim=1) @ to_pixels.T
    grid = rearrange(fields[:, :2], "b xy h w -> b h w xy")
    # Zeros outside the drawing are white paper outside it.
    ink = F.grid_sample(1 - sketches, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    ink = _widened(ink, amount * own[10])
    darkest = reduce(ink, "b c h w -> b 1 1 1", "max")
    # Sampling has made thin lines paler.
    ink = F.relu(ink * (1 + 0.6 * amount) - amount * _FAINTEST * darkest * own[11].clamp(min=0))
    ink = torch.minimum(ink, darkest)
    kept = ((_GAPS - fields[:, 2:]) * 20).clamp(0, 1)
    left, all_ink = (reduce(part, "b c h w -> b 1 1 1", "sum") for part in (ink * kept, ink))
    gone = 1 - left / all_ink.clamp(min=1e-6)
    kept = torch.where(gone > _MOST, 1, kept)
    return 1 - ink * kept * (1 - amount * _PALER * own[12].clamp(min=0))


def _widened(ink: Tensor, width: Tensor) -> Tensor:
    """Lines thicker where `width` (b, 1, 1, 1), from -1 to 1, is above 0, and thinner where it is below."""
    reach = width.clamp(min=0) * _THICKER * ink.shape[-1]
    ink = torch.lerp(ink, _neighbours(ink, torch.minimum), _THINNER * (-width).clamp(min=0))
    for step in range(1 + int(_THICKER * ink.shape[-1])):
        ink = torch.lerp(ink, _neighbours(ink, torch.maximum), (reach - step).clamp(0, 1))
    return ink


def _neighbours(ink: Tensor, extreme: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The largest or smallest of each pixel and the four beside it."""
    framed = F.pad(ink, (1, 1, 1, 1))
    up_down = extreme(framed[..., :-2, 1:-1], framed[..., 2:, 1:-1])
    return extreme(extreme(up_down, ink), extreme(framed[..., 1:-1, :-2], framed[..., 1:-1, 2:]))


def _noise(numbers: Tensor) -> Tensor:
    """(b, n) -> (b, 3, _FINE, _FINE): x and y of swelling and wobble, and the depth of gaps."""
    counts = 3 * _COARSE**2, 3 * _FINE**2
    # Whole multiples of uniform numbers, added modulo 1, are uniform and independent in pairs.
    spread = 4 * ((numbers @ _multiples(numbers.shape[1], sum(counts)).to(numbers)) % 1 - 0.5).abs() - 1
    coarse, fine = spread.split(counts, dim=1)
    coarse, fine = coarse.unflatten(1, (3, _COARSE, _COARSE)), fine.unflatten(1, (3, _FINE, _FINE))
    finer = _splines(_FINE, _COARSE).to(numbers)
    slow, quick = (numbers.new_tensor(a)[:, None, None] for a in ([_SWELL] * 2 + [1], [_WOBBLE] * 2 + [1]))
    return slow * (finer @ coarse @ finer.T) + quick * fine


@lru_cache(maxsize=4)
def _multiples(numbers: int, count: int) -> Tensor:
    return torch.randint(8, (numbers, count), generator=torch.Generator().manual_seed(0)).float()


@lru_cache(maxsize=8)
def _splines(size: int, points: int) -> Tensor:
    """(size, points): uniform cubic B-splines at the centres of `size` pixels; they keep straight lines."""
    at = (torch.arange(size) + 0.5) / size * (points - 3)
    away = (at[:, None] + 1 - torch.arange(points)).abs()
    return torch.where(away < 1, 2 / 3 - away**2 + away**3 / 2, (2 - away).clamp(min=0) ** 3 / 6)

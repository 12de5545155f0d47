"""Which recording belongs to a sketch of a data folder."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np
import torch
from PIL import Image, ImageChops
from torch import Tensor
from tqdm.auto import tqdm

from sbirlib.data import PairError, Recording, Sketch, Split, as_pixels, fit_square, read_recording
from sbirlib.data.transforms import Fit
from sbirlib.miniclothes import sketch_recorders
from sbirlib.miniclothes.dataset import MANIFEST

WAYS = "Put a .json or .svg of the strokes beside each sketch, or use MiniClothes"
_replays = lru_cache(maxsize=8)(lambda root, changed: sketch_recorders(root))


def recorder(sketch: Sketch) -> Callable[[], Recording] | None:
    """What reads the strokes of a sketch from its stroke file, or draws MiniClothes' again; else None.

    Looks at names only. Raises InputError for a MiniClothes folder that another version drew.
    """
    if sketch.strokes:
        return partial(read_recording, sketch.strokes)
    root = sketch.path.parent.parent
    known = _replays(root, (root / MANIFEST).stat().st_mtime_ns) if (root / MANIFEST).is_file() else {}
    return known.get(sketch.path)


def recording(sketch: Sketch) -> Recording:
    """How a sketch was drawn. Raises PairError without strokes, ImageError for a damaged stroke file."""
    found = recorder(sketch)
    if found is None:
        raise PairError(f"{sketch.path}: the strokes of this sketch are needed in drawing order. {WAYS}")
    return found()


def drawn_so_far(split: Split, steps: int, size: int, fit: Fit) -> Iterator[Tensor]:
    """For each sketch what a model sees after so many equal shares of its strokes.

    (steps, 3, size, size) uint8; the last is the sketch itself. Raises as `recording` does.
    """
    for sketch in tqdm(split.sketches, desc="drawing", disable=None, leave=False):
        pages = recording(sketch).partials(steps)
        yield torch.cat([fit_square(as_pixels(page)[None], size, fit) for page in pages])


def drawn(drawing: Recording, keep: np.ndarray | None, size: int, fit: Fit) -> Tensor:
    """What a model sees of the strokes to keep, or of all: (1, 3, size, size) uint8."""
    return fit_square(as_pixels(drawing.picture(keep))[None], size, fit)


def disturbed(
    drawing: Recording, other: Recording, count: int, chance: np.random.Generator
) -> tuple[Recording, np.ndarray]:
    """A drawing with up to `count` strokes of another one among its own; which these are, (strokes,) bool.

    They are drawn over it with an ordinary pen. Long ones, up to a side of the picture, are chosen rather
    than short ones, which hardly matter.
    """
    count = min(count, len(other.strokes))
    total = len(drawing.strokes) + count
    odds = np.clip([np.hypot(*np.diff(stroke, axis=0).T).sum() for stroke in other.strokes], 0.01, 1)
    chosen = np.sort(chance.choice(len(odds), count, replace=False, p=odds / odds.sum()))
    added = np.isin(range(total), chance.choice(total, count, replace=False))
    foreign = Recording(tuple(other.strokes[i] for i in chosen), drawing.size)
    own, theirs = iter(drawing.strokes), iter(foreign.strokes)

    def render(kept: np.ndarray) -> Image.Image:
        return ImageChops.darker(drawing.picture(kept[~added]), foreign.picture(kept[added]))

    strokes = tuple(next(theirs if new else own) for new in added)
    return Recording(strokes, drawing.size, render), added

"""Which recording belongs to a sketch of a data folder."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageChops
from scipy.sparse import csr_matrix
from torch import Tensor
from tqdm.auto import tqdm

from sbirlib.data import Fit, PairError, Recording, Sketch, Split, as_pixels, fit_square, read_recording
from sbirlib.miniclothes import MANIFEST, sketch_recorders

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

    (steps, 3, size, size) uint8; the last has all strokes, drawn with a pen where a stroke file lies beside
    a picture. Raises as `recording` does, before anything is drawn.
    """
    for found in tqdm(list(map(recording, split.sketches)), desc="drawing", disable=None, leave=False):
        yield torch.cat([fit_square(as_pixels(page)[None], size, fit) for page in found.partials(steps)])


def drawn(drawing: Recording, keep: np.ndarray | None, size: int, fit: Fit) -> Tensor:
    """What a model sees of the strokes to keep, or of all: (1, 3, size, size) uint8."""
    return fit_square(as_pixels(drawing.picture(keep))[None], size, fit)


def layers(drawing: Recording, size: int) -> csr_matrix:
    """The ink that each stroke adds, as far as later parts leave it: (strokes, size * size) uint8.

    The sum of all is the drawing, that of some nearly the drawing of these alone: what is drawn twice goes
    with the first of two strokes.
    """
    pages = torch.cat([as_pixels(page)[None, :1] for page in drawing.partials(len(drawing.strokes))])
    ink = rearrange(255 - fit_square(pages, size, "stretch").float(), "n 1 h w -> n (h w)")
    added, before = torch.zeros_like(ink), torch.zeros_like(ink[0])
    for stroke, after in enumerate(ink):
        added[:stroke] *= (after / before.clamp(min=1)).clamp(max=1)  # white of a part hides what was there
        added[stroke], before = (after - before).clamp(min=0), after
    return csr_matrix(added.round().byte().numpy())


def disturbed(
    own: Recording, other: Recording, count: int, chance: np.random.Generator
) -> tuple[Recording, np.ndarray]:
    """A drawing with up to `count` strokes of another one among its own, and which strokes these all are.

    They are numbered through both drawings, (strokes,) int64, the other one's after the own ones. Those are
    drawn over it with an ordinary pen. Long ones, up to a side of the picture, are chosen rather than short
    ones, which hardly matter.
    """
    owned, count, both = len(own.strokes), min(count, len(other.strokes)), own.strokes + other.strokes
    odds = np.clip([np.hypot(*np.diff(stroke, axis=0).T).sum() for stroke in other.strokes], 0.01, 1)
    chosen = owned + np.sort(chance.choice(len(odds), count, replace=False, p=odds / odds.sum()))
    foreign = Recording(tuple(both[i] for i in chosen), own.size)
    strokes = np.insert(np.arange(owned), np.sort(chance.integers(owned + 1, size=count)), chosen)

    def render(kept: np.ndarray) -> Image.Image:
        return ImageChops.darker(own.picture(kept[strokes < owned]), foreign.picture(kept[strokes >= owned]))

    return Recording(tuple(both[i] for i in strokes), own.size, render), strokes

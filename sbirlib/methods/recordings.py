"""Which recording belongs to a sketch of a data folder."""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import torch
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

    (steps, 3, size, size) uint8; the last has all strokes, drawn with a pen where a stroke file lies beside
    a picture. Raises as `recording` does, before anything is drawn.
    """
    for found in tqdm(list(map(recording, split.sketches)), desc="drawing", disable=None, leave=False):
        pages = found.partials(steps)
        yield torch.cat([fit_square(as_pixels(page)[None], size, fit) for page in pages])

"""Which recording belongs to a sketch of a data folder."""

from collections.abc import Callable
from functools import lru_cache, partial

from sbirlib.data import PairError, Recording, Sketch, read_recording
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

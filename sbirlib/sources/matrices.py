"""QMUL-V1 as it is passed around: MAT-files of sketches and of edge maps of their photos."""

import io
import re
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from sbirlib.data.images import Fault, list_visible
from sbirlib.data.pairs import SPLITS
from sbirlib.errors import first_line
from sbirlib.sources.layouts import UNREAD, Picture, SourceError, list_below, read_bytes

SIDE = 256  # px
_SIDE_OF, _ENDING = {"sketch": "A", "edge": "B"}, {"sketch": "_1", "edge": ""}


def arrange_matrices(folder: Path, category: str) -> tuple[list[Picture], list[Fault]]:
    """Finds `<category>_sketch_db_<split>.mat` and `<category>_edge_db_<split>.mat`, at any depth.

    Each holds one uint8 array `data` (n, 256, 256); row i of one file belongs to row i of the other. Row i of
    the test files, from 1, becomes testB/test00i.png and testA/test00i_1.png. One split is enough. Lines come
    out dark on white. Source: github.com/yuqian1023/Deep_SBIR_tf.

    Of copies of one file, one is taken. Raises SourceError for a file that is missing, damaged or not of this
    form.
    """
    files, unread = list_below(list_visible(folder))
    path_of = {path.name: path for path in files}
    result = []
    for split in SPLITS:
        names = {side: f"{category}_{side}_db_{split}.mat" for side in _SIDE_OF}
        pictures = {side: _load(path_of[name]) for side, name in names.items() if name in path_of}
        if len({len(rows) for rows in pictures.values()}) > 1:
            counts = " and ".join(f"{len(rows)} in {names[side]}" for side, rows in pictures.items())
            reason = f"holds {counts}, but row i of one belongs to row i of the other; download both again"
            raise SourceError(f"{folder}: {reason}")
        if len(pictures) == 1 or (split == SPLITS[-1] and not (pictures or result)):
            held = ", ".join(sorted(name for name in path_of if name.endswith(".mat"))[:8]) or "no MAT-file"
            raise SourceError(f"{folder}: needs {' and '.join(names.values())}; it holds {held} ({UNREAD})")
        for side, rows in pictures.items():
            for i, row in enumerate(rows, 1):
                origin = path_of[names[side]] / f"row {i}"
                target = PurePosixPath(f"{split}{_SIDE_OF[side]}", f"{split}{i:03d}{_ENDING[side]}.png")
                result.append(Picture(origin, target, partial(_png, row)))
    return result, unread


def _load(path: Path) -> np.ndarray:
    """The pictures of a MAT-file, (n, 256, 256) uint8, lines dark on white."""
    from scipy.io import loadmat, whosmat  # slow to import

    data = read_bytes(path)
    try:
        kinds = {name: f"{kind} {tuple(shape)}" for name, shape, kind in whosmat(io.BytesIO(data))}
        if "data" not in kinds:
            raise SourceError(f"{path}: has no variable `data`, but {', '.join(kinds) or 'none at all'}")
        if not re.fullmatch(rf"uint8 \([1-9]\d*, {SIDE}, {SIDE}\)", kinds["data"]):
            raise SourceError(f"{path}: needs uint8 (n, {SIDE}, {SIDE}), but `data` is {kinds['data']}")
        pictures = loadmat(io.BytesIO(data), variable_names=["data"])["data"]
    except (SourceError, MemoryError):
        raise
    except Exception as error:  # the reader raises almost anything over a damaged file
        way = "download it again, or save it with MATLAB's save(..., '-v7')"
        raise SourceError(f"{path}: cannot be read as a MAT-file ({first_line(error)}); {way}") from None
    return pictures if np.median(pictures) > 127 else 255 - pictures  # white paper, whatever the copy has


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()

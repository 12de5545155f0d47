"""QMUL-V1 as it is passed around: MAT-files of sketches and of edge maps of their photos."""

import io
import re
import struct
import zlib
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from sbirlib.data.pairs import SPLITS
from sbirlib.sources.archives import ArchiveError, Entry, Listing
from sbirlib.sources.layouts import Files, SourceError, unread

SIDE = 256  # px
MOST = 4096  # pictures of one file; the largest of QMUL-V1 holds 400
_SIDE_OF, _ENDING = {"sketch": "A", "edge": "B"}, {"sketch": "_1", "edge": ""}
_COMPRESSED = 15  # the type of a compressed element


def arrange_matrices(listing: Listing, category: str, archive: Path) -> Files:
    """Finds `<category>_sketch_db_<split>.mat` and `<category>_edge_db_<split>.mat`, at any depth.

    Each holds one uint8 array `data` (n, 256, 256); row i of one file belongs to row i of the other. Row i of
    the test files, from 1, becomes testB/test00i.png and testA/test00i_1.png. One split is enough. Lines come
    out dark on white. Source: github.com/yuqian1023/Deep_SBIR_tf.

    Raises SourceError for a file that is missing, there twice or not of this form; ArchiveError if damaged.
    """
    name_of = re.compile(rf"{category}_(sketch|edge)_db_(train|test)\.mat")
    found: dict[tuple[str, str], Entry] = {}
    for entry in listing.entries:
        match = name_of.fullmatch(entry.path.name)
        if match and (other := found.setdefault((match[2], match[1]), entry)) is not entry:
            raise SourceError(f"{archive}: holds {other.path} and {entry.path}; import one of their folders")
    halves = [split for split in SPLITS if sum((split, side) in found for side in _SIDE_OF) == 1]
    if halves or not found:
        both = " and ".join(f"{category}_{side}_db_{[*halves, 'train'][0]}.mat" for side in _SIDE_OF)
        there = sorted(entry.path.name for entry in listing.entries if entry.path.suffix == ".mat")
        held = f"it holds {', '.join(there[:8]) or 'no MAT-file'}"
        raise SourceError(f"{archive}: needs {both}; {held}{unread(listing.faults)}")
    result: Files = []
    for split in SPLITS:
        files = {side: found[split, side] for side in _SIDE_OF if (split, side) in found}
        pictures = {side: _read(entry) for side, entry in files.items()}
        if len({len(rows) for rows in pictures.values()}) > 1:
            counts = " and ".join(f"{len(rows)} in {files[side].path}" for side, rows in pictures.items())
            reason = f"holds {counts}, but row i of one belongs to row i of the other; download both again"
            raise SourceError(f"{archive}: {reason}")
        for side, rows in pictures.items():
            for i, row in enumerate(rows, 1):
                target = PurePosixPath(f"{split}{_SIDE_OF[side]}", f"{split}{i:03d}{_ENDING[side]}.png")
                entry = Entry(files[side].path / f"row {i}", row.size, files[side].where, partial(_png, row))
                result.append((entry, target))
    return result


def _read(entry: Entry) -> np.ndarray:
    from scipy.io import loadmat, whosmat  # slow to import

    data, where = entry.read(), entry.where
    if not data.startswith(b"MATLAB "):
        reason = "is not a MAT-file, whatever its name says" if data else "is empty (0 bytes)"
        raise SourceError(f"{where}: {reason}; download it again")
    if 2 in data[124:126]:  # the version, in either byte order
        way = "save it with MATLAB's save(..., '-v7'), or download it again"
        raise SourceError(f"{where}: is a MAT-file of version 7.3 (HDF5), which is not read; {way}")
    try:
        if _unpacks_beyond(MOST * SIDE**2, data):
            raise SourceError(f"{where}: unpacks to more than {MOST} pictures, as a decompression bomb does")
        kinds = {name: f"{kind} {tuple(shape)}" for name, shape, kind in whosmat(io.BytesIO(data))}
        if "data" not in kinds:
            raise SourceError(f"{where}: has no variable `data`, but {', '.join(kinds) or 'none at all'}")
        if not re.fullmatch(rf"uint8 \([1-9]\d*, {SIDE}, {SIDE}\)", kinds["data"]):
            raise SourceError(f"{where}: needs uint8 (n, {SIDE}, {SIDE}), but `data` is {kinds['data']}")
        pictures = loadmat(io.BytesIO(data), variable_names=["data"])["data"]
    except (SourceError, MemoryError):
        raise
    except Exception as error:  # the reader raises almost anything over a damaged file
        raise ArchiveError(f"{where}: is damaged or incomplete ({error}); download it again") from None
    return pictures if np.median(pictures) > 127 else 255 - pictures  # white paper, whatever the copy has


def _unpacks_beyond(most: int, data: bytes) -> bool:
    """Whether a compressed element of a MAT-file (version 5) has more than `most` bytes."""
    order, position = "<" if data[126:128] == b"IM" else ">", 128
    while position < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, position)
        packed = data[position + 8 : position + 8 + size]
        if kind == _COMPRESSED and len(zlib.decompressobj().decompress(packed, most + 1)) > most:
            return True
        position += 8 + size
    return False


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()

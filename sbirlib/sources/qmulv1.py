"""QMUL-V1, brought in from the form in which it is passed around: MAT-files of sketches and of edge maps."""

import io
import json
import re
from pathlib import Path
from typing import Literal

import numpy as np
import scipy  # loads its parts when they are first used
import yaml
from PIL import Image

from sbirlib.data import EDGE_MAPS, RECORD, SPLITS, filling
from sbirlib.errors import InputError, first_line, printable

MANIFEST = Path(__file__).resolve().parent / "manifest.yaml"
Category = Literal["chairs", "shoes", "handbags"]
SIDE = 256  # px
# By what the files are called: the side that they hold, and how the names of its pictures end.
_SIDES = {"sketch": ("A", "_1"), "edge": ("B", "")}


def import_qmulv1(folder: str | Path, out: str | Path, category: Category) -> str:
    """Writes the pairs of one category to `out` as trainA, trainB, testA and testB; returns a report.

    `folder` holds `<category>_sketch_db_<split>.mat` and `<category>_edge_db_<split>.mat`, at any depth, of
    one split or both; of copies of one file, one is taken, and links are not followed. Row i of the test
    files, from 1, becomes testB/test00i.png and testA/test00i_1.png. `import.json` in `out` says that the
    photos are edge maps. Counts are compared with the manifest: another number is a warning. `out`, a new or
    empty folder, is filled only when all is complete. Source: github.com/yuqian1023/Deep_SBIR_tf.

    Raises InputError for an `out` that holds something or cannot be written, for a `folder` that is none, and
    for a file that is missing, damaged or not of this form.
    """
    folder, out = Path(folder), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        ways = "choose a new one with --out, or move this away. Nothing in it was touched"
        raise InputError(f"{out}: is not an empty folder; {ways}")
    if not folder.exists():
        raise InputError(f"{folder}: no such folder")
    if not folder.is_dir():
        way = "`python -m zipfile -e FILE FOLDER`, any other archive with its program"
        raise InputError(f"{folder}: is not a folder. Unpack a .zip with {way}, and import FOLDER")
    splits = _read(folder, category)
    published = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    counts = {split: len(pictures["edge"]) for split, pictures in splits.items()}
    record = {"source": f"qmulv1-{category}", "from": str(folder), "terms": published["terms"]}
    record |= {"edge_maps": True, "pairs": counts}
    try:
        with filling(out) as new:
            for split, pictures in splits.items():
                for kind, (side, ending) in _SIDES.items():
                    (new / f"{split}{side}").mkdir()
                    for i, picture in enumerate(pictures[kind], 1):
                        Image.fromarray(picture).save(new / f"{split}{side}" / f"{split}{i:03d}{ending}.png")
            (new / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error}); nothing was imported"
        raise InputError(f"{out}: {reason}. Make room, or choose another folder with --out") from None
    lines = [f"QMUL-V1 {category}, imported from {folder} to {out}", f"{'pairs':<8}{'found':>8}  published"]
    for split, found in counts.items():
        known = published["pairs"][category][split]
        lines.append(f"{split:<8}{found:>8}  {known}{'' if found == known else '  warning: not as many'}")
    lines += [f"note: {EDGE_MAPS}", f"terms: {published['terms']}"]
    lines.append(f"next: python -m sbirlib data check {out}")
    return "\n".join(map(printable, lines))


def _read(folder: Path, category: str) -> dict[str, dict[str, np.ndarray]]:
    """The pictures of sketches and edge maps of each split that is there."""
    paths = [path for path in sorted(folder.rglob("[!.]*.mat")) if path.is_file() and not path.is_symlink()]
    path_of = {path.name: path for path in paths}
    splits = {}
    for split in SPLITS:
        names = {side: f"{category}_{side}_db_{split}.mat" for side in _SIDES}
        pictures = {side: _load(path_of[name]) for side, name in names.items() if name in path_of}
        if len(pictures) == 1 or (split == SPLITS[-1] and not (pictures or splits)):
            held = ", ".join(sorted(path_of)[:8]) or "no MAT-file"
            unread = "archives in it are not opened: unpack them first; links are not followed"
            raise InputError(f"{folder}: needs {' and '.join(names.values())}; it holds {held} ({unread})")
        if len({len(rows) for rows in pictures.values()}) > 1:
            numbers = " and ".join(f"{len(rows)} in {names[side]}" for side, rows in pictures.items())
            reason = f"holds {numbers}, but row i of one belongs to row i of the other; download both again"
            raise InputError(f"{folder}: {reason}")
        if pictures:
            splits[split] = pictures
    return splits


def _load(path: Path) -> np.ndarray:
    """The pictures of a MAT-file, (n, 256, 256) uint8, lines dark on white."""
    try:
        data = path.read_bytes()
        kinds = {name: f"{kind} {tuple(shape)}" for name, shape, kind in scipy.io.whosmat(io.BytesIO(data))}
        if "data" not in kinds:
            raise InputError(f"{path}: has no variable `data`, but {', '.join(kinds) or 'none at all'}")
        if not re.fullmatch(rf"uint8 \([1-9]\d*, {SIDE}, {SIDE}\)", kinds["data"]):
            raise InputError(f"{path}: needs uint8 (n, {SIDE}, {SIDE}), but `data` is {kinds['data']}")
        pictures = scipy.io.loadmat(io.BytesIO(data), variable_names=["data"])["data"]
    except (InputError, MemoryError):
        raise
    except Exception as error:  # the reader raises almost anything over a damaged file
        way = "download it again, or save it with MATLAB's save(..., '-v7')"
        raise InputError(f"{path}: cannot be read as a MAT-file ({first_line(error)}); {way}") from None
    return pictures if np.median(pictures) > 127 else 255 - pictures  # white paper, whatever the copy has

"""What is on disk: sketches, photos, which belong together, and a report of what is wrong."""

import re
import unicodedata
from collections import defaultdict
from pathlib import Path
from typing import Literal, NamedTuple

from sbirlib.data.folders import RECORD, record_of
from sbirlib.data.images import EXTENSIONS, Fault, list_images, list_unread, read_all, read_image
from sbirlib.data.recordings import RECORDINGS
from sbirlib.data.splits import NO_PHOTO, PairError, Photo, Sketch, Split
from sbirlib.errors import NOT_UTF8, check_utf8, is_utf8, printable

SPLITS = ("train", "test")
SKETCHES = EXTENSIONS + RECORDINGS  # how the names of sketches end
# Sketch `<id>_<digits>`: the digits number the drawing, which in the public sets names the designer.
# The released code looks for `<id>_?.png`: one character, and no other format.
_DRAWING = {"digits": r"(?P<id>.+)_(?P<designer>\d+)", "one_character": r"(?P<id>.+)_(?P<designer>.)"}
Pattern = Literal["digits", "one_character"]
_TWICE = "two photos of one id"
PHOTOS_ALONE = "photos without sketches are trained on with --data.sketches from_photos"
EDGE_MAPS = "the photos are edge maps: train with --model.no-photo-edges"


class PairFolder:
    """Sketches and photos of a folder with `trainA/ trainB/ testA/ testB/` (A sketches, B photos).

    A photo `<id>.<ext>` has the sketches `<id>.<ext>` and `<id>_<digits>.<ext>`; ids may contain underscores,
    extensions are png, jpg, jpeg, webp or bmp in any case. One split is enough. `pattern="one_character"`
    overlooks, as the released code does, every sketch that is not named `<id>_<one character>.png`. A file of
    that name in json or svg holds the strokes of the sketch beside it, or is the sketch where there is no
    picture (json, where there are both). `edge_maps`: whether the photos are edge maps, as the record of
    their import says. `splits` are taken instead of what the folder's names say.

    Raises PairError if the folder is missing or holds neither split, InputError if its name is not UTF-8.
    Names are read at once, pixels only by `report` and by those who use the split. Source: the layout of
    Clothes-V1.
    """

    def __init__(
        self, root: str | Path, *, pattern: Pattern = "digits", splits: dict[str, Split] | None = None
    ) -> None:
        self.root, self.pattern = Path(root), pattern
        check_utf8(root)
        if not self.root.is_dir():
            raise PairError(f"{self.root}: no such folder; `python -m sbirlib data demo` draws one to try")
        there = [name for name in SPLITS if any((self.root / f"{name}{side}").is_dir() for side in "AB")]
        self.splits = splits or {name: _read_split(self.root, name, pattern) for name in there}
        if not self.splits:
            needed = "trainA/ and trainB/, or testA/ and testB/ (A sketches, B photos)"
            raise PairError(f"{self.root}: needs {needed}, and has neither; {PHOTOS_ALONE}")
        self.edge_maps = record_of(self.root).get("edge_maps") is True

    def check_edges(self, photo_edges: bool) -> None:
        """Raises PairError where a model with `photo_edges` would make edge maps of edge maps."""
        if photo_edges and self.edge_maps:
            reason = "its photos are edge maps already, and an edge map of one shows every line twice"
            cause = "model.photo_edges is on, as in presets such as mini and methods such as triplet_sn"
            way = "train with --model.no-photo-edges"
            raise PairError(f"{self.root}: {reason} ({RECORD} says so; {cause}); {way}")

    def split(self, name: str) -> Split:
        """The split `train` or `test`. Raises PairError if the folder has none or it is empty."""
        if name not in self.splits:
            raise PairError(f"{self.root}: has no {name}A/ and {name}B/, so there is no {name} split")
        split = self.splits[name]
        if not split.sketches and split.overlooked:
            which = f"all {len(split.overlooked)} sketches of the {name} split"
            such = f"such as {split.overlooked[0].name}"
            raise PairError(f"{self.root}: data.pattern one_character overlooks {which}, {such}; use digits")
        if not split.sketches and not split.faults:
            needed = f"sketches in {name}A/ and photos in {name}B/ ({', '.join(EXTENSIONS)})"
            raise PairError(f"{self.root}: the {name} split is empty; put {needed}")
        return split

    def report(self) -> "Report":
        """Decodes every image and reports what is there and what would be left out."""
        splits = {}
        for name, split in self.splits.items():
            files = [item.path for item in (*split.sketches, *split.photos)]
            files += sorted({sketch.strokes for sketch in split.sketches if sketch.strokes}.difference(files))
            sizes, broken = read_all(lambda path: read_image(path).size, files, f"checking {name}")
            splits[split.without(broken)] = sizes
        return Report(self.root, splits, self.edge_maps)


class Report(NamedTuple):
    """What `PairFolder.report` found; `str()` is a table.

    `splits` maps the usable part of each split, with its faults, to the (width, height) of every file that
    decodes, in px.
    """

    root: Path
    splits: dict[Split, list[tuple[int, int]]]
    edge_maps: bool = False

    @property
    def left_out(self) -> int:
        """Files that would not be used."""
        return sum(len(split.left_out) for split in self.splits)

    @property
    def empty(self) -> list[str]:
        """Splits without a usable pair."""
        return [split.name for split in self.splits if not split.sketches]

    def __str__(self) -> str:
        lines = [f"{self.root}", f"{'split':<8}{'sketches':>10}{'photos':>10}{'left out':>10}  sizes"]
        notes = [f"  note: {EDGE_MAPS}"] if self.edge_maps else []
        for split, sizes in self.splits.items():
            sides = (min(sizes), max(sizes)) if sizes else ((0, 0), (0, 0))
            small, large = (f"{width}x{height}" for width, height in sides)
            span = small if small == large else f"{small} .. {large}"
            counts = "".join(f"{len(files):>10}" for files in (split.sketches, split.photos, split.left_out))
            lines.append(f"{split.name:<8}{counts}  {span} px")
            notes += [f"  left out: {fault.path}: {fault.kind}: {fault.detail}" for fault in split.left_out]
            if split.name == "test" and (count := len(split.unsketched)):
                text = "test photos have no sketch; they stay in the gallery as distractors"
                notes.append(f"  note: {count} {text}")
        notes += [f"  note: the {name} split has no usable pair" for name in self.empty]
        known = set.intersection(*({photo.id for photo in split.photos} for split in self.splits))
        if len(self.splits) > 1 and known:
            text = "photos of train and test have the same name; if they are the same, a test proves nothing"
            notes.append(f"  note: {len(known)} {text}")
        return "\n".join(map(printable, lines + notes))


def _read_split(root: Path, name: str, pattern: Pattern) -> Split:
    for side, content in (("A", "sketches"), ("B", "photos")):
        if not (root / f"{name}{side}").is_dir():
            both = f"{name}A/ and {name}B/ go together" + (f"; {PHOTOS_ALONE}" if side == "A" else "")
            raise PairError(f"{root}: {name}{side}/ ({content}) is missing; {both}")
    return read_split(name, root / f"{name}A", root / f"{name}B", pattern)


def read_split(name: str, sketches_in: Path | None, photos_in: Path, pattern: Pattern = "digits") -> Split:
    """The split of the sketches and photos in these two folders; without the first, photos alone."""
    faults, pictures = list_unread(photos_in), {"A": [], "B": list_images(photos_in)}
    if sketches_in:
        faults += list_unread(sketches_in, SKETCHES)
        pictures["A"] = list_images(sketches_in, SKETCHES)
    for side, paths in pictures.items():
        faults += [Fault(path, "cannot be used", NOT_UTF8) for path in paths if not is_utf8(path.name)]
        pictures[side] = [path for path in paths if is_utf8(path.name)]
    by_id: dict[str, list[Path]] = defaultdict(list)
    for path in pictures["B"]:
        by_id[_stem(path)].append(path)

    pictured = {_stem(path) for path in pictures["A"] if path.suffix.lower() in EXTENSIONS}
    # Backwards: of two files of one name, .json comes last and stays.
    strokes_of = {_stem(p): p for p in reversed(pictures["A"]) if p.suffix.lower() in RECORDINGS}
    sketches, overlooked = [], []
    for path in pictures["A"]:
        stem = _stem(path)
        strokes = strokes_of.get(stem)
        if path.suffix.lower() in RECORDINGS and (stem in pictured or path != strokes):
            continue
        drawing = re.fullmatch(_DRAWING[pattern], stem, re.DOTALL)
        if pattern == "one_character" and not (drawing and path.suffix == ".png"):
            overlooked.append(path)
            continue
        # The released code has no sketches named like their photo.
        claims = (drawing["id"],) if pattern == "one_character" else (stem, drawing and drawing["id"])
        owners = [owner for owner in claims if owner in by_id]
        if not (owners or drawing) and path.suffix.lower() == ".json":
            continue  # named like no drawing: of something else
        if not owners:
            wanted = drawing["id"] if drawing else stem
            faults.append(Fault(path, NO_PHOTO, f"{name}B/ has no photo {wanted!r}"))
        elif len(owners) == 2:
            # `a_1` draws photo `a_1`, or is drawing 1 of photo `a`: nobody can tell.
            both = ", ".join(by_id[owner][0].name for owner in owners)
            faults.append(Fault(path, _TWICE, f"{both} both claim this sketch; rename one"))
        elif len(by_id[owners[0]]) > 1:
            faults.append(Fault(path, _TWICE, f"its photo {owners[0]!r} exists twice"))
        else:
            designer = drawing["designer"] if drawing and owners[0] != stem else ""
            # 3 and 03 are one person.
            number = str(int(designer)) if designer.isdecimal() else designer
            sketches.append(Sketch(path, owners[0], number, strokes=strokes))

    for paths in by_id.values():
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            faults += [Fault(path, _TWICE, f"{names}; keep one") for path in paths]
    photos = tuple(Photo(paths[0], photo_id) for photo_id, paths in by_id.items() if len(paths) == 1)
    return Split(name, tuple(sketches), photos, tuple(faults), tuple(overlooked))


def _stem(path: Path) -> str:
    # macOS writes an accent as a character of its own; such a name looks the same, and means the same.
    return unicodedata.normalize("NFC", path.stem)

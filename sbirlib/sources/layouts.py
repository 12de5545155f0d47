"""The shapes in which the public data sets are passed around, and which file of them goes where."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sbirlib.data.images import EXTENSIONS, OTHER_EXTENSIONS, Fault, list_visible
from sbirlib.data.pairs import SPLITS
from sbirlib.errors import InputError

UNREAD = "archives in it are not opened: unpack them first; links are not followed"
_SPLIT_AND_SIDE = re.compile(r"(train|test)([ab])")
_SIDE = re.compile(r"(?:.*[_ -])?(photo|sketch)(?:e?s)?(?:_png)?")
_LIST = re.compile(r"(photo|sketch)_(train|test)(?:_name)?\.txt")
_SIDE_OF = {"photo": "B", "sketch": "A"}
# The split lists: {("B", "train"): {"2429245009", ...}, ...}.
_Lists = dict[tuple[str, str], set[str]]


class SourceError(InputError):
    """A data set that cannot be imported; the message names it and says what to do."""


class Picture(NamedTuple):
    """A picture to import: the file that holds it, where it goes (`trainA/00001_01.png`), and its bytes."""

    origin: Path
    target: PurePosixPath
    read: Callable[[], bytes]


def list_below(paths: Sequence[Path]) -> tuple[list[Path], list[Fault]]:
    """The files among some paths and below them, but hidden ones, and what is not read, such as links."""
    files, faults, rest = [], [], list(paths)
    while rest:
        path = rest.pop()
        if path.is_symlink():
            faults.append(Fault(path, "not followed", "is a link; import the folder that it leads to"))
        elif path.is_dir():
            rest += list_visible(path)
        elif path.is_file():
            files.append(path)
        else:
            faults.append(Fault(path, "not read", "is a pipe or device, not a file"))
    return sorted(files), faults


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises SourceError where the disk does not give them."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from None


def arrange(folder: Path) -> tuple[list[Picture], list[Fault]]:
    """The pictures of a data set, and what goes nowhere.

    Known shapes, upper or lower case, with or without folders in these folders:
    1. trainA, trainB, testA, testB (A sketches, B photos): Clothes-V1, and the copies of Chair-V2 and Shoe-V2
       that are trained on.
    2. photo and sketch, or names that end so (ShoeV2_photo, ShoeV2_sketch_png), beside the lists
       photo_train.txt, photo_test.txt and, if there, sketch_train.txt and sketch_test.txt, one name a line:
       QMUL's own form. Without lists of their own, sketches go with their photos.
    Source: the READMEs of ARNet, DLI-Net and TCNet, and loaders of Shoe-V2 on GitHub.

    Raises SourceError if none fits, or only half of one.
    """
    lists = _lists(folder)
    names = {place: place.name.casefold() for place in list_visible(folder)}
    split_and_side = {place: _SPLIT_AND_SIDE.fullmatch(name) for place, name in names.items()}
    paired = any(split_and_side.values())
    pictures, faults = [], []
    for place, name in names.items():
        kind = split_and_side[place] if paired else _SIDE.fullmatch(name)
        if not kind:
            continue
        side = kind[2].upper() if paired else _SIDE_OF[kind[1]]
        files, unread = list_below([place])
        faults += unread
        for path in files:
            split = kind[1] if paired else _split_of(path.stem, side, lists)
            if path.suffix.lower() not in (*EXTENSIONS, *OTHER_EXTENSIONS):
                continue
            if split:
                target = PurePosixPath(f"{split}{side}", path.name)
                pictures.append(Picture(path, target, partial(read_bytes, path)))
            else:
                faults.append(Fault(path, "in no list", "no list names it"))
    _check_sides({picture.target.parts[0] for picture in pictures}, folder)
    return pictures, faults


def _lists(folder: Path) -> _Lists:
    """The split lists beside the folders."""
    result = {}
    for path in list_visible(folder):
        if match := _LIST.fullmatch(path.name.casefold()):
            try:
                lines = read_bytes(path).decode("utf-8-sig").splitlines()
            except UnicodeDecodeError:
                raise SourceError(f"{path}: is not text; it needs one file name a line") from None
            names = {PurePosixPath(line.strip().replace("\\", "/")).stem for line in lines}
            result[_SIDE_OF[match[1]], match[2]] = names - {""}
    return result


def _split_of(stem: str, side: str, lists: _Lists) -> str | None:
    """The split whose list names a file, or its photo; test, where both do."""
    names = {stem}
    if not any(its == side for its, _ in lists):
        side, names = "B", {stem, stem.rpartition("_")[0]}
    splits = [split for split in SPLITS if names & lists.get((side, split), set())]
    return splits[-1] if splits else None


def _check_sides(there: set[str], folder: Path) -> None:
    """Raises SourceError unless there are both sides of a split, and no half of another."""
    if not there:
        raise SourceError(
            f"{folder}: needs trainA, trainB, testA, testB (A sketches, B photos), or photo and sketch with "
            "photo_train.txt and photo_test.txt, a file name a line. If they lie deeper, name the folder "
            f"that holds them; {UNREAD}"
        )
    for split in SPLITS:
        if len(lacking := {f"{split}A", f"{split}B"} - there) == 1:
            side = lacking.pop()
            content = "sketches" if side.endswith("A") else "photos"
            raise SourceError(
                f"{folder}: the {split} split has no {content} ({side}); import both ({UNREAD})"
            )

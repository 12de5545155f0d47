"""The shapes in which the public data sets are passed around, and which file of them goes where."""

import re
from collections import defaultdict
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
_CONTENT = {"A": "sketches", "B": "photos"}


class SourceError(InputError):
    """A data set that cannot be imported; the message names it and says what to do."""


class Picture(NamedTuple):
    """A picture to import: the file that holds it, where it goes (`trainA/00001_01.png`), and its bytes."""

    origin: Path
    target: PurePosixPath
    read: Callable[[], bytes]


class Listing(NamedTuple):
    """The files of a folder at any depth, relative to it and in reading order, and what is left out."""

    folder: Path
    files: list[Path]
    faults: list[Fault]


class _Placed(NamedTuple):
    """A file, and what its folder says: where that lies, which side, and which split if it says so."""

    path: Path
    root: Path
    side: str
    split: str | None = None


# The split lists: {("B", "train"): {"2429245009", ...}, ...}.
_Lists = dict[tuple[str, str], set[str]]


def list_folder(folder: Path) -> Listing:
    """Lists what is not hidden; links are not followed. Raises SourceError for a file, such as an archive."""
    if folder.is_file():
        way = "`python -m zipfile -e FILE FOLDER`, any other archive with its program"
        raise SourceError(f"{folder}: is not a folder. Unpack a .zip with {way}, and import FOLDER")
    files, faults, folders = [], [], [folder]
    while folders:
        for path in list_visible(folders.pop()):
            if path.is_symlink():
                faults.append(Fault(path, "not followed", "is a link; import the folder that it leads to"))
            elif path.is_dir():
                folders.append(path)
            elif path.is_file():
                files.append(path.relative_to(folder))
            else:
                faults.append(Fault(path, "not read", "is a pipe or device, not a file"))
    return Listing(folder, files, faults)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file. Raises SourceError where the disk does not give them."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror or error})") from None


def arrange(listing: Listing, word: str) -> list[Picture]:
    """Finds the data set in a listing, at any depth; of several, the one below a folder named `word`.

    Known shapes, upper or lower case, with or without a folder around them:
    1. trainA, trainB, testA, testB (A sketches, B photos): Clothes-V1, and the copies of Chair-V2 and Shoe-V2
       that are trained on.
    2. photo and sketch, or names that end so (ShoeV2_photo, ShoeV2_sketch_png), beside the lists
       photo_train.txt, photo_test.txt and, if there, sketch_train.txt and sketch_test.txt, one name a line:
       QMUL's own form. Without lists of their own, sketches go with their photos.
    Source: the READMEs of ARNet, DLI-Net and TCNet, and loaders of Shoe-V2 on GitHub.

    Pictures that go nowhere join the listing's faults. Raises SourceError if none, half or several fit.
    """
    folder, placed = listing.folder, list(filter(None, map(_place, listing.files)))
    root = _root(folder, placed, word)
    files = [found for found in placed if found.root == root]
    lists = _lists(listing, root)
    if paired := [found for found in files if found.split]:
        files = paired
    elif any(side == "B" for side, _ in lists):
        files = _by_lists(files, lists, listing)
    else:
        raise SourceError(
            f"{folder}: has photos and sketches, but nothing that divides them into train and test: put "
            "the lists photo_train.txt and photo_test.txt (a file name a line) beside them, or name the "
            "folders trainA, trainB, testA, testB"
        )
    _check_sides(files, folder)
    return [
        Picture(
            folder / found.path,
            PurePosixPath(f"{found.split}{found.side}", found.path.name),
            partial(read_bytes, folder / found.path),
        )
        for found in files
    ]


def _place(path: Path) -> _Placed | None:
    """Reads the name of the folder that a picture lies in."""
    if path.suffix.lower() not in (*EXTENSIONS, *OTHER_EXTENSIONS):
        return None
    name, above = path.parent.name.casefold(), path.parts[:-2]
    while above and above[-1].casefold() == name:  # as Windows unpacks trainA.zip
        above = above[:-1]
    if both := _SPLIT_AND_SIDE.fullmatch(name):
        return _Placed(path, Path(*above), both[2].upper(), both[1])
    if one := _SIDE.fullmatch(name):
        return _Placed(path, Path(*above), _SIDE_OF[one[1]])
    return None


def _root(folder: Path, placed: Sequence[_Placed], word: str) -> Path:
    """The folder that holds the photos and the sketches."""
    sides = defaultdict(set)
    for found in placed:
        sides[found.root].add(found.side)
    whole = [root for root, found in sides.items() if len(found) == 2]
    whole = [root for root in whole if word in str(root).casefold()] or whole
    if len(whole) == 1:
        return whole[0]
    if whole:
        names = ", ".join(map(str, sorted(whole)))
        raise SourceError(f"{folder}: holds {len(whole)} data sets ({names}); import one of these folders")
    half = set().union(*sides.values())
    only = f"has {_CONTENT[half.pop()]} only; " if len(half) == 1 else ""
    raise SourceError(
        f"{folder}: {only}needs trainA, trainB, testA, testB (A sketches, B photos), or photo and "
        f"sketch with photo_train.txt and photo_test.txt ({UNREAD})"
    )


def _lists(listing: Listing, root: Path) -> _Lists:
    """The split lists beside the folders."""
    result = {}
    for path in listing.files:
        match = _LIST.fullmatch(path.name.casefold())
        if not match or path.parent != root:
            continue
        file = listing.folder / path
        try:
            lines = read_bytes(file).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise SourceError(f"{file}: is not text; it needs one file name a line") from None
        names = {PurePosixPath(line.strip().replace("\\", "/")).stem for line in lines}
        result[_SIDE_OF[match[1]], match[2]] = names - {""}
    return result


def _by_lists(files: Sequence[_Placed], lists: _Lists, listing: Listing) -> list[_Placed]:
    """Puts every file into the split whose list names it, or its photo.

    What is in both lists goes to test.
    """
    listed = []
    for found in files:
        stem, side = found.path.stem, found.side
        names = {stem}
        if not any(its == side for its, _ in lists):
            side, names = "B", {stem, stem.rpartition("_")[0]}
        splits = [split for split in SPLITS if names & lists.get((side, split), set())]
        if splits:
            listed.append(found._replace(split=splits[-1]))
        else:
            listing.faults.append(Fault(listing.folder / found.path, "in no list", "no list names it"))
    return listed


def _check_sides(files: Sequence[_Placed], folder: Path) -> None:
    if not files:
        raise SourceError(f"{folder}: the lists beside its pictures name none of them")
    for split in SPLITS:
        sides = {found.side for found in files if found.split == split}
        if len(sides) == 1:
            have, lack = ("A", "B") if "A" in sides else ("B", "A")
            half = f"the {split} split has {_CONTENT[have]} but no {_CONTENT[lack]} ({split}{lack})"
            raise SourceError(f"{folder}: {half}; import both ({UNREAD})")

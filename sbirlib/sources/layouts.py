"""The shapes in which the public data sets are passed around, and which file of them goes where."""

import re
import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sbirlib.data.images import EXTENSIONS, OTHER_EXTENSIONS, SAVE_AS, Fault, list_visible
from sbirlib.data.pairs import SPLITS
from sbirlib.errors import InputError

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".7z")  # which are not read
_SPLIT_AND_SIDE = re.compile(r"(train|test)([ab])")
_SIDE = re.compile(r"(?:.*[_ -])?(photo|sketch)(?:e?s)?(?:_png)?")
_LIST = re.compile(r"(photo|sketch)_(train|test)(?:_name)?\.txt")
_EXTENSION = re.compile("|".join(re.escape(e) + "$" for e in (*EXTENSIONS, *OTHER_EXTENSIONS)), re.IGNORECASE)
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

    @property
    def unread(self) -> str:
        """Archives, links and the like, as the end of a message."""
        archives = [path for path in self.files if path.name.lower().endswith(_ARCHIVES)]
        packed = f". It holds archives ({_names(archives[:4])}): unpack them first" if archives else ""
        return packed + "".join(f". {fault.path}: {fault.detail}" for fault in self.faults[:4])


class _Placed(NamedTuple):
    """A file, and what its folder says: where that lies, which side, and which split if it says so."""

    path: Path
    root: Path
    side: str
    split: str | None = None

    @property
    def readable(self) -> bool:
        return self.path.suffix.lower() in EXTENSIONS


# The split lists: {("photo", "train"): {"2429245009", ...}, ...}.
_Lists = dict[tuple[str, str], set[str]]


def list_folder(folder: Path) -> Listing:
    """Lists what is not hidden; links are not followed. Raises SourceError for a file, such as an archive."""
    if folder.is_file():
        way = f"`python -m zipfile -e {shlex.quote(str(folder))} FOLDER`, any other archive with its program"
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
       QMUL's own form. With photo lists alone, a sketch goes with its photo, and the other way round.
    Source: the READMEs of ARNet, DLI-Net and TCNet, and loaders of Shoe-V2 on GitHub.

    Pictures that go nowhere join the listing's faults. Raises SourceError if none, half or several fit.
    """
    folder, placed = listing.folder, list(filter(None, map(_place, listing.files)))
    root = _root(listing, placed, word)
    files = [found for found in placed if found.root == root]
    lists = _lists(listing, root)
    if paired := [found for found in files if found.split]:
        files = paired
    elif lists:
        files = _by_lists(_one_folder_a_side(files, folder), lists, listing)
    else:
        raise SourceError(
            f"{folder}: has photos and sketches, but nothing that divides them into train and test: put "
            "the lists photo_train.txt and photo_test.txt (a file name a line) beside them, or name the "
            "folders trainA, trainB, testA, testB"
        )
    result = []
    for found in files:
        path = folder / found.path
        if path.name.isprintable() and found.readable:
            target = PurePosixPath(f"{found.split}{found.side}", _composed(path.name))
            result.append(Picture(path, target, partial(read_bytes, path)))
        elif not path.name.isprintable() or path.suffix.lower() in OTHER_EXTENSIONS:
            reason = SAVE_AS if path.name.isprintable() else "its name cannot be printed; rename it"
            listing.faults.append(Fault(path, "cannot be read", reason))
    _check_sides(result, listing)
    return result


def _place(path: Path) -> _Placed | None:
    """Reads the name of the folder that a file lies in."""
    name, above = path.parent.name.casefold(), path.parts[:-2]
    while above and above[-1].casefold() == name:  # as Windows unpacks trainA.zip
        above = above[:-1]
    if both := _SPLIT_AND_SIDE.fullmatch(name):
        return _Placed(path, Path(*above), both[2].upper(), both[1])
    if one := _SIDE.fullmatch(name):
        return _Placed(path, Path(*above), _SIDE_OF[one[1]])
    return None


def _composed(name: str) -> str:
    """A name in which an accent is no character of its own, as macOS writes it."""
    return unicodedata.normalize("NFC", name)


def _root(listing: Listing, placed: Sequence[_Placed], word: str) -> Path:
    sides = defaultdict(set)
    for found in placed:
        if found.readable or found.path.suffix.lower() == ".svg":
            sides[found.root].add(found.side)
    whole = [root for root, found in sides.items() if len(found) == 2]
    whole = [root for root in whole if word in str(root).casefold()] or whole
    if len(whole) == 1:
        return whole[0]
    if whole:
        several = f"holds {len(whole)} data sets ({_names(sorted(whole))})"
        raise SourceError(f"{listing.folder}: {several}; import one of these folders")
    half = set().union(*sides.values())
    only = f"has {_CONTENT[half.pop()]} only; " if len(half) == 1 else ""
    raise SourceError(
        f"{listing.folder}: {only}needs trainA, trainB, testA, testB (A sketches, B photos), or photo and "
        f"sketch with photo_train.txt and photo_test.txt{listing.unread}"
    )


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))


def _one_folder_a_side(files: Sequence[_Placed], root: Path) -> list[_Placed]:
    """Of ShoeV2_sketch (SVG) and ShoeV2_sketch_png, the one that can be read."""
    folders = defaultdict(lambda: defaultdict(list))
    for found in files:
        folders[found.side][found.path.parent].append(found)
    result = []
    for side, candidates in folders.items():
        usable = [folder for folder, inside in candidates.items() if any(found.readable for found in inside)]
        usable = [folder for folder in usable if str(folder).endswith("_png")] or usable
        if len(usable) > 1:
            several = f"has {len(usable)} folders of {_CONTENT[side]}"
            raise SourceError(f"{root}: {several} ({_names(sorted(usable))}); keep one")
        if not usable:
            where = next(iter(candidates))
            raise SourceError(
                f"{root}: the {_CONTENT[side]} in {where} are not in a format that can be read "
                f"({', '.join(EXTENSIONS)}). For SVG: run inkscape --export-type=png "
                f"--export-background=white {root / where}/*.svg, and import again"
            )
        result += candidates[usable[0]]
    return result


def _lists(listing: Listing, root: Path) -> _Lists:
    """The split lists beside the folders."""
    result = {}
    for path in listing.files:
        match = _LIST.fullmatch(path.name.casefold())
        if not match or path.parent != root:
            continue
        file = listing.folder / path
        try:
            lines = _composed(read_bytes(file).decode("utf-8-sig")).splitlines()
        except UnicodeDecodeError:
            raise SourceError(f"{file}: is not text; it needs one file name a line") from None
        names = [line.strip().replace("\\", "/").rpartition("/")[2] for line in lines]
        result[match[1], match[2]] = {_EXTENSION.sub("", name) for name in names if name}
    return result


def _by_lists(files: Sequence[_Placed], lists: _Lists, listing: Listing) -> list[_Placed]:
    """Puts every file into the split whose list names it, or its photo, or a sketch of it.

    What is in both lists goes to test.
    """
    split_of, listed = {}, []
    for kind, side in _SIDE_OF.items():
        train, test = (lists.get((kind, split), ()) for split in SPLITS)
        split_of[side] = dict.fromkeys(train, "train") | dict.fromkeys(test, "test")
    if not split_of["B"]:
        split_of["B"] = {photo: split for stem, split in split_of["A"].items() for photo in _photos_of(stem)}
    for found in files:
        stem, own = _composed(found.path.stem), split_of[found.side]
        names = (stem,) if own else _photos_of(stem)
        if split := next(filter(None, map((own or split_of["B"]).get, names)), None):
            listed.append(found._replace(split=split))
        else:
            listing.faults.append(Fault(listing.folder / found.path, "in no list", "no list names it"))
    return listed


def _photos_of(sketch: str) -> tuple[str, ...]:
    """The photo ids that a sketch of this name may have."""
    head, _, digits = sketch.rpartition("_")
    return (sketch, head) if head and digits.isdigit() else (sketch,)


def _check_sides(pictures: Sequence[Picture], listing: Listing) -> None:
    if not pictures:
        raise SourceError(f"{listing.folder}: holds no picture that can be read ({', '.join(EXTENSIONS)})")
    for split in SPLITS:
        sides = {target.parts[0][-1] for _, target, _ in pictures if target.parts[0].startswith(split)}
        if len(sides) == 1:
            have, lack = ("A", "B") if "A" in sides else ("B", "A")
            half = f"the {split} split has {_CONTENT[have]} but no {_CONTENT[lack]} ({split}{lack})"
            raise SourceError(f"{listing.folder}: {half}; import both{listing.unread}")

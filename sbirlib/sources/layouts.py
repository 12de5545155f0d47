"""The shapes in which the public data sets are passed around, and which file of them goes where."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sbirlib.data.images import EXTENSIONS, OTHER_EXTENSIONS, SAVE_AS, Fault
from sbirlib.data.pairs import SPLITS
from sbirlib.errors import InputError
from sbirlib.sources.archives import SUFFIXES, Entry, Listing

_SPLIT_AND_SIDE = re.compile(r"(train|test)([ab])")
_SIDE = re.compile(r"(?:.*[_ -])?(photo|sketch)(?:e?s)?(?:_png)?")
_LIST = re.compile(r"(photo|sketch)_(train|test)(?:_name)?\.txt")
_EXTENSION = re.compile("|".join(re.escape(e) + "$" for e in (*EXTENSIONS, *OTHER_EXTENSIONS)), re.IGNORECASE)
_SIDE_OF = {"photo": "B", "sketch": "A"}
_CONTENT = {"A": "sketches", "B": "photos"}


class SourceError(InputError):
    """A data set that cannot be imported; the message names it and says what to do."""


# Which file goes where, as (entry, `trainA/00001_01.png`), in reading order.
Files = list[tuple[Entry, PurePosixPath]]


class _Placed(NamedTuple):
    """A file, and what its folder says: where that lies, which side, and which split if it says so."""

    entry: Entry
    root: PurePosixPath
    side: str
    split: str | None = None

    @property
    def readable(self) -> bool:
        return self.entry.path.suffix.lower() in EXTENSIONS


# The split lists: {("photo", "train"): {"2429245009", ...}, ...}.
_Lists = dict[tuple[str, str], set[str]]


def arrange(listing: Listing, word: str, archive: Path) -> Files:
    """Finds the data set in a listing, at any depth; of several, the one below a folder named `word`.

    Known shapes, upper or lower case, with or without a folder around them:
    1. trainA, trainB, testA, testB (A sketches, B photos): Clothes-V1, and the copies of Chair-V2 and Shoe-V2
       that are trained on. Each may also be an archive of its own (trainA.zip) in a folder.
    2. photo and sketch, or names that end so (ShoeV2_photo, ShoeV2_sketch_png), beside the lists
       photo_train.txt, photo_test.txt and, if there, sketch_train.txt and sketch_test.txt, one name a line:
       QMUL's own form. With photo lists alone, a sketch goes with its photo, and the other way round.
    Source: the READMEs of ARNet, DLI-Net and TCNet, and loaders of Shoe-V2 on GitHub.

    Pictures that go nowhere join the listing's faults. Raises SourceError if none, half or several fit.
    """
    placed = [found for entry in listing.entries if (found := _place(entry))]
    root = _root(listing, placed, word, archive)
    files = [found for found in placed if found.root == root]
    lists = _lists(listing.entries, root, archive)
    if paired := [found for found in files if found.split]:
        files = paired
    elif lists:
        files = _by_lists(_one_folder_a_side(files, archive), lists, archive, listing.faults)
    else:
        raise SourceError(
            f"{archive}: has photos and sketches, but nothing that divides them into train and test: put "
            "the lists photo_train.txt and photo_test.txt (a file name a line) beside them, or name the "
            "folders trainA, trainB, testA, testB"
        )
    result: Files = []
    for found in files:
        path = found.entry.path
        if path.name.isprintable() and found.readable:
            result.append((found.entry, PurePosixPath(f"{found.split}{found.side}") / path.name))
        elif not path.name.isprintable() or path.suffix.lower() in OTHER_EXTENSIONS:
            reason = SAVE_AS if path.name.isprintable() else "its name cannot be printed; rename it"
            listing.faults.append(Fault(archive / path, "cannot be read", reason))
    _check_sides(result, listing.faults, archive)
    return result


def _place(entry: Entry) -> _Placed | None:
    """Reads the name of the folder that a file lies in."""
    if any(part.startswith(".") or part == "__MACOSX" for part in entry.path.parts):
        return None
    name, above = _bare(entry.path.parent.name), entry.path.parts[:-2]
    while above and above[-1].casefold() == name:  # as Windows unpacks trainA.zip
        above = above[:-1]
    if both := _SPLIT_AND_SIDE.fullmatch(name):
        return _Placed(entry, _above(above), both[2].upper(), both[1])
    if one := _SIDE.fullmatch(name):
        return _Placed(entry, _above(above), _SIDE_OF[one[1]])
    return None


def _bare(folder: str) -> str:
    """A folder's name in lower case, without the suffix of an archive: files in trainA.zip lie in trainA."""
    name = folder.casefold()
    return name.partition(".")[0] if name.endswith(SUFFIXES) else name


def _above(parts: Iterable[str]) -> PurePosixPath:
    # Other names of archives say nothing: a download may come in several parts.
    return PurePosixPath(*(part for part in parts if not part.casefold().endswith(SUFFIXES)))


def _root(listing: Listing, placed: Sequence[_Placed], word: str, archive: Path) -> PurePosixPath:
    sides = defaultdict(set)
    for found in placed:
        if found.readable or found.entry.path.suffix.lower() == ".svg":
            sides[found.root].add(found.side)
    whole = [root for root, found in sides.items() if len(found) == 2]
    whole = [root for root in whole if word in str(root).casefold()] or whole
    if len(whole) == 1:
        return whole[0]
    if whole:
        several = f"holds {len(whole)} data sets ({_names(sorted(whole))})"
        raise SourceError(f"{archive}: {several}; unpack it if it is packed, and import one of these folders")
    half = set().union(*sides.values())
    only = f"has {_CONTENT[half.pop()]} only; " if len(half) == 1 else ""
    inner = [entry.path for entry in listing.entries if entry.path.name.lower().endswith(SUFFIXES)]
    inside = f". It holds archives ({_names(inner[:4])}): unpack it and import the folder" if inner else ""
    raise SourceError(
        f"{archive}: {only}needs trainA, trainB, testA, testB (A sketches, B photos), or photo and sketch "
        f"with photo_train.txt and photo_test.txt{inside}{unread(listing.faults)}"
    )


def _names(paths: Iterable[PurePosixPath]) -> str:
    return ", ".join(map(str, paths))


def unread(faults: Sequence[Fault]) -> str:
    """What could not be read, as the end of a message."""
    return "".join(f". {fault.path}: {fault.detail}" for fault in faults[:4])


def _one_folder_a_side(files: Sequence[_Placed], archive: Path) -> list[_Placed]:
    """Of ShoeV2_sketch (SVG) and ShoeV2_sketch_png, the one that can be read."""
    folders = defaultdict(lambda: defaultdict(list))
    for found in files:
        folders[found.side][found.entry.path.parent].append(found)
    result = []
    for side, candidates in folders.items():
        usable = [folder for folder, inside in candidates.items() if any(found.readable for found in inside)]
        usable = [folder for folder in usable if str(folder).endswith("_png")] or usable
        if len(usable) > 1:
            several = f"has {len(usable)} folders of {_CONTENT[side]}"
            raise SourceError(f"{archive}: {several} ({_names(sorted(usable))}); keep one")
        if not usable:
            where = next(iter(candidates))
            raise SourceError(
                f"{archive}: the {_CONTENT[side]} in {where} are not in a format that can be read "
                f"({', '.join(EXTENSIONS)}). For SVG: unpack it, run inkscape --export-type=png "
                f"--export-background=white {where}/*.svg, and import the folder"
            )
        result += candidates[usable[0]]
    return result


def _lists(entries: Iterable[Entry], root: PurePosixPath, archive: Path) -> _Lists:
    """The split lists beside the folders."""
    result = {}
    for entry in entries:
        match = _LIST.fullmatch(entry.path.name.casefold())
        if not match or _above(entry.path.parts[:-1]) != root:
            continue
        where = f"{archive}, {entry.path}"
        try:
            # Composed, as the names of an archive's files are.
            lines = unicodedata.normalize("NFC", entry.read().decode("utf-8-sig")).splitlines()
        except UnicodeDecodeError:
            raise SourceError(f"{where}: is not text; it needs one file name a line") from None
        names = [line.strip().replace("\\", "/").rpartition("/")[2] for line in lines]
        result[match[1], match[2]] = {_EXTENSION.sub("", name) for name in names if name}
    return result


def _by_lists(files: Sequence[_Placed], lists: _Lists, archive: Path, faults: list[Fault]) -> list[_Placed]:
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
        stem, own = found.entry.path.stem, split_of[found.side]
        names = (stem,) if own else _photos_of(stem)
        if split := next(filter(None, map((own or split_of["B"]).get, names)), None):
            listed.append(found._replace(split=split))
        else:
            faults.append(Fault(archive / found.entry.path, "in no list", "no list names it"))
    return listed


def _photos_of(sketch: str) -> tuple[str, ...]:
    """The photo ids that a sketch of this name may have."""
    head, _, digits = sketch.rpartition("_")
    return (sketch, head) if head and digits.isdigit() else (sketch,)


def _check_sides(files: Files, faults: Sequence[Fault], archive: Path) -> None:
    if not files:
        raise SourceError(f"{archive}: holds no picture that can be read ({', '.join(EXTENSIONS)})")
    for split in SPLITS:
        sides = {target.parts[0][-1] for _, target in files if target.parts[0].startswith(split)}
        if len(sides) == 1:
            have, lack = ("A", "B") if "A" in sides else ("B", "A")
            half = f"the {split} split has {_CONTENT[have]} but no {_CONTENT[lack]} ({split}{lack})"
            raise SourceError(f"{archive}: {half}; import both{unread(faults)}")

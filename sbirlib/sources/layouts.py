"""The shapes in which the public data sets are passed around, and which file of them goes where."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sbirlib.data.images import EXTENSIONS, OTHER_EXTENSIONS, Fault
from sbirlib.data.pairs import SPLITS
from sbirlib.errors import InputError
from sbirlib.sources.archives import SUFFIXES, Entry, Listing

_SPLIT_AND_SIDE = re.compile(r"(train|test)([ab])")
_SIDE = re.compile(r"(?:.*[_ -])?(photo|sketch)(?:e?s)?(?:_png)?")
_LIST = re.compile(r"(photo|sketch)_(train|test)(?:_name)?\.txt")
_EXTENSION = re.compile("|".join(re.escape(e) + "$" for e in (*EXTENSIONS, *OTHER_EXTENSIONS)), re.IGNORECASE)
_CONTENT = {"A": "sketches", "B": "photos"}
MAX_LIST = 16 * 2**20  # bytes of a list of names


class SourceError(InputError):
    """A data set that cannot be imported; the message names it and says what to do."""


class Layout(NamedTuple):
    """Which file goes where: (entry, `trainA/00001_01.png`) in reading order; the rest, and what to tell of it."""

    files: list[tuple[Entry, PurePosixPath]]
    left_out: list[Fault]
    notes: list[str]


class _Place(NamedTuple):
    """What the folders around a file say: the folder above them all, which side, which split."""

    root: PurePosixPath
    side: str
    split: str | None


def arrange(listing: Listing, word: str, archive: Path) -> Layout:
    """Finds the data set in a listing, at any depth; where there are several, the one below a folder named `word`.

    Known shapes, upper or lower case, with or without a folder around them:
    1. trainA, trainB, testA, testB (A sketches, B photos): Clothes-V1, and the copies of Chair-V2 and
       Shoe-V2 that are trained on. Each may also be an archive of its own (trainA.zip) in a folder.
    2. photo and sketch, or names that end so (ShoeV2_photo, ShoeV2_sketch_png), beside the lists
       photo_train.txt, photo_test.txt and, if there, sketch_train.txt and sketch_test.txt, one name a
       line: QMUL's own form. With photo lists alone, a sketch goes with its photo, and the reverse.
    3. photo/train, photo/test, sketch/train, sketch/test, or train/photo and so on: seen in the wild.
    Source: the READMEs of ARNet, DLI-Net and TCNet, and loaders of Shoe-V2 on GitHub.

    A pickle (ChairV2_Coordinate) is never opened. Raises SourceError if there is no such shape, half of
    one, or more than one that fits.
    """
    placed = [(entry, place) for entry in listing.entries if (place := _place(entry.path))]
    root = _root(listing, placed, word, archive)
    ours = [(entry, place) for entry, place in placed if place.root == root]
    paired = [(entry, place) for entry, place in ours if _SPLIT_AND_SIDE.fullmatch(_folder(entry.path))]
    lists = _lists(listing.entries, root, archive)
    unlisted: list[Fault] = []
    notes: list[str] = []
    if paired:
        ours = paired
    else:
        ours = _one_folder_a_side(ours, archive)
        if lists:
            ours, unlisted, notes = _by_lists(ours, lists, archive)
        elif any(place.split is None for _, place in ours):
            raise SourceError(
                f"{archive}: has photos and sketches, but nothing that divides them into train and test: "
                f"put the lists photo_train.txt and photo_test.txt (a file name a line) beside them, or "
                f"name the folders trainA, trainB, testA, testB{_pickles(listing)}"
            )
    layout = Layout([], [*listing.faults, *unlisted], notes)
    for entry, place in ours:
        suffix = entry.path.suffix.lower()
        if not entry.path.name.isprintable():
            reason = "its name cannot be printed; rename it"
            layout.left_out.append(Fault(archive / entry.path, "cannot be read", reason))
        elif suffix in EXTENSIONS:
            layout.files.append((entry, PurePosixPath(f"{place.split}{place.side}") / entry.path.name))
        elif suffix in OTHER_EXTENSIONS:
            layout.left_out.append(
                Fault(archive / entry.path, "cannot be read", f"save it as one of {', '.join(EXTENSIONS)}")
            )
    _check_sides(layout, archive)
    return layout


def _place(path: PurePosixPath) -> _Place | None:
    """Reads the folder names from the inside out, as long as they mean something."""
    if any(part.startswith(".") or part == "__MACOSX" for part in path.parts):
        return None
    side = split = None
    parts = list(path.parts[:-1])
    while parts:
        name = parts[-1].casefold()
        # Files that lie loose in trainA.zip lie in trainA.
        if name.endswith(SUFFIXES) and side is None:
            name = name.partition(".")[0]
        if both := _SPLIT_AND_SIDE.fullmatch(name):
            split, side = split or both[1], side or both[2].upper()
        elif one := _SIDE.fullmatch(name):
            side = side or {"photo": "B", "sketch": "A"}[one[1]]
        elif name in SPLITS:
            split = split or name
        else:
            break
        parts.pop()
    # The archive's own name says nothing else: a download may come in several parts.
    above = [part for part in parts if not part.casefold().endswith(SUFFIXES)]
    return _Place(PurePosixPath(*above), side, split) if side else None


def _folder(path: PurePosixPath) -> str:
    """The name of the folder that holds a file, or of the archive if it lies loose in one."""
    name = path.parent.name.casefold()
    return name.partition(".")[0] if name.endswith(SUFFIXES) else name


def _root(
    listing: Listing, placed: Sequence[tuple[Entry, _Place]], word: str, archive: Path
) -> PurePosixPath:
    sides = defaultdict(set)
    for entry, place in placed:
        if entry.path.suffix.lower() in EXTENSIONS or entry.path.suffix.lower() == ".svg":
            sides[place.root].add(place.side)
    whole = [root for root, found in sides.items() if len(found) == 2]
    if len(whole) > 1:
        whole = [root for root in whole if word in str(root).casefold()] or whole
    if len(whole) == 1:
        return whole[0]
    if whole:
        raise SourceError(
            f"{archive}: holds {len(whole)} data sets ({', '.join(map(str, sorted(whole)))}); "
            "unpack it if it is an archive, and name one of these folders"
        )
    half = {side for found in sides.values() for side in found}
    found = f"has {_CONTENT[half.pop()]} only; " if len(half) == 1 else ""
    inner = [str(entry.path) for entry in listing.entries if entry.path.name.lower().endswith(SUFFIXES)]
    inside = f". It holds archives ({', '.join(inner[:4])}): unpack it and name the folder" if inner else ""
    unread = "".join(f". {fault.path}: {fault.detail}" for fault in listing.faults[:4])
    raise SourceError(
        f"{archive}: {found}needs trainA, trainB, testA, testB (A sketches, B photos), or photo and "
        f"sketch with photo_train.txt and photo_test.txt{_pickles(listing)}{inside}{unread}"
    )


def _pickles(listing: Listing) -> str:
    names = [
        str(entry.path)
        for entry in listing.entries
        if entry.path.name.endswith(("_Coordinate", ".pkl", ".pickle"))
    ]
    return (
        f". {', '.join(names[:4])}: a Python pickle, which can run any program when it is opened; it was not"
        if names
        else ""
    )


def _one_folder_a_side(files: Sequence[tuple[Entry, _Place]], archive: Path) -> list[tuple[Entry, _Place]]:
    """Of ShoeV2_sketch (SVG) and ShoeV2_sketch_png, the one that can be read."""
    folders = defaultdict(lambda: defaultdict(list))
    for entry, place in files:
        folders[place.side, place.split][entry.path.parent].append((entry, place))
    result = []
    for (side, _), candidates in folders.items():
        usable = {
            folder: found
            for folder, found in candidates.items()
            if any(entry.path.suffix.lower() in EXTENSIONS for entry, _ in found)
        }
        if len(usable) > 1:
            usable = {
                folder: found for folder, found in usable.items() if str(folder).endswith("_png")
            } or usable
        if len(usable) > 1:
            raise SourceError(
                f"{archive}: has {len(usable)} folders of {_CONTENT[side]} "
                f"({', '.join(map(str, sorted(usable)))}); keep one"
            )
        if not usable:
            where = next(iter(candidates))
            raise SourceError(
                f"{archive}: the {_CONTENT[side]} in {where} are not in a format that is read "
                f"({', '.join(EXTENSIONS)}). For SVG: unpack it, run inkscape --export-type=png "
                f"--export-background=white {where}/*.svg, and import the folder"
            )
        result += next(iter(usable.values()))
    return result


def _lists(
    entries: Iterable[Entry], root: PurePosixPath, archive: Path
) -> dict[tuple[str, str], dict[str, str]]:
    """The split lists beside the folders: {("photo", "train"): {"2429245009": "2429245009.png", ...}}."""
    result = {}
    for entry in entries:
        match = _LIST.fullmatch(entry.path.name.casefold())
        above = PurePosixPath(*(p for p in entry.path.parts[:-1] if not p.casefold().endswith(SUFFIXES)))
        if not match or above != root:
            continue
        if entry.size > MAX_LIST:
            raise SourceError(
                f"{archive}, {entry.path}: is larger than {MAX_LIST // 2**20} MiB; no list of names is"
            )
        try:
            lines = entry.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError:
            raise SourceError(f"{archive}, {entry.path}: is not text; a file name a line is needed") from None
        names = [line.strip().replace("\\", "/").rpartition("/")[2] for line in lines]
        result[match[1], match[2]] = {_EXTENSION.sub("", name): name for name in names if name}
    return result


def _by_lists(
    files: Sequence[tuple[Entry, _Place]], lists: dict[tuple[str, str], dict[str, str]], archive: Path
) -> tuple[list[tuple[Entry, _Place]], list[Fault], list[str]]:
    """Puts every file into the split whose list names it, or its photo, or a sketch of it."""
    split_of = {
        side: {stem: split for split in SPLITS for stem in lists.get((kind, split), ())}
        for side, kind in (("A", "sketch"), ("B", "photo"))
    }
    if not split_of["B"]:
        split_of["B"] = {photo: split for stem, split in split_of["A"].items() for photo in _photos_of(stem)}
    notes, listed, left_out = [], [], []
    for kind in ("photo", "sketch"):
        twice = lists.get((kind, "train"), {}).keys() & lists.get((kind, "test"), {}).keys()
        if twice:
            notes.append(
                f"names in both {kind}_train.txt and {kind}_test.txt: {len(twice)}, such as {min(twice)}; "
                "they went to test"
            )
    for entry, place in files:
        stem = entry.path.stem
        known = split_of[place.side] or split_of["B"]
        names = (stem,) if split_of[place.side] else _photos_of(stem)
        split = next((known[name] for name in names if name in known), None)
        if split:
            listed.append((entry, place._replace(split=split)))
        else:
            left_out.append(Fault(archive / entry.path, "in no list", "no list names it"))
    there = {side: {entry.path.stem for entry, place in files if place.side == side} for side in "AB"}
    for (kind, split), names in lists.items():
        missing = sorted(names.keys() - there["A" if kind == "sketch" else "B"])
        if missing:
            notes.append(
                f"files that {kind}_{split}.txt names and that are missing: {len(missing)} of {len(names)}, "
                f"such as {names[missing[0]]}"
            )
    return listed, left_out, notes


def _photos_of(sketch: str) -> tuple[str, ...]:
    """The photo ids that a sketch of this name may have."""
    head, _, digits = sketch.rpartition("_")
    return (sketch, head) if head and digits.isdigit() else (sketch,)


def _check_sides(layout: Layout, archive: Path) -> None:
    for split in SPLITS:
        sides = {target.parts[0][-1] for _, target in layout.files if target.parts[0].startswith(split)}
        if len(sides) == 1:
            have, lack = ("A", "B") if "A" in sides else ("B", "A")
            unread = "".join(f". {fault.path}: {fault.detail}" for fault in layout.left_out[:4])
            raise SourceError(
                f"{archive}: the {split} split has {_CONTENT[have]} but no {_CONTENT[lack]} "
                f"({split}{lack}); bring in both{unread}"
            )
    if not layout.files:
        raise SourceError(f"{archive}: holds no picture in a format that is read ({', '.join(EXTENSIONS)})")

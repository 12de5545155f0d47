"""Bring in the public data sets from what people download: Clothes-V1, QMUL-Chair-V2, QMUL-Shoe-V2."""

from __future__ import annotations

import errno
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from tqdm.auto import tqdm

from sbirlib.data.images import Fault, inspect_image, list_images, printable, read_all
from sbirlib.data.pairs import SPLITS, PairFolder
from sbirlib.errors import InputError
from sbirlib.sources.archives import ArchiveError, open_archive
from sbirlib.sources.layouts import Layout, SourceError, arrange

MANIFEST = Path(__file__).resolve().parent / "manifest.yaml"
RECORD = "import.json"
_BAD_NAMES = (errno.ENAMETOOLONG, errno.EINVAL)  # what a disk says to a name that it does not take
SHOWN = 10  # files that the report names; the record names all
Source = Literal["clothesv1", "chairv2", "shoev2"]


class Published(NamedTuple):
    """What the manifest says of one data set.

    `word` occurs in the names of its folders; `counts` maps "train photos" and the like to the
    published numbers of files, each with where it was read.
    """

    name: str
    word: str
    home: str
    terms: str
    counts: dict[str, dict[int, str]]


class ImportReport(NamedTuple):
    """What `import_dataset` found; `str()` is the report.

    `counts` maps "train photos" and the like to the files written; `left_out` are the pictures that
    were not, and why; `notes` tell the rest.
    """

    published: Published
    archive: Path
    out: Path
    counts: dict[str, int]
    left_out: tuple[Fault, ...]
    notes: tuple[str, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for every count that no source gives."""
        lines = []
        for what, known in self.published.counts.items():
            found = self.counts[what]
            if found not in known:
                sources = "; ".join(f"{count} ({where})" for count, where in known.items())
                near = min(known, key=lambda count: abs(count - found))
                gap = f"{near - found} fewer" if found < near else f"{found - near} more"
                lines.append(f"{what}: found {found}, {gap} than published: {sources}")
        return tuple(lines)

    def __str__(self) -> str:
        lines = [
            f"{self.published.name}, imported from {self.archive} to {self.out}",
            f"{'':<16}{'found':>8}  published",
        ]
        for what, found in self.counts.items():
            known = " or ".join(map(str, self.published.counts.get(what, ()))) or "not stated"
            lines.append(f"{what:<16}{found:>8}  {known}")
        lines += [f"warning: {text}" for text in self.warnings] + [f"note: {text}" for text in self.notes]
        lines += [f"left out: {fault.path}: {fault.detail}" for fault in self.left_out[:SHOWN]]
        if len(self.left_out) > SHOWN:
            lines.append(f"left out: {len(self.left_out) - SHOWN} more; {self.out / RECORD} names all")
        lines += [f"terms: {self.published.terms}", f"next: python -m sbirlib data check {self.out}"]
        return "\n".join(map(printable, lines))


def published(source: str) -> Published:
    """What is published about a data set. Raises InputError for an unknown one, or without the manifest."""
    try:
        manifest: dict[str, Any] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{MANIFEST}: not found; it comes with a clone of the project, installed with pip install -e ."
        ) from None
    if source not in manifest:
        raise InputError(f"unknown data set {source!r}; known: {', '.join(manifest)}")
    return Published(**manifest[source])


def import_dataset(source: Source, archive: str | Path, out: str | Path) -> ImportReport:
    """Writes the pictures of a public data set to `out` as trainA, trainB, testA and testB.

    `archive` is a .zip, .tar or .tar.gz, or a folder, in one of the shapes of `layouts.arrange`; nothing
    is downloaded. Files keep their names and bytes; each is decoded once, and what cannot be is left
    out. Counts are compared with the manifest: another number is a warning. `out` appears only when
    it is complete; an earlier import of the same data set is replaced, any other content refused.

    Raises SourceError for an `out` in use, for content that is in no known shape or without a usable
    pair, and if `out` cannot be written; ArchiveError as `open_archive` does.
    """
    known, archive, out = published(source), Path(archive), Path(out)
    _check_free(out, source, archive)
    with open_archive(archive, without=out) as listing:
        layout = arrange(listing, known.word, archive)
        fresh = _fresh_folder(out)
        try:
            left_out, copies = _write(layout, archive, fresh / "new")
            report = _report(known, archive, out, layout, left_out, copies, fresh / "new")
            record = {
                "source": source,
                "name": known.name,
                "from": str(archive),
                "terms": known.terms,
                "counts": report.counts,
                "files": _files(fresh / "new"),
                "warnings": report.warnings,
                "left_out": [f"{fault.path}: {fault.detail}" for fault in report.left_out],
            }
            text = json.dumps(record, indent=1) + "\n"
            (fresh / "new" / RECORD).write_text(text, encoding="utf-8")
            _put_in_place(fresh, out)
        except OSError as error:
            raise SourceError(
                f"{out}: cannot be written ({error.strerror or error}); nothing was imported. "
                "Make room, or name another folder with --out"
            ) from None
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return report


def _check_free(out: Path, source: str, archive: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise SourceError(f"{out}: is a file; name a new folder with --out")
    if archive.resolve().is_relative_to(out.resolve()):
        raise SourceError(f"{out}: holds {archive}, which is to be imported; name another folder with --out")
    if not any(out.iterdir()):
        return
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("source") != source:
        raise SourceError(
            f"{out}: is not empty, and no earlier import of {source}; name a new folder with --out, or "
            "move this one away. Nothing in it was touched"
        )
    if record.get("files") != _files(out):
        raise SourceError(
            f"{out}: was changed since it was imported; move it away, or name a new folder with --out. "
            "Nothing in it was touched"
        )


def _files(folder: Path) -> dict[str, int]:
    """How many files each folder of an import holds; anything beside these counts too."""
    return {
        path.name: len(_visible(path)) if path.is_dir() else 1
        for path in _visible(folder)
        if path.name != RECORD
    }


def _visible(folder: Path) -> list[Path]:
    # Some systems leave hidden files in every folder that is looked at.
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _fresh_folder(out: Path) -> Path:
    """A hidden folder on the same disk, so that what is complete can be renamed into place."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise SourceError(
            f"{out}: cannot be made ({error.strerror}); name another folder with --out"
        ) from None


def _write(layout: Layout, archive: Path, folder: Path) -> tuple[list[Fault], int]:
    """Writes all pictures and takes those away that cannot be decoded; returns the faults, and how many copies."""
    for place in {target.parts[0] for _, target in layout.files}:
        (folder / place).mkdir(parents=True)
    written: dict[str, Path] = {}
    faults, copies = [], 0
    for entry, target in tqdm(layout.files, desc="reading", unit="file", disable=None, leave=False):
        try:
            data = entry.read()
        except ArchiveError as error:
            faults.append(Fault(archive / entry.path, "cannot be read", str(error).partition(": ")[2]))
            continue
        # Upper and lower case make one file on many disks.
        first = written.get(str(target).casefold())
        if first is None:
            try:
                (folder / target).write_bytes(data)
            except OSError as error:
                if error.errno not in _BAD_NAMES:
                    raise
                faults.append(
                    Fault(archive / entry.path, "cannot be written", "no file can have this name; rename it")
                )
                continue
            written[str(target).casefold()] = folder / target
        elif first.name == target.name and first.read_bytes() == data:
            copies += 1
        else:
            faults.append(
                Fault(
                    archive / entry.path,
                    "two files of one name",
                    f"another file is called {first.name}; rename one",
                )
            )
    _, damaged = read_all(inspect_image, written.values(), "checking")
    origin = {folder / target: archive / entry.path for entry, target in reversed(layout.files)}
    for fault in damaged:
        fault.path.unlink()
    return faults + [fault._replace(path=origin[fault.path]) for fault in damaged], copies


def _report(
    known: Published,
    archive: Path,
    out: Path,
    layout: Layout,
    left_out: Sequence[Fault],
    copies: int,
    folder: Path,
) -> ImportReport:
    pairs = PairFolder(folder)
    if not any(split.sketches for split in pairs.splits.values()):
        raise SourceError(
            f"{archive}: no sketch belongs to a photo; a photo ID.png has the sketches ID_1.png, "
            f"ID_2.png and so on. {len(left_out)} files cannot be read"
        )
    counts: Counter[str] = Counter()
    for split in SPLITS:
        for side, what in (("B", "photos"), ("A", "sketches")):
            there = (folder / f"{split}{side}").is_dir()
            counts[f"{split} {what}"] = len(list_images(folder / f"{split}{side}")) if there else 0
    for what in ("photos", "sketches"):
        counts[f"all {what}"] = sum(counts[f"{split} {what}"] for split in SPLITS)
    notes = list(layout.notes) + ([f"files that were there twice, byte for byte: {copies}"] if copies else [])
    both = set.intersection(*({photo.id for photo in split.photos} for split in pairs.splits.values()))
    if both and len(pairs.splits) == 2:
        notes.append(
            f"photos in both splits: {len(both)}, such as {min(both)}; a test on them proves nothing"
        )
    lonely = sum(
        fault.kind == "sketch without a photo" for split in pairs.splits.values() for fault in split.faults
    )
    if lonely:
        notes.append(f"sketches without a photo: {lonely}; data check names them")
    return ImportReport(known, archive, out, dict(counts), (*left_out, *layout.left_out), tuple(notes))


def _put_in_place(fresh: Path, out: Path) -> None:
    (fresh / "new").chmod(0o755)
    try:
        if out.exists():
            out.rename(fresh / "old")
        (fresh / "new").rename(out)
    except BaseException:
        # The folder of before must not go with the unfinished one.
        if not out.exists() and (fresh / "old").exists():
            (fresh / "old").rename(out)
        raise

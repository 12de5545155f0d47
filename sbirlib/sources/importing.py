"""Bring in the public data sets as people download and unpack them: Clothes-V1, and QMUL's V1 and V2."""

import errno
import json
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import yaml
from tqdm.auto import tqdm

from sbirlib.data.folders import RECORD, content, filling
from sbirlib.data.images import Fault, inspect_image, read_all
from sbirlib.data.pairs import EDGE_MAPS, SPLITS, PairFolder
from sbirlib.errors import InputError, printable
from sbirlib.sources.layouts import Picture, SourceError, arrange, list_folder
from sbirlib.sources.matrices import arrange_matrices

MANIFEST = Path(__file__).resolve().parent / "manifest.yaml"
_BAD_NAMES = (errno.ENAMETOOLONG, errno.EINVAL)  # what a disk says to a name that it does not take
SHOWN = 10  # files that the report names; the record names all
Source = Literal["clothesv1", "chairv2", "shoev2", "qmulv1"]
Category = Literal["chairs", "shoes", "handbags"]  # the parts of QMUL-V1


class ImportReport(NamedTuple):
    """What `import_dataset` found; `str()` is the report.

    `published` is what the manifest says of the data set; `counts` maps "train photos" and the like to the
    files written; `left_out` says which pictures were not, and why.
    """

    published: dict[str, Any]
    folder: Path
    out: Path
    counts: dict[str, int]
    left_out: tuple[Fault, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for every count that no source gives."""
        lines = []
        for what, known in self.published["counts"].items():
            if (found := self.counts[what]) not in known:
                sources = "; ".join(f"{count} ({where})" for count, where in known.items())
                lines.append(f"{what}: found {found}, published are {sources}")
        return tuple(lines)

    def __str__(self) -> str:
        heading = f"{self.published['name']}, imported from {self.folder} to {self.out}"
        lines = [heading, f"{'':<16}{'found':>8}  published"]
        for what, found in self.counts.items():
            known = " or ".join(map(str, self.published["counts"].get(what, ()))) or "not stated"
            lines.append(f"{what:<16}{found:>8}  {known}")
        lines += [f"warning: {text}" for text in self.warnings]
        lines += [f"note: {EDGE_MAPS}"] if self.published["edge_maps"] else []
        lines += [f"left out: {fault.path}: {fault.detail}" for fault in self.left_out[:SHOWN]]
        if len(self.left_out) > SHOWN:
            lines.append(f"left out: {len(self.left_out) - SHOWN} more; {self.out / RECORD} names all")
        lines += [f"terms: {self.published['terms']}", f"next: python -m sbirlib data check {self.out}"]
        return "\n".join(map(printable, lines))


def published(source: str) -> dict[str, Any]:
    """What `manifest.yaml` says of a data set. Raises InputError for an unknown one."""
    manifest: dict[str, Any] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    if source not in manifest:
        raise InputError(f"unknown data set {source!r}; known: {', '.join(manifest)}")
    return {"edge_maps": False, **manifest[source]}


def import_dataset(
    source: Source, folder: str | Path, out: str | Path, category: Category | None = None
) -> ImportReport:
    """Writes the pictures of a public data set to `out` as trainA, trainB, testA and testB.

    `folder` holds the data set, unpacked, in one of the shapes of `layouts.arrange`, or for "qmulv1" and one
    `category` of it of `matrices.arrange_matrices`; nothing is downloaded. Picture files keep their names and
    bytes; each is decoded once, and left out if that fails. Counts are compared with the manifest: another
    number is a warning. `out`, a new or empty folder, is filled only when all is complete.

    Raises InputError for a category that is missing or too much and a folder that is not there; SourceError
    for an `out` that holds something or cannot be written, for a file in place of `folder`, such as an
    archive, and for content in no known shape or without a usable pair.
    """
    in_parts, parts = source == "qmulv1", ", ".join(get_args(Category))
    if in_parts and category is None:
        raise InputError(f"qmulv1 is imported one category at a time: add --category, one of {parts}")
    if category and not in_parts:
        raise InputError(f"--category {category} goes with qmulv1; {source} has no categories: leave it out")
    name = f"{source}-{category}" if category else source
    known, folder, out = published(name), Path(folder), Path(out)
    if out.exists() and (not out.is_dir() or content(out)):
        ways = "choose a new one with --out, or move this away. Nothing in it was touched"
        raise SourceError(f"{out}: is not an empty folder; {ways}")
    listing = list_folder(folder)
    pictures = (arrange_matrices if in_parts else arrange)(listing, known["word"])
    try:
        with filling(out) as new:
            left_out = _write(pictures, new) + listing.faults
            report = _report(known, folder, out, left_out, new)
            record = {
                "source": name, "name": known["name"], "from": str(folder), "terms": known["terms"],
                "edge_maps": known["edge_maps"], "counts": report.counts, "warnings": report.warnings,
                "left_out": [f"{fault.path}: {fault.detail}" for fault in report.left_out],
            }  # fmt: skip
            (new / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error}); nothing was imported"
        raise SourceError(f"{out}: {reason}. Make room, or choose another folder with --out") from None
    return report


def _write(pictures: list[Picture], folder: Path) -> list[Fault]:
    """Writes all pictures, removes those that cannot be decoded, and returns what cannot be used."""
    for place in {picture.target.parent for picture in pictures}:
        (folder / place).mkdir(parents=True)
    written, origins, faults = {}, {}, []
    for origin, target, read in tqdm(pictures, desc="reading", unit="file", disable=None, leave=False):
        path, key = folder / target, str(target).casefold()
        try:
            data = read()
            # Upper and lower case make one file on many disks.
            if not (first := written.get(key)):
                path.write_bytes(data)
                written[key], origins[path] = path, origin
            elif first.name != path.name or first.read_bytes() != data:
                reason = f"another file is called {first.name}; rename one"
                faults.append(Fault(origin, "two files of one name", reason))
        except SourceError as error:
            faults.append(Fault(origin, "cannot be read", str(error).removeprefix(f"{origin}: ")))
        except OSError as error:
            if error.errno not in _BAD_NAMES:
                raise
            faults.append(Fault(origin, "cannot be written", "no file can have this name; rename it"))
    for fault in read_all(inspect_image, origins, "checking")[1]:
        fault.path.unlink()
        faults.append(fault._replace(path=origins[fault.path]))
    return faults


def _report(known: dict[str, Any], folder: Path, out: Path, left_out: list[Fault], new: Path) -> ImportReport:
    splits = PairFolder(new).splits.values()
    if not any(split.sketches for split in splits):
        reason = "no sketch belongs to a photo; a photo ID.png has the sketches ID_1.png, ID_2.png and so on"
        raise SourceError(f"{folder}: {reason}. {len(left_out)} files were left out")
    sides = {"photos": "B", "sketches": "A"}
    parts = {f"{split} {what}": new / f"{split}{side}" for split in SPLITS for what, side in sides.items()}
    counts = {what: len(content(part)) if part.is_dir() else 0 for what, part in parts.items()}
    counts |= {f"all {what}": sum(counts[f"{split} {what}"] for split in SPLITS) for what in sides}
    return ImportReport(known, folder, out, counts, tuple(left_out))

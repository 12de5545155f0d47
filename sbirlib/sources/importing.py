"""Bring in the public data sets as people download and unpack them: Clothes-V1, and QMUL's V1 and V2."""

import json
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import yaml
from tqdm.auto import tqdm

from sbirlib.data.folders import RECORD, filling
from sbirlib.data.images import Fault
from sbirlib.data.pairs import EDGE_MAPS, PairFolder
from sbirlib.errors import InputError, printable
from sbirlib.sources.layouts import Picture, SourceError, arrange
from sbirlib.sources.matrices import arrange_matrices

MANIFEST = Path(__file__).resolve().parent / "manifest.yaml"
Source = Literal["clothesv1", "chairv2", "shoev2", "qmulv1"]
Category = Literal["chairs", "shoes", "handbags"]  # the parts of QMUL-V1


class ImportReport(NamedTuple):
    """What `import_dataset` found; `str()` is the report.

    `published` is what the manifest says of the data set; `counts` maps "train photos" and the like to the
    usable ones; `left_out` says which files were not written, and why.
    """

    published: dict[str, Any]
    folder: Path
    out: Path
    counts: dict[str, int]
    left_out: tuple[Fault, ...]

    def __str__(self) -> str:
        heading = f"{self.published['name']}, imported from {self.folder} to {self.out}"
        lines = [heading, f"{'':<16}{'found':>8}  published"]
        for what, found in self.counts.items():
            known = self.published["counts"].get(what, ())
            said = " or ".join(map(str, known)) or "not stated"
            differs = "  warning: no source counts as many" if known and found not in known else ""
            lines.append(f"{what:<16}{found:>8}  {said}{differs}")
        lines += [f"note: {EDGE_MAPS}"] if self.published["edge_maps"] else []
        lines += [f"left out: {fault.path}: {fault.detail}" for fault in self.left_out]
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
    bytes; each is decoded once, and left out if that fails or a sketch has no photo. Counts are compared with
    the manifest: another number is a warning. `out`, a new or empty folder, is filled only when all is
    complete.

    Raises InputError for a category that is missing or too much and a folder that is not there; SourceError
    for an `out` that holds something or cannot be written, for a file in place of `folder`, such as an
    archive, and for content in no known shape or without a usable pair.
    """
    if source == "qmulv1" and not category:
        parts = ", ".join(get_args(Category))
        raise InputError(f"qmulv1 is imported one category at a time: add --category, one of {parts}")
    if category and source != "qmulv1":
        raise InputError(f"--category {category} goes with qmulv1; {source} has no categories: leave it out")
    name = f"{source}-{category}" if category else source
    known, folder, out = published(name), Path(folder), Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        ways = "choose a new one with --out, or move this away. Nothing in it was touched"
        raise SourceError(f"{out}: is not an empty folder; {ways}")
    if folder.is_file():
        way = "`python -m zipfile -e FILE FOLDER`, any other archive with its program"
        raise SourceError(f"{folder}: is not a folder. Unpack a .zip with {way}, and import FOLDER")
    pictures, unread = arrange_matrices(folder, category) if category else arrange(folder)
    try:
        with filling(out) as new:
            report = ImportReport(known, folder, out, *_write(pictures, unread, folder, new))
            record = {
                "source": name, "name": known["name"], "from": str(folder), "terms": known["terms"],
                "edge_maps": known["edge_maps"], "counts": report.counts,
                "left_out": [f"{fault.path}: {fault.detail}" for fault in report.left_out],
            }  # fmt: skip
            (new / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        reason = f"cannot be written ({error.strerror or error}); nothing was imported"
        raise SourceError(f"{out}: {reason}. Make room, or choose another folder with --out") from None
    return report


def _write(
    pictures: list[Picture], unread: list[Fault], folder: Path, new: Path
) -> tuple[dict[str, int], tuple[Fault, ...]]:
    """Writes all pictures, and removes those that cannot be used; what is there, and what is left out."""
    origins, faults = {}, list(unread)
    for origin, target, read in tqdm(pictures, desc="reading", unit="file", disable=None, leave=False):
        path = new / target
        path.parent.mkdir(exist_ok=True)
        try:
            data = read()
        except SourceError as error:
            faults.append(Fault(origin, "cannot be read", str(error).removeprefix(f"{origin}: ")))
            continue
        # Upper and lower case make one file on many disks.
        if path.exists() and path.read_bytes() != data:
            faults.append(Fault(origin, "two files of one name", "another file has this name; rename one"))
            continue
        path.write_bytes(data)
        origins[path] = origin
    splits = {split.name: split for split in PairFolder(new).report().splits}
    for split in splits.values():
        for fault in split.faults:
            fault.path.unlink()
            faults.append(fault._replace(path=origins.get(fault.path, fault.path)))
    if not any(split.sketches for split in splits.values()):
        why = "no sketch belongs to a photo; a photo ID.png has the sketches ID_1.png, ID_2.png and so on"
        first = "".join(f". {fault.path}: {fault.detail}" for fault in faults[:4])
        raise SourceError(f"{folder}: {why}. {len(faults)} files were left out{first}")
    counts = {}
    for name, split in splits.items():
        counts |= {f"{name} photos": len(split.photos), f"{name} sketches": len(split.sketches)}
    for what in ("photos", "sketches"):
        counts[f"all {what}"] = sum(counts[f"{name} {what}"] for name in splits)
    return counts, tuple(faults)

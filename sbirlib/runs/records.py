"""What a run notes: what it began from, in `start.yaml`, and the result of each epoch, in `history.csv`."""

import csv
import hashlib
import math
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from sbirlib import methods  # whose names are loaded late: a report needs no torch
from sbirlib.config.config import Config
from sbirlib.data.splits import Split
from sbirlib.runs.atomic import RunError

# The files of a model and of a checkpoint, beside its tensors.
WEIGHTS, CONFIG, CHECKSUMS = "model.safetensors", "config.yaml", "checksums.json"
PACKAGES = ("sbirlib", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow", "safetensors")
# What is searched after an epoch.
HELD_OUT, TEST_SET, NOTHING = "held-out photos", "TEST SET", "nothing"
PSEUDO = "held-out photos, by sketches made of them"
_SHORT = {TEST_SET: "TEST", PSEUDO: "val (no real sketch)"}


class EpochRecord(NamedTuple):
    """One epoch, counted from 1: mean losses by term, learning rate at its end, speed, and score.

    `validation` has acc@1, acc@5, acc@10 (percent) and mrr of the photos that are searched after an epoch,
    and is empty in epochs without a search; `selected_on` names them, such as "held-out photos";
    `queries` counts their sketches; `best` tells whether this epoch became RUN/best; `skipped` counts the
    files left out of the training data because of faults.
    """

    epoch: int
    losses: dict[str, float]
    lr: float
    views_per_second: float
    seconds: float
    validation: dict[str, float]
    best: bool
    selected_on: str
    skipped: int = 0
    queries: int = 0

    def as_row(self) -> dict[str, Any]:
        """The record as one flat row of history.csv."""
        return {
            "epoch": self.epoch, **{f"loss_{k}": v for k, v in self.losses.items()},
            "lr": self.lr, "views_per_second": self.views_per_second, "seconds": self.seconds,
            **{f"val_{k}": self.validation.get(k, math.nan) for k in ("acc@1", "acc@5", "acc@10", "mrr")},
            "val_queries": self.queries, "best": int(self.best), "selected_on": self.selected_on,
            "skipped": self.skipped,
        }  # fmt: skip

    def __str__(self) -> str:
        speed = f"{self.views_per_second:.0f} views/s  {self.seconds:.1f} s"
        text = f"epoch {self.epoch:3d}  loss {self.losses['total']:.3f}  lr {self.lr:.1e}  {speed}"
        if self.validation:
            where, first, fifth = self.selected_on, self.validation["acc@1"], self.validation["acc@5"]
            text += f"  {_SHORT.get(where, 'val')} Acc@1 {first:.1f} %  Acc@5 {fifth:.1f} % of {self.queries}"
        text += "  best" if self.best else ""
        return text + (f"  ({self.skipped} files skipped)" if self.skipped else "")


_COUNTS = ("epoch", "seconds", "best", "skipped")  # which every epoch has
_COLUMNS = {*_COUNTS, "selected_on", "val_queries", "val_acc@1", "val_acc@5", "val_acc@10"}


def read_history(path: Path) -> dict[str, list[Any]]:
    """The columns of a history.csv, one entry per epoch. Raises RunError if it cannot be read."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns: dict[str, list[Any]] = {
            name: [row[name] if name == "selected_on" else float(row[name] or "nan") for row in rows]
            for name in (rows[0] if rows else ())
        }
        if missing := _COLUMNS - columns.keys():
            raise ValueError(f"it holds no {', '.join(sorted(missing))}" if rows else "it holds no epoch")
        if not all(math.isfinite(value) for name in _COUNTS for value in columns[name]):
            raise ValueError("an epoch in it is not complete")
        return columns
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; a run writes it after its first epoch") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise RunError(f"{path}: cannot be read ({error}); train again, or leave this run out") from None


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("[0-9]*-[0-9]*"))


def beginning(model: "methods.Method", config: Config, data: Sequence[Split]) -> dict[str, Any]:
    """What start.yaml holds: backbone, weights and their hashes, seed, data, versions, code."""
    source, file = model.sketch_encoder.backbone.source, model.sketch_encoder.backbone.file
    weights = f"{source}, seed {config.run.seed}" if source == "from scratch" else source
    result: dict[str, Any] = {"method": config.method, "backbone": config.model.backbone, "weights": weights}
    if file:
        result["weights_file_sha256"] = sha256(file)
    files = data_fingerprint(data, model.needs.strokes)
    if model.needs.unlabelled:
        files["without_sketch"] = sum(len(split.photos) for split in data if not split.sketches)
    result["backbone_sha256"] = methods.fingerprint(model.sketch_encoder.backbone)
    more = {"seed": config.run.seed, "data": files, "versions": versions(), "code": code_state()}
    return result | more


def data_fingerprint(splits: Sequence[Split], strokes: bool = False) -> dict[str, Any]:
    """Counts and a hash of the files that a run learns and chooses from: names and bytes, not places.

    Stroke files beside pictures count with `strokes`, for methods that need them.
    """
    total = hashlib.sha256("".join(str(p.attributes or "") for s in splits for p in s.photos).encode())
    sketches = [sketch.path for split in splits for sketch in split.sketches]
    photos = [photo.path for split in splits for photo in split.photos]
    drawn = [sketch for split in splits for sketch in split.sketches if strokes]
    beside = [sketch.strokes for sketch in drawn if sketch.strokes and sketch.strokes != sketch.path]
    for path in sorted(sketches + photos + beside, key=lambda path: (path.parent.name, path.name)):
        total.update(f"{path.parent.name}/{path.name}".encode() + bytes.fromhex(sha256(path)))
    return {"sketches": len(sketches), "photos": len(photos), "sha256": total.hexdigest()}


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what is computed."""
    found = {"python": platform.python_version()} | dict.fromkeys(PACKAGES, "not installed as a package")
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def code_state() -> str:
    """The git commit of this code, and whether it was changed since; in words if there is no git."""
    how: Any = dict(cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True, timeout=10)
    words = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=, with changes"]
    try:
        # Installed inside the checkout of something else, this package is not part of that repository.
        subprocess.run(["git", "ls-files", "--error-unmatch", "__init__.py"], **how)
        return subprocess.run(words, **how).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "no git checkout"

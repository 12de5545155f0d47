"""What a run began from: versions, state of the code, data, weights, seed; kept in its `start.yaml`."""

import hashlib
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from sbirlib.config.config import Config
from sbirlib.config.files import read_yaml
from sbirlib.data.splits import Split
from sbirlib.errors import ConfigError
from sbirlib.methods.base import Method, fingerprint
from sbirlib.runs.atomic import RunError, write_text

PACKAGES = ("sbirlib", "torch", "torchvision", "timm", "accelerate", "numpy", "pillow", "safetensors")


def beginning(model: Method, config: Config, data: Sequence[Split]) -> dict[str, Any]:
    """What start.yaml holds: backbone, weights and their hashes, seed, data, versions, code."""
    source, file = model.sketch_encoder.backbone.source, model.sketch_encoder.backbone.file
    weights = f"{source}, seed {config.run.seed}" if source == "from scratch" else source
    result = {"method": config.method, "backbone": config.model.backbone, "weights": weights}
    if file:
        result["weights_file_sha256"] = sha256(file)
    files = data_fingerprint(data)
    if model.needs.unlabelled != "no":
        files["without_sketch"] = sum(len(split.photos) for split in data if not split.sketches)
    return result | {
        "sketch_backbone_sha256": fingerprint(model.sketch_encoder.backbone),
        "photo_backbone_sha256": fingerprint(model.photo_encoder.backbone),
        "seed": config.run.seed, "data": files, "versions": versions(), "code": code_state(),
    }  # fmt: skip


def data_fingerprint(splits: Sequence[Split]) -> dict[str, Any]:
    """Counts and a hash of the files that a run learns and chooses from: names and bytes, not places."""
    total = hashlib.sha256()
    sketches = [sketch.path for split in splits for sketch in split.sketches]
    photos = [photo.path for split in splits for photo in split.photos]
    for path in sorted(sketches + photos, key=lambda path: (path.parent.name, path.name)):
        total.update(f"{path.parent.name}/{path.name}".encode() + bytes.fromhex(sha256(path)))
    return {"sketches": len(sketches), "photos": len(photos), "sha256": total.hexdigest()}


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what is computed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def code_state() -> str:
    """The git commit of this code, and whether it was changed since; in words if there is no git."""
    package = Path(__file__).parents[1]
    try:
        # Installed inside the checkout of something else, this package is not part of that repository.
        _git(package, "ls-files", "--error-unmatch", "__init__.py")
        commit = _git(package, "rev-parse", "HEAD")
        changed = _git(package, "status", "--porcelain", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return "no git checkout"
    return f"{commit}, with changes" if changed else commit


def write_beginning(path: Path, start: dict[str, Any]) -> None:
    """Writes start.yaml."""
    write_text(path, yaml.safe_dump(start, sort_keys=False))


def read_beginning(path: Path) -> dict[str, Any]:
    """Reads start.yaml. Raises RunError if it is missing or not a mapping."""
    try:
        start = read_yaml(path)
    except FileNotFoundError:
        reason = "it is not a run, or one of an older version; train again"
        raise RunError(f"{path.parent} has no {path.name}: {reason}") from None
    except (ConfigError, OSError) as error:
        raise RunError(str(error)) from None
    if not isinstance(start, dict):
        raise RunError(f"{path} does not hold what a run began from")
    return start


def _git(folder: Path, *words: str) -> str:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

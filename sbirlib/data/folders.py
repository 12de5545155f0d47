"""Filling a folder so that it holds either all that was meant to be written, or what it held before."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

RECORD = "import.json"  # what an import notes of itself
# What disks and file managers put into a folder that a person calls empty.
_OF_THE_SYSTEM = ("lost+found", ".DS_Store", "Thumbs.db", "desktop.ini")


def content(folder: Path) -> list[Path]:
    """What a folder holds, hidden or not, sorted by name.

    Without what disks and file managers add, and what `filling` left when it was killed.
    """
    paths = sorted(path for path in folder.iterdir() if path.name not in _OF_THE_SYSTEM)
    return [path for path in paths if not path.name.startswith(f".{folder.name}-")]


def record_of(folder: Path) -> dict[str, Any]:
    """What the import that filled a folder noted; empty where there was none, or its record is no JSON."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8")) if (folder / RECORD).is_file() else {}
    except (OSError, ValueError, RecursionError):
        record = {}
    return record if isinstance(record, dict) else {}


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A new folder to write into; at the end, all that is in it is moved to `folder`.

    That is absent or empty. An empty one stays itself: it may be a mounted volume, over which nothing can be
    renamed. After an error it is as it was. Raises OSError.
    """
    there = folder.is_dir()
    if not there:
        folder.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and on the same disk, so that what is complete can be renamed into place.
    place, prefix = folder if there else folder.parent, f".{folder.name}-"
    with TemporaryDirectory(prefix=prefix, dir=place, ignore_cleanup_errors=True) as fresh:
        new = Path(fresh, "new")
        new.mkdir()
        yield new
        if not there:
            new.rename(folder)
            return
        names = [path.name for path in new.iterdir()]
        try:
            for name in names:
                (new / name).rename(folder / name)
        except BaseException:
            for name in names:
                if not (new / name).exists():
                    (folder / name).rename(new / name)
            raise

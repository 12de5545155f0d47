"""Filling a folder so that it holds either all that was meant to be written, or what it held before."""

import json
import os
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
    """A new folder to write into; at the end, all that is in it takes the place of all that `folder` holds.

    `folder` itself stays, if it is there: it may be a mounted volume, over which nothing can be renamed.
    After an error it holds what it held, or is still absent. Raises OSError.
    """
    there = folder.is_dir()
    if not there:
        folder.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and on the same disk, so that what is complete can be renamed into place.
    place, prefix = folder if there else folder.parent, f".{folder.name}-"
    with TemporaryDirectory(prefix=prefix, dir=place, ignore_cleanup_errors=True) as fresh:
        new, old = Path(fresh, "new"), Path(fresh, "old")
        new.mkdir()
        yield new
        if not there:
            new.rename(folder)
            return
        old.mkdir()
        before = [path for path in content(folder) if path != Path(fresh)]
        moves = [(path, old / path.name) for path in before]
        moves += [(path, folder / path.name) for path in content(new)]
        try:
            for source, target in moves:
                source.rename(target)
        except BaseException:
            for source, target in reversed(moves):
                if os.path.lexists(target) and not os.path.lexists(source):
                    target.rename(source)
            raise

"""Filling a folder so that it holds either all that was meant to be written, or nothing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

RECORD = "import.json"  # what an import notes of itself


def record_of(folder: Path, name: str = RECORD) -> dict[str, Any]:
    """What was noted in a JSON file of a folder; empty where there is none, or it holds no such thing."""
    try:
        record = json.loads((folder / name).read_text("utf-8")) if (folder / name).is_file() else {}
    except (OSError, ValueError, RecursionError):
        record = {}
    return record if isinstance(record, dict) else {}


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which at the end takes the place of `folder`.

    That is absent or empty, and no disk of its own. After an error nothing is in it. Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Hidden, and on the same disk, so that what is complete can be renamed into place.
    prefix = f".{folder.name}-"
    with TemporaryDirectory(prefix=prefix, dir=folder.parent, ignore_cleanup_errors=True) as fresh:
        new = Path(fresh, "new")
        new.mkdir()
        yield new
        if folder.exists():
            folder.rmdir()
        new.rename(folder)

"""Writing files and folders so that any interruption leaves either the old one or the new one, whole."""

import csv
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sbirlib.errors import InputError, first_line


class RunError(InputError):
    """A run folder that cannot be used; the message names it and says what to do."""


@contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """A new file to write that takes the place of `path` once it is on the disk. Raises OSError."""
    path = Path(path)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        yield path  # such as /dev/stdout: what it leads to must stay in its place
        return
    # The suffix stays: it may name the format.
    fresh = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield fresh
        _sync(fresh)
        fresh.replace(path)
        _sync(path.parent)
    except OSError as error:
        if error.filename != str(fresh):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        fresh.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file, or leaves the old one. Raises OSError."""
    with replacing_file(path) as fresh:
        fresh.write_text(text, encoding="utf-8")


def write_csv(path: str | Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows by their columns, or leaves the old file; no file without rows. Raises OSError."""
    if not rows:
        Path(path).unlink(missing_ok=True)
        return
    with replacing_file(path) as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """A new folder to write into that takes the place of `folder` once everything in it is on the disk.

    Whatever interrupts this, `settled(folder)` is the old one or the new one, whole. Raises RunError if it
    cannot be written.
    """
    folder = Path(folder).resolve()  # a link stays one
    fresh, old = folder.with_name(f".{folder.name}.new"), _old(folder)
    try:
        if old.exists() and not folder.exists():
            old.rename(folder)
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
        fresh.mkdir(parents=True)
        yield fresh
        for path in (*fresh.iterdir(), fresh):
            _sync(path)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        _sync(folder.parent)
    except OSError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise RunError(unwritable(folder, first_line(error))) from error
    shutil.rmtree(old, ignore_errors=True)


def unwritable(place: Path, why: object) -> str:
    """The message for a run that cannot be written."""
    kept = "what was saved before is kept. Free some space or repair the disk; then resume (--resume)"
    return f"{place} cannot be written ({why}); {kept}, or, before any checkpoint, start again (--overwrite)"


def settled(folder: str | Path) -> Path:
    """`folder`, or the old one beside it if a process was killed between the renamings that replace it."""
    folder = Path(folder)
    return _old(folder) if _old(folder).exists() and not folder.exists() else folder


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk, so that it is whole even if the power then fails."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot do this for a folder
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

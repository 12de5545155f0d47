"""Writing files and folders so that whatever interrupts it leaves the old one or the new one, whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sbirlib.errors import InputError, first_line


class RunError(InputError):
    """A run folder that cannot be used; the message names it and says what to do."""


@contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """A new file to write that takes the place of `path` once it is on the disk. Raises OSError."""
    path = Path(path)
    # The suffix stays: it may name the format.
    fresh = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield fresh
        _sync(fresh)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def replacing(folder: str | Path) -> Iterator[Path]:
    """A new folder to write into that takes the place of `folder` once everything in it is on the disk.

    Whatever interrupts this, `settled(folder)` is the old one or the new one, whole. Raises RunError if the
    disk refuses.
    """
    folder = settled(folder)
    fresh, old = folder.with_name(f".{folder.name}.new"), _old(folder)
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        yield fresh
        for path in (*fresh.iterdir(), fresh):
            _sync(path)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
        _sync(folder.parent)
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch and safetensors each have an error of their own for a disk that is full.
        shutil.rmtree(fresh, ignore_errors=True)
        raise RunError(unwritable(folder, first_line(error))) from error
    shutil.rmtree(old, ignore_errors=True)


def unwritable(place: Path, why: object) -> str:
    """What to say of a run that the disk refuses."""
    return (
        f"{place} cannot be written ({why}); what was saved before is kept. Free some space or mend the disk, "
        "then go on with resume (--resume)"
    )


def settled(folder: str | Path) -> Path:
    """`folder`, brought back where a process was killed between the two renamings that replace it."""
    folder = Path(folder)
    if not folder.exists() and _old(folder).exists():
        _old(folder).rename(folder)
    return folder


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk, so that a power cut after the renaming finds it whole."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no such thing for a folder
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""Safe writing: an interruption leaves the old or the new, whole, and a run folder has one owner."""

import csv
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sbirlib.errors import InputError, check_utf8, first_line

LOCK, OWNER = ".run.lock", ".run.owner"


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


class Owner:
    """The right to write a run folder, from its making until `release`, or until this process ends.

    The folder is made if it is not there. Raises RunError that names the owner if there is one, or says why
    the folder cannot be written; InputError for a name that is not UTF-8.
    """

    def __init__(self, folder: Path) -> None:
        check_utf8(folder)
        self.folder, self._made = folder, [place for place in (folder, *folder.parents) if not place.exists()]
        self._lock = FileLock(folder / LOCK, thread_local=False)
        self._name, self._locked_before = folder / OWNER, (folder / LOCK).exists()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The system takes the lock back when this process ends, however it does.
            self._lock.acquire(blocking=False)
            since = datetime.now().astimezone().isoformat(" ", "seconds")
            write_text(self._name, f"process {os.getpid()} on {platform.node()}, since {since}")
            self._place = folder.stat()
        except Timeout:
            holder = "another process"  # which has just begun
            with suppress(OSError):
                holder = self._name.read_text(encoding="utf-8")
            ways = "stop that or wait for its end, or choose another folder"
            raise RunError(f"{folder} is being written by {holder}; {ways}") from None
        except OSError as error:
            self.release(begun=False)
            raise RunError(f"{folder} cannot be written ({error}); choose a folder that can") from error

    def check(self) -> None:
        """Raises RunError if the folder is no longer where it was."""
        if not self.folder.is_dir() or not os.path.samestat(self.folder.stat(), self._place):
            gone = f"{self.folder} was moved, renamed or removed while it was written. The run ends here"
            raise RunError(f"{gone}; where the folder is now, --resume goes on from its newest checkpoint")

    def release(self, *, begun: bool = True) -> None:
        """Gives the folder back; of a run that has not `begun`, nothing stays that was made for it."""
        if not self._lock.is_locked:
            return
        self._name.unlink(missing_ok=True)
        if not (begun or self._locked_before):
            with suppress(OSError):  # where something else has come into it, it stays
                (self.folder / LOCK).unlink()
                for place in self._made:
                    place.rmdir()
        self._lock.release()

"""List and read downloaded archives and folders; nothing is unpacked, executed or followed."""

import re
import stat
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from sbirlib.data.images import Fault, list_visible
from sbirlib.errors import InputError

# How archives are called; of these a .zip is read.
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar", ".7z")
MAX_FILES = 200_000
MAX_FILE = 64 * 2**20  # bytes of one file
MAX_TOTAL = 32 * 2**30  # bytes of one archive, unpacked
# Unpacked to packed. Pictures hardly shrink; white bitmaps shrink a hundredfold; zeros reach 1030.
MAX_RATIO = 200
SMALL = 64 * 2**20  # bytes up to which an archive may shrink as much as it likes
_IF_TRUSTED = "Nothing was unpacked; if you trust it, unpack it yourself and import the folder"


class ArchiveError(InputError):
    """An archive that cannot be used; the message names it and says what to do."""


class Entry(NamedTuple):
    """One file: its path inside, relative and without `..`, its size in bytes, and where it is, in words.

    Below a folder, an archive's name is among the parents: `trainA.zip/00001_01.png`.
    """

    path: PurePosixPath
    size: int
    where: str
    fetch: Callable[[], bytes]

    def read(self) -> bytes:
        """Its bytes. Raises ArchiveError where the file is damaged or larger than MAX_FILE."""
        if self.size > MAX_FILE:
            limit = f"{MAX_FILE // 2**20} MiB"
            raise ArchiveError(f"{self.where}: is larger than {limit}; no picture here needs to be")
        return _safely(self.where, self.fetch)


class Listing(NamedTuple):
    """All files, in the order in which they are best read, and what is left out, such as links."""

    entries: list[Entry]
    faults: list[Fault]


@contextmanager
def open_archive(path: str | Path) -> Iterator[Listing]:
    """Lists a .zip, or a folder in which such archives may lie.

    A file is told by its content, not its name. Raises ArchiveError for anything else, and for an archive
    that is damaged or encrypted, that holds links, devices, absolute paths or `..`, more than MAX_FILES files
    or MAX_TOTAL bytes, or that grows more than MAX_RATIO times. Entries can be read until the context ends.
    """
    path = Path(path)
    with ExitStack() as stack:
        if path.is_dir():
            yield _list_folder(path, stack)
        elif path.is_file():
            yield Listing(_list_file(path, stack), [])
        else:
            raise ArchiveError(f"{path}: no such file or folder")


def _list_folder(root: Path, stack: ExitStack) -> Listing:
    entries, faults, folders = [], [], [root]
    while folders:
        for path in list_visible(folders.pop()):
            inside = _normal(path.relative_to(root).as_posix())
            if path.is_symlink():
                faults.append(Fault(path, "not followed", "is a link; import the folder that it leads to"))
            elif path.is_dir():
                folders.append(path)
            elif not path.is_file():
                faults.append(Fault(path, "not read", "is a pipe or device, not a file"))
            elif path.name.lower().endswith(SUFFIXES):
                try:
                    entries += [entry._replace(path=inside / entry.path) for entry in _list_file(path, stack)]
                except ArchiveError as error:
                    # It may have nothing to do with the data set.
                    faults.append(Fault(path, "not read", str(error).removeprefix(f"{path}: ")))
            else:
                entries.append(Entry(inside, path.stat().st_size, f"{root}, {inside}", path.read_bytes))
            if len(entries) > MAX_FILES:
                raise _too_many(root)
    return Listing(entries, faults)


def _list_file(path: Path, stack: ExitStack) -> list[Entry]:
    with path.open("rb") as file:
        start = file.read(2)
    if _safely(path, lambda: zipfile.is_zipfile(path)):
        return _safely(path, lambda: _list_members(path, stack.enter_context(zipfile.ZipFile(path))))
    if start[:1] == b"\x80":  # such as ChairV2_Coordinate
        why = "opening one can run any program, so it was not opened"
        reason = f"is a Python pickle; {why}. Import the archive or folder of the pictures instead"
    elif not start:
        reason = "is empty (0 bytes); download it again"
    elif start[:2] == b"PK":
        reason = "is damaged or incomplete; download it again"
    else:
        reason = "is not a .zip archive; unpack it yourself and import the folder"
    raise ArchiveError(f"{path}: {reason}")


def _list_members(path: Path, archive: zipfile.ZipFile) -> list[Entry]:
    """The files of an archive, if all that its list states is harmless."""
    entries, total, packed = [], 0, path.stat().st_size
    most = min(MAX_TOTAL, max(SMALL, MAX_RATIO * packed))
    for count, info in enumerate(archive.infolist(), 1):
        if info.flag_bits & 1:
            raise ArchiveError(f"{path}: is encrypted; unpack it yourself and import the folder")
        slashes = info.filename.replace("\\", "/")  # as some programs on Windows write it
        inside = _normal(slashes)
        if slashes.startswith("/") or ".." in inside.parts or re.match("[A-Za-z]:", slashes):
            reason = f"holds {slashes}, a path that leads out of it, as no honest archive does"
            raise ArchiveError(f"{path}: {reason}. Nothing was unpacked; download it again from its source")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            which = f"{info.filename}, which is a link or device, not a file"
            raise ArchiveError(f"{path}: holds {which}. {_IF_TRUSTED}")
        total += info.file_size
        if count > MAX_FILES:
            raise _too_many(path)
        if total > most:
            reason = f"unpacks to more than {most / 2**20:.0f} MiB from {packed / 2**20:.3f} MiB"
            raise ArchiveError(f"{path}: {reason}, as a decompression bomb does. {_IF_TRUSTED}")
        if not slashes.endswith("/"):
            fetch = partial(archive.read, info)
            entries.append(Entry(inside, info.file_size, f"{path}, {inside}", fetch))
    return entries


def _safely(where: object, work: Callable[[], Any]) -> Any:
    try:
        return work()
    except ArchiveError:
        raise  # with its reason already
    except Exception as error:  # readers of archives raise almost anything over a damaged one
        raise ArchiveError(f"{where}: is damaged or incomplete ({error}); download it again") from None


def _normal(name: str) -> PurePosixPath:
    # macOS writes an accent as a character of its own, and so the same name differently.
    return PurePosixPath(unicodedata.normalize("NFC", name))


def _too_many(path: Path) -> ArchiveError:
    return ArchiveError(f"{path}: holds more than {MAX_FILES} files; import the folder of the data set alone")

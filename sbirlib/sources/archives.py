"""List and read archives and folders of strangers; nothing is unpacked, executed or followed."""

from __future__ import annotations

import gzip
import re
import stat
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from sbirlib.data.images import Fault
from sbirlib.errors import InputError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_FILES = 200_000
MAX_FILE = 64 * 2**20  # bytes of one file
MAX_TOTAL = 32 * 2**30  # bytes of one archive, unpacked
# Unpacked to packed. Pictures hardly shrink; white bitmaps shrink a hundredfold; zeros reach 1030.
MAX_RATIO = 200
SMALL = 64 * 2**20  # bytes up to which an archive may shrink as it likes


class ArchiveError(InputError):
    """An archive that cannot be used; the message names it and says what to do."""


class Entry(NamedTuple):
    """One file: its path inside, its size in bytes, and how to get its bytes.

    Reading raises ArchiveError where the file is damaged or larger than MAX_FILE. The path is relative
    and without `..`. What lies in an archive inside a folder has the archive's name among its parents:
    `trainA.zip/00001_01.png`.
    """

    path: PurePosixPath
    size: int
    read: Callable[[], bytes]


class Listing(NamedTuple):
    """All files, in the order in which they are best read, and what is not followed: links and devices."""

    entries: list[Entry]
    faults: list[Fault]


@contextmanager
def open_archive(path: str | Path, *, without: Path | None = None) -> Iterator[Listing]:
    """Lists a .zip, .tar or .tar.gz, or a folder in which such archives may lie.

    The file's content decides what it is, not its name. `without` is a folder below that is left out.
    Raises ArchiveError for anything else, and for an archive that is damaged or encrypted, that holds
    links, devices, absolute paths or `..`, more than MAX_FILES files, more than MAX_TOTAL bytes, or
    that grows more than MAX_RATIO times. Entries can be read until the context ends.
    """
    path = Path(path)
    with ExitStack() as stack:
        if path.is_dir():
            yield _list_folder(path, without, stack)
        elif path.is_file():
            yield Listing(_list_file(path, stack), [])
        else:
            raise ArchiveError(f"{path}: no such file or folder")


def _list_file(path: Path, stack: ExitStack) -> list[Entry]:
    with path.open("rb") as file:
        start = file.read(262)
    if start[:2] == b"\x1f\x8b" or start[257:] == b"ustar":
        return _safely(path, lambda: _list_tar(path, stack))
    if _safely(path, lambda: zipfile.is_zipfile(path)):
        return _safely(path, lambda: _list_zip(path, stack))
    if start[:1] == b"\x80" or path.name.endswith(("_Coordinate", ".pkl", ".pickle")):
        raise ArchiveError(
            f"{path}: is a Python pickle, which can run any program when it is opened; it was not. "
            "Name the archive or folder of the pictures instead"
        )
    raise ArchiveError(
        f"{path}: is empty (0 bytes); get it again"
        if not start
        else f"{path}: is damaged or not complete; get it again"
        if start[:2] == b"PK"
        else f"{path}: is no .zip, .tar or .tar.gz archive; unpack it yourself and name the folder"
    )


def _list_folder(root: Path, without: Path | None, stack: ExitStack) -> Listing:
    entries, faults, folders = [], [], [root]
    while folders:
        for path in sorted(folders.pop().iterdir()):
            inside = _normal(path.relative_to(root).as_posix())
            if path.name.startswith("."):
                continue
            if path.is_symlink():
                faults.append(Fault(path, "not followed", "it is a link; name the folder that it leads to"))
            elif path.is_dir():
                if not (without and without.exists() and path.samefile(without)):
                    folders.append(path)
            elif not path.is_file():
                faults.append(Fault(path, "not read", "it is a pipe or device, not a file"))
            elif path.name.lower().endswith(SUFFIXES):
                try:
                    entries += [entry._replace(path=inside / entry.path) for entry in _list_file(path, stack)]
                except ArchiveError as error:
                    # It may have nothing to do with the data set.
                    faults.append(Fault(path, "not read", str(error).removeprefix(f"{path}: ")))
            else:
                entries.append(_entry(root, inside, path.stat().st_size, path.read_bytes))
            if len(entries) > MAX_FILES:
                raise ArchiveError(
                    f"{root}: holds more than {MAX_FILES} files; name the folder of the data set alone"
                )
    return Listing(entries, faults)


def _list_zip(path: Path, stack: ExitStack) -> list[Entry]:
    archive, budget, entries = stack.enter_context(zipfile.ZipFile(path)), _Budget(path), []
    for info in archive.infolist():
        inside, kind = _checked(path, info.filename), stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unwanted(path, info.filename)
        if info.flag_bits & 1:
            raise ArchiveError(f"{path}: is encrypted; unpack it yourself and name the folder")
        budget.take(info.file_size)
        if not info.filename.endswith(("/", "\\")):
            entries.append(_entry(path, inside, info.file_size, partial(archive.read, info)))
    return entries


def _list_tar(path: Path, stack: ExitStack) -> list[Entry]:
    budget, file = _Budget(path), stack.enter_context(path.open("rb"))
    if file.read(2) == b"\x1f\x8b":
        file = stack.enter_context(gzip.GzipFile(path))
    file.seek(0)
    archive = stack.enter_context(tarfile.TarFile(fileobj=_Limited(file, path, budget.most)))
    entries = []
    for member in archive:
        inside = _checked(path, member.name)
        if member.size < 0:
            raise ArchiveError(f"{path}: is damaged ({member.name} has a negative length); get it again")
        if member.issparse() or not (member.isfile() or member.isdir()):
            raise _unwanted(path, member.name)
        budget.take(member.size)
        if member.isfile():
            entries.append(_entry(path, inside, member.size, partial(_read_member, archive, member)))
    return entries


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return archive.extractfile(member).read()


def _entry(archive: Path, inside: PurePosixPath, size: int, read: Callable[[], bytes]) -> Entry:
    where = f"{archive}, {inside}"

    def read_safely() -> bytes:
        if size > MAX_FILE:
            raise ArchiveError(
                f"{where}: is larger than {MAX_FILE // 2**20} MiB, which no picture here needs to be"
            )
        return _safely(where, read)

    return Entry(inside, size, read_safely)


def _safely(where: object, work: Callable):
    try:
        return work()
    except ArchiveError:
        raise  # with its reason already
    except Exception as error:  # what reads an archive raises almost anything over a damaged one
        raise ArchiveError(f"{where}: is damaged or not complete ({error}); get it again") from None


def _checked(archive: Path, name: str) -> PurePosixPath:
    """The path of a member, if it stays inside."""
    name = name.replace("\\", "/")  # as some programs on Windows write it
    path = _normal(name)
    if name.startswith("/") or ".." in path.parts or re.match("[A-Za-z]:", name):
        raise ArchiveError(
            f"{archive}: holds {name}, a path that leads out of the archive; no honest archive "
            "has one. Nothing was unpacked; get it again from its source"
        )
    return path


def _normal(name: str) -> PurePosixPath:
    # macOS writes an accent as a character of its own, and so the same name differently.
    return PurePosixPath(unicodedata.normalize("NFC", name))


def _unwanted(archive: Path, name: str) -> ArchiveError:
    return ArchiveError(
        f"{archive}: holds {name}, which is a link or device, not a plain file. Nothing was "
        "unpacked; if you trust it, unpack it yourself and name the folder"
    )


class _Budget:
    """Counts files and bytes of an archive as its own list states them."""

    def __init__(self, path: Path) -> None:
        self.path, self.files, self.total = path, 0, 0
        self.most = min(MAX_TOTAL, max(SMALL, MAX_RATIO * path.stat().st_size))

    def take(self, size: int) -> None:
        """Raises ArchiveError once there is too much."""
        self.files, self.total = self.files + 1, self.total + size
        if self.files > MAX_FILES:
            raise ArchiveError(
                f"{self.path}: holds more than {MAX_FILES} files; unpack what is wanted yourself"
            )
        if self.total > self.most:
            raise _bomb(self.path, self.most)


def _bomb(path: Path, most: int) -> ArchiveError:
    return ArchiveError(
        f"{path}: unpacks to more than {most / 2**20:.0f} MiB from {path.stat().st_size / 2**20:.3f} "
        "MiB, as a decompression bomb does. Nothing was unpacked; if you trust it, unpack it yourself "
        "and name the folder"
    )


class _Limited:
    """A file for tarfile that ends what a bomb would go on with: it never reads much at once, nor far."""

    def __init__(self, file: IO[bytes], path: Path, most: int) -> None:
        self.file, self.path, self.most = file, path, most

    def read(self, size: int) -> bytes:
        """Raises ArchiveError for a size that no header and no picture has."""
        # tarfile reads long names at once, however long they claim to be, and backwards for a negative length.
        if not 0 <= size <= MAX_FILE or self.file.tell() + size > self.most + MAX_FILE:
            raise _bomb(self.path, self.most)
        return self.file.read(size)

    def seek(self, position: int) -> int:
        """Raises ArchiveError for a place behind everything that may be unpacked."""
        if position > self.most + MAX_FILE:
            raise _bomb(self.path, self.most)
        return self.file.seek(position)

    def tell(self) -> int:
        """Where the file is, in unpacked bytes."""
        return self.file.tell()

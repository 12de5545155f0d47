"""A run folder has one owner: the process that writes it."""

from __future__ import annotations

import os
import platform
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from sbirlib.errors import check_utf8
from sbirlib.runs.atomic import RunError, write_text


class Owner:
    """The right to write a run folder, from its making until `release`, or until this process ends.

    The folder is made if it is not there. Raises RunError that names the owner if there is one, or says why
    the folder cannot be written; InputError for a name that is not UTF-8.
    """

    def __init__(self, folder: Path) -> None:
        check_utf8(folder)
        self.folder, self._made = folder, [place for place in (folder, *folder.parents) if not place.exists()]
        self._lock = FileLock(folder / ".lock", thread_local=False)
        self._name = folder / ".owner"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The system takes the lock back when this process ends, however it does.
            self._lock.acquire(blocking=False)
            since = datetime.now().astimezone().isoformat(" ", "seconds")
            write_text(self._name, f"process {os.getpid()} on {platform.node()}, since {since}")
        except Timeout:
            raise RunError(
                f"{folder} is being written by {self._holder()}; stop that or wait for its end, or choose "
                "another folder"
            ) from None
        except OSError as error:
            self.release()
            raise RunError(f"{folder} cannot be written ({error}); choose a folder that can") from error

    def _holder(self) -> str:
        try:
            return self._name.read_text(encoding="utf-8")
        except OSError:
            return "another process"  # which has just begun

    def release(self) -> None:
        """Gives the folder back; one that was made for nothing goes again."""
        if not self._lock.is_locked:
            return
        self._name.unlink(missing_ok=True)
        lock = Path(self._lock.lock_file)
        if self._made and [*self.folder.iterdir()] == [lock]:
            lock.unlink()
            for place in self._made:
                place.rmdir()
        self._lock.release()

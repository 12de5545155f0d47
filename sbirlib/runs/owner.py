"""A run folder has one owner: the process that writes it."""

import os
import platform
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from sbirlib.errors import check_utf8
from sbirlib.runs.atomic import RunError, write_text

LOCK, OWNER = ".run.lock", ".run.owner"


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
            ways = "stop that or wait for its end, or choose another folder"
            raise RunError(f"{folder} is being written by {self._holder()}; {ways}") from None
        except OSError as error:
            self.release(begun=False)
            raise RunError(f"{folder} cannot be written ({error}); choose a folder that can") from error

    def _holder(self) -> str:
        try:
            return self._name.read_text(encoding="utf-8")
        except OSError:
            return "another process"  # which has just begun

    def check(self) -> None:
        """Raises RunError if the folder is no longer where it was."""
        if not self.folder.is_dir() or not os.path.samestat(self.folder.stat(), self._place):
            gone = f"{self.folder} was moved, renamed or removed while it was written. The run ends here"
            way = "where the folder is now, --resume goes on from its newest checkpoint"
            raise RunError(f"{gone}; {way}")

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

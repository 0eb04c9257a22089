"""Who has the chats open: file locks between the windows of Samovar.

    the data folder   held alone while a file is opened, migrated or repaired: one process at a time
    chats.lock        held together by all that have the file open, alone by the one that repairs it

Locks are `flock`s: they end with the process that holds them. Some network file systems have none; there
everybody gets what they ask for.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# Where SQLite locks a file that is open in WAL mode (its `SHARED_FIRST` and `SHARED_SIZE`).
_SQLITE_SHARED_POS: Final = 0x40000002
_SQLITE_SHARED_BYTES: Final = 510


class FileLock:
    """An open lock file. `hold_shared` and `try_hold_alone` change from one to the other."""

    def __init__(self, path: Path) -> None:
        """Where the file cannot be made, there is no lock and nothing to repair either."""
        self._fd: int | None = None
        for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):
            with contextlib.suppress(OSError):
                self._fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
                return

    def hold_shared(self) -> None:
        self._lock(fcntl.LOCK_SH | fcntl.LOCK_NB)

    def try_hold_alone(self) -> bool:
        """False if another one holds it; then this one holds nothing."""
        return self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB)

    def close(self) -> None:
        """Let go of it; a second call does nothing."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _lock(self, how: int) -> bool:
        if self._fd is None:
            return True
        try:
            fcntl.flock(self._fd, how)
        except OSError as error:
            return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        return True


@contextlib.contextmanager
def folder_locked(folder: Path) -> Iterator[int]:
    """Hold the folder alone, after waiting for whoever does; yields its descriptor. May raise OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def is_open_in_sqlite(path: Path) -> bool:
    """Whether another process has the file open in WAL mode, also one that knows no `chats.lock`.

    To be asked only where this process has not: closing the file drops the process's own SQLite locks.
    """
    try:
        with path.open("r+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _SQLITE_SHARED_BYTES, _SQLITE_SHARED_POS)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES) and os.access(path, os.W_OK)
    return False


def sync_folder(folder: Path) -> None:
    """Put what was made, renamed and removed in a folder on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

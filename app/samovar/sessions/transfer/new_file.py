"""Writing a file so that it is there as a whole or not at all, and never in the place of another one."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from samovar.core.errors import SamovarError


def written(path: Path, pieces: Iterable[bytes], *, overwrite: bool) -> int:
    """Write a file that only the user may read; returns its bytes, which are on disk by then.

    Raises OSError; FileExistsError if it is there, unless `overwrite`.
    """
    if overwrite:
        path = Path(os.path.realpath(path))  # a link stays one
    elif os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    descriptor, temporary = tempfile.mkstemp(prefix=".samovar-", suffix=".part", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(descriptor)
            num_bytes = file.tell()
        _move(temporary, path, overwrite=overwrite)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync_folder(path.parent)
    return num_bytes


def write_device(path: Path, pieces: Iterable[bytes]) -> int:
    """Write to a pipe or a device; returns the bytes. Raises OSError."""
    with open(path, "wb") as file:
        return sum(map(file.write, pieces))


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's errors about `path` into sentences for the user."""
    try:
        yield
    except OSError as error:
        raise SamovarError(_sentence(error, path)) from error


def _move(temporary: str, path: Path, *, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.rename(temporary, path)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # a folder that may be written and not read
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sentence(error: OSError, path: Path) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return f"The disk is full: {path} was not written. Make room, or choose another folder."
        case errno.EEXIST:
            return f"{path} is there already. Choose another name (the command line has --overwrite)."
        case errno.ENOENT if not path.parent.is_dir():
            return f"There is no folder {path.parent}. Make it, or choose another one."
        case errno.ENOTDIR:
            return (
                f"{path} cannot be written, since a file is where a folder should be. Choose another place."
            )
        case errno.ENAMETOOLONG:
            return f"{path} is too long for a name. Choose a shorter one."
    reason = (error.strerror or str(error)).lower()
    return f"Cannot write {path} ({reason}). Choose another place."

"""Copies of the chats in `<data folder>/backups/`: one a day, and one before every migration.

    chats-YYYYMMDD.db                the daily ones; the newest 7 are kept
    chats-v<old>-YYYYMMDD-HHMMSS.db  from before a migration; all are kept
    *.part                           one that is being made; what a killed process left is removed

A copy is complete, checked and on disk before it gets its name. Runs in any thread, on connections of its
own; never changes the store.
"""

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from samovar.core.errors import SamovarError
from samovar.paths import disk_error
from samovar.sessions import integrity
from samovar.sessions.connection import COMPANIONS, connect, explained, has_content, stopped_when
from samovar.sessions.locks import FileLock, sync_folder

NUM_DAILY: Final = 7

_STEP_PAGES: Final = 256
_PAUSE_S: Final = 0.002  # between steps: the disk is the writers', too
_DAILY: Final = re.compile(r"chats-\d{8}\.db")
_ANY: Final = re.compile(r"chats-(?:v\d+-)?(\d{8})(?:-\d{6})?\.db")


class _Stopped(Exception):
    """The program ends; the copy is not finished."""


def folder_of(path: Path) -> Path:
    """Where the backups of this file are."""
    return path.parent / "backups"


def newest_first(path: Path) -> list[Path]:
    """All backups of this file, of both kinds."""
    found = [(match[1], file) for file in _files(path) if (match := _ANY.fullmatch(file.name))]
    with contextlib.suppress(OSError):
        return [
            file for _, _, file in sorted(((day, f.stat().st_mtime, f) for day, f in found), reverse=True)
        ]
    return []


def daily(path: Path, now: float, should_stop: Callable[[], bool] = lambda: False) -> Path | None:
    """Make today's backup if there is none and there are chats; `now` is in seconds since the epoch.

    None if there is nothing to do, another process is at it, or `should_stop` said so. SamovarError if it
    cannot be made; a damaged store is marked for repair and pushes no good backup out.
    """
    folder = folder_of(path)
    target = folder / time.strftime("chats-%Y%m%d.db", time.localtime(now))
    if target.exists() or not path.exists():
        return None
    with _explained(path, folder):
        with contextlib.closing(connect(path, mode="ro")) as connection:
            if not has_content(connection):
                return None
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            if not lock.try_hold_alone() or target.exists():
                return None
            for left in folder.glob("chats-[0-9]*.db.part*"):
                left.unlink(missing_ok=True)
            try:
                _copy(path, target, should_stop)
            except _Stopped:
                return None
            daily_ones = sorted(file for file in _files(path) if _DAILY.fullmatch(file.name))
            for old in daily_ones[:-NUM_DAILY]:
                old.unlink(missing_ok=True)
        finally:
            lock.close()
    return target


def before_migration(path: Path, version: int, now: float) -> Path:
    """Copy the file as its last transaction left it; the caller holds the data folder and the write lock.

    Raises OSError or sqlite3.Error if that cannot be done.
    """
    folder = folder_of(path)
    folder.mkdir(mode=0o700, exist_ok=True)
    for left in folder.glob("chats-v*.db.part*"):
        left.unlink(missing_ok=True)
    while (
        target := folder / time.strftime(f"chats-v{version}-%Y%m%d-%H%M%S.db", time.localtime(now))
    ).exists():
        now += 1.0  # a file was put back and is migrated again at once
    _copy(path, target, lambda: False)
    return target


def _copy(path: Path, target: Path, should_stop: Callable[[], bool]) -> None:
    """Copy one state of the file, check it, put it on disk and only then give it its name."""
    part = target.with_name(f"{target.name}.part")

    def pause(_status: int, num_left: int, _num_pages: int) -> None:
        if should_stop():
            raise _Stopped
        if num_left:
            time.sleep(_PAUSE_S)

    try:
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        with (
            contextlib.closing(connect(path, mode="ro")) as source,
            contextlib.closing(connect(part)) as copy,
        ):
            copy.execute("PRAGMA synchronous = OFF")  # it is synced as a whole
            copy.execute("PRAGMA journal_mode = OFF")
            # One state for all steps: a copy would start anew whenever somebody writes.
            source.execute("BEGIN")
            source.execute("SELECT 1 FROM sqlite_master").fetchone()
            source.backup(copy, pages=_STEP_PAGES, progress=pause)
            source.execute("COMMIT")
            copy.execute("PRAGMA journal_mode = DELETE")  # readable where no log can be made beside it
            try:
                with stopped_when(copy, should_stop):
                    damage = integrity.damage_in(copy)
            except sqlite3.OperationalError as error:
                if should_stop():
                    raise _Stopped from error
                raise
        if damage:
            integrity.mark(path, damage)
            raise integrity.DamagedFile(damage)
        fd = os.open(part, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        part.rename(target)
    except BaseException:
        for companion in ("", *COMPANIONS):
            with contextlib.suppress(OSError):
                part.with_name(part.name + companion).unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def _files(path: Path) -> list[Path]:
    try:
        return [file for file in folder_of(path).iterdir() if file.is_file()]
    except OSError:
        return []


@contextlib.contextmanager
def _explained(path: Path, folder: Path) -> Iterator[None]:
    try:
        with explained(path):
            yield
    except OSError as error:
        raise disk_error(error, folder) from error
    except SamovarError as error:
        raise SamovarError(f"The chats could not be backed up. {error}") from error

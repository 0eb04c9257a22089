"""The file of chats as the store uses it: opened safely, brought to the current schema, its errors turned
into sentences.

WAL mode with `synchronous = FULL`: what a transaction wrote is on disk when it ends. What stands in the way
of opening it is met here: an older format is migrated after a backup, damage is repaired, and what cannot be
written is opened for reading.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from samovar.core.errors import SamovarError
from samovar.paths import disk_error
from samovar.sessions import backup, integrity, read_only, repair, schema
from samovar.sessions.connection import (
    DamagedFile,
    Interrupted,
    NewerFile,
    Trouble,
    connect,
    damaged,
    explained,
    has_content,
    has_our_columns,
    migrate,
    read_leniently,
    register,
    trouble_of,
    version_of,
)
from samovar.sessions.image import HEADER_BYTES
from samovar.sessions.locks import FileLock, folder_locked, is_open_in_sqlite
from samovar.sessions.repair import RepairReport

__all__ = ["Database", "Interrupted", "open_database", "open_for_reading"]


class Database:
    """A connection. One thread at a time uses it; other processes may have the same file open.

    `read_only` says why nothing can be stored, empty if something can; it may become empty when there is
    room again. `repaired` says what was saved if opening found damage. `needs_check` tells that the file was
    too big to be checked on opening: `integrity.check_integrity` is for a thread beside.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        read_only: str = "",
        repaired: RepairReport | None = None,
        lock: FileLock | None = None,
        reconnect: Callable[[], sqlite3.Connection] | None = None,
    ) -> None:
        """`open_database` is the usual way in. `connection` is in autocommit mode.

        `reconnect` gives a connection that can write, or raises SamovarError if there is still none.
        """
        self.path = path
        self.read_only = read_only
        self.repaired = repaired
        self.needs_check = not read_only and not integrity.is_small(path)
        self._connection = connection
        self._lock = lock
        self._reconnect = reconnect

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with explained(self.path):
            self._connection.close()
        if self._lock is not None:
            self._lock.close()

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows that the query finds."""
        with self._explained():
            num_changes = self._connection.total_changes
            try:
                return self._connection.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                # No check finds a byte that was flipped within a text. The rest of the chat can be read.
                if "UTF-8" not in str(error) or self._connection.total_changes != num_changes:
                    raise
            read_leniently(self._connection)
            return self._connection.execute(sql, values).fetchall()

    def change(self, sql: str, *values: object) -> int:
        """The number of rows that the statement changed."""
        self._must_be_writable()
        with self._explained():
            return self._connection.execute(sql, values).rowcount

    def insert(self, sql: str, *values: object) -> int:
        """The id of the row that the statement inserted."""
        self._must_be_writable()
        with self._explained():
            row_id = self._connection.execute(sql, values).lastrowid
        assert row_id is not None
        return row_id

    def interrupt(self) -> None:
        """End what another thread runs on this connection, if anything, with `Interrupted`."""
        self._connection.interrupt()

    def damaged(self, reason: str) -> SamovarError:
        """The error for a row that makes no sense, after having the file repaired at the next start."""
        if not self.read_only:
            integrity.mark(self.path, reason)
        return damaged(self.path, reason)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, on disk when it ends. Holds the write lock from the start, so reads are current.

        Within another one it is a part of that: what fails in it must not be caught in there.
        """
        self._must_be_writable()
        with self._explained():
            if self._connection.in_transaction:
                yield
                return
            with _transaction(self._connection):
                yield

    def _must_be_writable(self) -> None:
        if not self.read_only:
            return
        if self._reconnect is None:
            raise SamovarError(self.read_only)
        try:
            connection = self._reconnect()
        except SamovarError as error:
            raise SamovarError(self.read_only) from error
        self._connection.close()
        self._connection = connection
        self.read_only = ""

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            with explained(self.path):
                yield
        except SamovarError as error:
            cause = error.__cause__
            if isinstance(cause, sqlite3.Error):
                match trouble_of(cause):
                    case Trouble.DAMAGE if not self.read_only:
                        integrity.mark(self.path, str(cause))
                    case Trouble.READ_ONLY if self.read_only:
                        raise SamovarError(self.read_only) from cause
            raise


def open_database(path: Path, clock: Callable[[], float] = time.time) -> Database:
    """The database in this file, made (0600) if it is new and brought up to date if it is older.

    A damaged one is repaired (`Database.repaired`), one that cannot be written is opened for reading
    (`Database.read_only`). `clock` gives seconds since the epoch. SamovarError if neither can be done.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        return _without_file(path, error)
    if path.is_dir():
        raise SamovarError(f"Cannot write {path} (it is a folder). Move it away, and start Samovar again.")
    lock = None
    try:
        # Two processes that switch a new file to WAL at once would fail with "locked".
        with folder_locked(path.parent) as folder:
            lock = FileLock(path.with_suffix(".lock"))
            database = _open(path, lock, clock)
            with contextlib.suppress(OSError):  # a folder that cannot be written needs it not
                os.fsync(folder)
    except BaseException as error:
        if lock is not None:
            lock.close()
        if isinstance(error, OSError):
            raise disk_error(error, path) from error
        raise
    return database


def open_for_reading(path: Path) -> Database:
    """Another connection, which reads only, to a file that `open_database` has opened, in whatever state."""
    with explained(path):
        if not path.exists():
            return Database(read_only.open_empty(), path)
        try:
            connection = read_only.open_current(path)
        except NewerFile as error:
            connection = read_only.open_newer(path, error.version)
        except OSError as error:
            raise disk_error(error, path) from error
    return Database(connection, path)


def _open(path: Path, lock: FileLock, clock: Callable[[], float]) -> Database:
    """Open the file whatever its state; the folder is held."""
    if repair.is_unfinished(path):
        repaired = _repair(path, lock, lambda: repair.finish(path))
    else:
        repaired = None
    lock.hold_shared()
    with explained(path):
        try:
            connection = _connect(path, clock)
        except NewerFile as error:
            return _newer(path, lock, error.version)
        except (sqlite3.Error, OSError) as error:
            trouble, reason = trouble_of(error), error
        else:
            return Database(connection, path, repaired=repaired, lock=lock)
        if trouble is Trouble.DAMAGE:
            try:
                repaired = _repair(path, lock, lambda: repair.repair(path, clock()))
                lock.hold_shared()
                return Database(_connect(path, clock), path, repaired=repaired, lock=lock)
            except (sqlite3.Error, OSError) as error:
                if trouble_of(error) not in (Trouble.READ_ONLY, Trouble.NO_ROOM):
                    raise
                reason = error
            lock.hold_shared()
        return _for_reading(path, lock, trouble, reason, clock)


def _connect(path: Path, clock: Callable[[], float]) -> sqlite3.Connection:
    """A connection that can read and write a sound, current file.

    Raises OSError or sqlite3.Error, sorted by `trouble_of`, or NewerFile. With a full disk it may come back
    all the same: reading goes on, and writing once there is room.
    """
    if path.exists():
        _look_at_outside(path)
    _make_private_file(path)
    connection = connect(path)
    try:
        _prepare(connection, path, clock)
    except sqlite3.Error as error:
        if trouble_of(error) is not Trouble.NO_ROOM or not _is_current(connection):
            connection.close()
            raise
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path, clock: Callable[[], float]) -> None:
    register(connection)
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    version = version_of(connection)  # the first read: raises if this is not a database
    if version > schema.SCHEMA_VERSION:
        raise NewerFile(version)
    if integrity.is_small(path) and (damage := integrity.damage_in(connection)):
        raise DamagedFile(damage)
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
    with _transaction(connection):
        version = version_of(connection)
        if version > schema.SCHEMA_VERSION:
            raise NewerFile(version)
        if 0 < version < schema.SCHEMA_VERSION and has_content(connection):
            backup.before_migration(path, version, clock())
        migrate(connection, version)
    if not has_our_columns(connection):
        raise DamagedFile("tables are missing")


def _is_current(connection: sqlite3.Connection) -> bool:
    """Whether everything can be read as it is."""
    try:
        return version_of(connection) == schema.SCHEMA_VERSION and has_our_columns(connection)
    except sqlite3.Error:
        return False


def _look_at_outside(path: Path) -> None:
    """Raise DamagedFile for what SQLite must not open: to it, a file without a header is a new one, and it
    deletes the log of such a file.
    """
    if integrity.is_marked(path):
        raise DamagedFile("an earlier check found damage")
    num_bytes = path.stat().st_size
    if num_bytes >= HEADER_BYTES:
        return
    log = path.with_name(f"{path.name}-wal")
    if num_bytes or (log.exists() and log.stat().st_size) or backup.newest_first(path):
        raise DamagedFile("it is cut off")


def _repair(path: Path, lock: FileLock, work: Callable[[], RepairReport | None]) -> RepairReport | None:
    """Do this while nobody else has the file open; SamovarError if somebody has."""
    if not lock.try_hold_alone() or is_open_in_sqlite(path):
        raise SamovarError(
            f"The chats in {path} are damaged and can be repaired, but another window of Samovar has them "
            "open. Close all others, and start Samovar again."
        )
    return work()


def _for_reading(
    path: Path, lock: FileLock, trouble: Trouble, reason: sqlite3.Error | OSError, clock: Callable[[], float]
) -> Database:
    """The file opened for reading; `reason` is raised again if that would not help."""
    if trouble in (Trouble.LOCKED, Trouble.OTHER):
        raise reason
    why = read_only.sentence(trouble, path, str(reason))
    repaired: RepairReport | None = None
    if trouble is Trouble.DAMAGE:
        connection, repaired = read_only.open_damaged(path)
    elif not path.exists() or not path.stat().st_size:
        connection = read_only.open_empty()
    else:
        try:
            connection, repaired = read_only.open_checked(path)
        except NewerFile as error:
            return _newer(path, lock, error.version)
    reconnect = None
    if trouble is Trouble.NO_ROOM:

        def reconnect() -> sqlite3.Connection:
            try:
                with folder_locked(path.parent), explained(path):
                    return _connect(path, clock)
            except NewerFile as error:
                raise SamovarError(read_only.newer_sentence(path, error.version, readable=True)) from error
            except OSError as error:
                raise disk_error(error, path) from error

    return Database(connection, path, read_only=why, repaired=repaired, lock=lock, reconnect=reconnect)


def _newer(path: Path, lock: FileLock, version: int) -> Database:
    connection = read_only.open_newer(path, version)
    why = read_only.newer_sentence(path, version, readable=True)
    return Database(connection, path, read_only=why, lock=lock)


def _without_file(path: Path, error: OSError) -> Database:
    """An empty store where no folder can be made; raises SamovarError if that has another reason."""
    trouble = trouble_of(error)
    if trouble not in (Trouble.READ_ONLY, Trouble.NO_ROOM):
        raise disk_error(error, path.parent) from error
    why = read_only.sentence(trouble, path.parent, error.strerror or str(error))
    return Database(read_only.open_empty(), path, read_only=why)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _make_private_file(path: Path) -> None:
    """Let only the user read the chats.

    An existing file is not opened here: closing it would drop the locks that SQLite holds on it.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        mode = path.stat().st_mode
        if mode & 0o077:
            with contextlib.suppress(OSError):
                path.chmod(mode & 0o700)

"""One SQLite file: opened safely, brought to the current schema, its errors turned into sentences.

WAL mode with `synchronous = FULL`: what a transaction wrote is on disk when it ends.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from samovar.core.errors import SamovarError
from samovar.paths import disk_error
from samovar.sessions import schema
from samovar.sessions.words import searchable

BUSY_TIMEOUT_S: Final = 10.0


class Interrupted(Exception):
    """The statement was ended by `Database.interrupt`."""


class Database:
    """A connection. One thread at a time uses it; other processes may have the same file open."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """`open_database` is the usual way in. `connection` is in autocommit mode."""
        self.path = path
        self._connection = connection

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        with explained(self.path):
            self._connection.close()

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """All rows that the query finds."""
        with explained(self.path):
            return self._connection.execute(sql, values).fetchall()

    def change(self, sql: str, *values: object) -> int:
        """The number of rows that the statement changed."""
        with explained(self.path):
            return self._connection.execute(sql, values).rowcount

    def insert(self, sql: str, *values: object) -> int:
        """The id of the row that the statement inserted."""
        with explained(self.path):
            row_id = self._connection.execute(sql, values).lastrowid
        assert row_id is not None
        return row_id

    def interrupt(self) -> None:
        """End what another thread runs on this connection, if anything, with `Interrupted`."""
        self._connection.interrupt()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, on disk when it ends. Holds the write lock from the start, so reads are current.

        Within another one it is a part of that: what fails in it must not be caught in there.
        """
        with explained(self.path):
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def prepare(self) -> None:
        """Set the connection up and bring the schema up to date; raises SamovarError for a newer one."""
        self.change("PRAGMA foreign_keys = ON")
        self._connection.create_function("searchable", 1, searchable, deterministic=True)
        version = self._version()  # the first read: raises if this is not a database
        if version <= schema.SCHEMA_VERSION:
            if self.rows("PRAGMA journal_mode")[0][0] != "wal":
                self.rows("PRAGMA journal_mode = WAL")
            self.change("PRAGMA synchronous = FULL")
            with self.transaction():
                version = self._version()
                for statements in schema.MIGRATIONS[version:]:
                    for statement in statements:
                        self.change(statement)
                # Written each time: finds out now whether the file can be written.
                if version <= schema.SCHEMA_VERSION:
                    self.change(f"PRAGMA user_version = {schema.SCHEMA_VERSION}")
        if version > schema.SCHEMA_VERSION:
            raise SamovarError(
                f"The chats in {self.path} were stored by a newer Samovar (format {version}, this one knows "
                f"{schema.SCHEMA_VERSION}). Update Samovar, or set SAMOVAR_HOME to another folder."
            )

    def _version(self) -> int:
        return int(self.rows("PRAGMA user_version")[0][0])


def open_database(path: Path) -> Database:
    """The database in this file, made (0600) if it is new and brought up to date if it is older."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise disk_error(error, path.parent) from error
    try:
        # Two processes that switch a new file to WAL at once would fail with "locked".
        with contextlib.suppress(OSError):  # some network file systems have no such lock
            fcntl.flock(folder, fcntl.LOCK_EX)
        _make_private_file(path)
        with explained(path):
            # Opened in one thread and closed in another is fine: sqlite3 is built serialized.
            connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        database = Database(connection, path)
        try:
            database.prepare()
        except BaseException:
            connection.close()
            raise
        os.fsync(folder)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        os.close(folder)
    return database


def open_for_reading(path: Path) -> Database:
    """A connection that reads only, to a file that `open_database` has brought up to date."""
    with explained(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
    return Database(connection, path)


def _make_private_file(path: Path) -> None:
    """Let only the user read the chats.

    An existing file is not opened here: closing it would drop the locks that SQLite holds on it.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        if path.stat().st_mode & 0o077:
            with contextlib.suppress(PermissionError):
                path.chmod(0o600)


def damaged(path: Path, reason: str) -> SamovarError:
    """The error for a file whose content makes no sense."""
    return SamovarError(
        f"The chats in {path} cannot be read ({reason}). "
        "Move the file away to start anew; keep it, most of it can usually be saved."
    )


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into a sentence for the user."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_INTERRUPT":
            raise Interrupted from error
        if name.startswith("SQLITE_FULL"):
            message = f"The disk is full: {path} cannot be written. Nothing is lost; make room and try again."
        elif name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
            message = (
                f"Cannot write {path} ({error}). Make it writable, or set SAMOVAR_HOME to a folder that is."
            )
        elif name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            message = f"Another program keeps {path} locked. End it (perhaps a backup) and try again."
        elif name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            raise damaged(path, str(error)) from error
        elif name.startswith("SQLITE_IOERR"):
            message = f"Reading or writing {path} failed ({error}). Check the disk, then try again."
        else:
            message = f"The store of chats in {path} failed ({error}). Close Samovar and start it again."
        raise SamovarError(message) from error

"""Chats that can be read but not stored: how they are opened, and the sentence that says why.

Tried in this order, so that nothing recent is missing and nothing is written:

    mode=ro       where SQLite can make or find what it keeps beside the file
    immutable=1   a file without a log, on media where nothing can be made
    in memory     a file with a log on such media; an older format, migrated; a damaged file
"""

import contextlib
import sqlite3
from pathlib import Path

from samovar.core.errors import SamovarError
from samovar.sessions import integrity, schema
from samovar.sessions.connection import (
    DamagedFile,
    NewerFile,
    Trouble,
    connect,
    has_our_columns,
    in_memory,
    migrate,
    trouble_of,
    version_of,
)
from samovar.sessions.image import read_image
from samovar.sessions.repair import RepairReport, repair_in_memory

_CAN_BE_READ = "Chats can be read, copied and exported, but nothing can be stored"


def sentence(trouble: Trouble, path: Path, detail: str) -> str:
    """Why nothing can be stored, and what to do; for trouble that leaves the chats readable."""
    match trouble:
        case Trouble.NO_ROOM:
            return f"The disk is full: {path} cannot be written. {_CAN_BE_READ}. Make room and try again."
        case Trouble.DAMAGE:
            return (
                f"The chats in {path} are damaged and cannot be repaired in place ({detail}). "
                f"{_CAN_BE_READ}. Make room and the folder writable, and start Samovar again."
            )
    return (
        f"Cannot write {path} ({detail}). {_CAN_BE_READ}. "
        "Make it writable, or set SAMOVAR_HOME to a folder that is, and start Samovar again."
    )


def newer_sentence(path: Path, version: int, *, readable: bool) -> str:
    """Why the chats of a newer Samovar are left as they are."""
    stored = (
        f"The chats in {path} were stored by a newer Samovar "
        f"(format {version}, this one knows {schema.SCHEMA_VERSION}). "
    )
    if readable:
        return f"{stored}{_CAN_BE_READ}. Update Samovar, or set SAMOVAR_HOME to another folder."
    return f"{stored}Update Samovar, or set SAMOVAR_HOME to another folder."


def open_newer(path: Path, version: int) -> sqlite3.Connection:
    """A connection to a file of a newer Samovar; SamovarError if it holds other columns than ours."""
    connection = _connected(path)
    if not has_our_columns(connection):
        connection.close()
        raise SamovarError(newer_sentence(path, version, readable=False))
    return connection


def open_checked(path: Path) -> tuple[sqlite3.Connection, RepairReport | None]:
    """What can be read, in the current format; NewerFile if a newer Samovar wrote it.

    A damaged file is repaired in memory. Raises OSError or sqlite3.Error if nothing can be read.
    """
    return _open(path, is_checked=integrity.is_small(path))


def open_current(path: Path) -> sqlite3.Connection:
    """The same, for a file that has been opened and checked a moment ago."""
    return _open(path, is_checked=False)[0]


def _open(path: Path, *, is_checked: bool) -> tuple[sqlite3.Connection, RepairReport | None]:
    try:
        connection = _connected(path)
        try:
            version = version_of(connection)
            if version > schema.SCHEMA_VERSION:
                raise NewerFile(version)
            if is_checked and (damage := integrity.damage_in(connection)):
                raise DamagedFile(damage)
            if version < schema.SCHEMA_VERSION:
                connection = _migrated(connection, version)
            if not has_our_columns(connection):
                raise DamagedFile("tables are missing")
        except BaseException:
            connection.close()
            raise
        return _frozen(connection), None
    except sqlite3.Error as error:
        if trouble_of(error) not in (Trouble.DAMAGE, Trouble.DISK):
            raise
    return open_damaged(path)


def open_damaged(path: Path) -> tuple[sqlite3.Connection, RepairReport]:
    """What can be read of a damaged file, or is in its backup."""
    repaired, report = repair_in_memory(path)
    return _frozen(repaired), report


def open_empty() -> sqlite3.Connection:
    """A store without chats, where none can be made."""
    connection = in_memory()
    migrate(connection, 0)
    return _frozen(connection)


def _connected(path: Path) -> sqlite3.Connection:
    """A connection that can read."""
    has_log = _has_log(path)
    for immutable in (False, True):
        if immutable and has_log:
            continue  # it would be left out
        try:
            return connect(path, mode="ro", immutable=immutable)
        except sqlite3.Error as error:
            if trouble_of(error) not in (Trouble.READ_ONLY, Trouble.NO_ROOM, Trouble.DISK):
                raise
    return in_memory(read_image(path))


def _has_log(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.with_name(f"{path.name}-wal").stat().st_size > 0
    return False


def _migrated(connection: sqlite3.Connection, version: int) -> sqlite3.Connection:
    """A copy in memory, brought to the current format; the original is closed."""
    copy = in_memory()
    with contextlib.closing(connection):
        connection.backup(copy)
    try:
        copy.execute("BEGIN")
        migrate(copy, version)
        copy.execute("COMMIT")
    except BaseException:
        copy.close()
        raise
    return copy


def _frozen(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("PRAGMA query_only = ON")
    return connection

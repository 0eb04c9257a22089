"""SQLite connections to the chats: how they are opened, brought to the current schema, and what fails.

What fails is sorted into `Trouble`, so that whoever opens a file can decide by kind. Knows no file but the
one it is given; `database.py`, `backup.py` and `repair.py` stand on it.
"""

import contextlib
import enum
import errno
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from samovar.core.errors import SamovarError
from samovar.sessions import schema
from samovar.sessions.words import searchable

BUSY_TIMEOUT_S: Final = 10.0

# A version beyond it is a flipped bit, not a newer Samovar.
MAX_VERSION: Final = 255

# What SQLite keeps beside a database file.
COMPANIONS: Final = ("-wal", "-shm", "-journal")

_STOP_EVERY_S: Final = 0.05


class Trouble(enum.Enum):
    """Why a file of chats cannot be used as it should be."""

    DAMAGE = "damage"
    READ_ONLY = "read-only"
    NO_ROOM = "no room"
    LOCKED = "locked"
    DISK = "disk"
    OTHER = "other"


class DamagedFile(sqlite3.DatabaseError):
    """The file holds what was never written into it. SQLite itself has not noticed."""


class Interrupted(Exception):
    """The statement was ended by `Database.interrupt`."""


class NewerFile(Exception):
    """The file was written by a newer Samovar; `version` is its schema's."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


_BY_NAME: Final = (
    (("SQLITE_NOTADB", "SQLITE_CORRUPT"), Trouble.DAMAGE),
    (("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHM"), Trouble.NO_ROOM),
    (("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH"), Trouble.READ_ONLY),
    (("SQLITE_BUSY", "SQLITE_LOCKED"), Trouble.LOCKED),
    (("SQLITE_IOERR",), Trouble.DISK),
)


def trouble_of(error: sqlite3.Error | OSError) -> Trouble:
    """What kind of trouble an error means."""
    match error:
        case DamagedFile():
            return Trouble.DAMAGE
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EFBIG):
            return Trouble.NO_ROOM
        case OSError(errno=errno.EROFS | errno.EACCES | errno.EPERM):
            return Trouble.READ_ONLY
        case OSError():
            return Trouble.DISK
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_ERROR" and "unsupported file format" in str(error):
        return Trouble.DAMAGE
    return next((trouble for starts, trouble in _BY_NAME if name.startswith(starts)), Trouble.OTHER)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into a sentence for the user."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            raise Interrupted from error
        match trouble_of(error):
            case Trouble.DAMAGE:
                raise damaged(path, str(error)) from error
            case Trouble.NO_ROOM:
                message = (
                    f"The disk is full: {path} cannot be written. Nothing is lost; make room and try again."
                )
            case Trouble.READ_ONLY:
                message = (
                    f"Cannot write {path} ({error}). "
                    "Make it writable, or set SAMOVAR_HOME to a folder that is."
                )
            case Trouble.LOCKED:
                message = f"Another program keeps {path} locked. End it (perhaps a backup) and try again."
            case Trouble.DISK:
                message = f"Reading or writing {path} failed ({error}). Check the disk, then try again."
            case Trouble.OTHER:
                message = f"The store of chats in {path} failed ({error}). Close Samovar and start it again."
        raise SamovarError(message) from error


def damaged(path: Path, reason: str) -> SamovarError:
    """The error for a file whose content makes no sense."""
    return SamovarError(
        f"The chats in {path} cannot be read ({reason}): the file is damaged. "
        "Close all windows of Samovar and start it again: it then saves what is left."
    )


def connect(path: Path, *, mode: str = "rw", immutable: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode to an existing file that has been read. `mode` is `rw` or `ro`.

    An `immutable` file is read without any lock and without its write-ahead log. Raises sqlite3.Error.
    """
    # Opened in one thread and closed in another is fine: sqlite3 is built serialized.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}{'&immutable=1' if immutable else ''}",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        register(connection)
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except UnicodeDecodeError as error:  # SQLite's message quotes a damaged table's name
        connection.close()
        raise DamagedFile("a table has no name") from error
    except BaseException:
        connection.close()
        raise
    return connection


def in_memory(content: bytes | bytearray | None = None) -> sqlite3.Connection:
    """A database in memory: an empty one, or one with the content of a file (see `image.py`)."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    register(connection)
    if content:
        connection.deserialize(content)
    return connection


def register(connection: sqlite3.Connection) -> None:
    """Give the connection the functions that the schema's statements call."""
    connection.create_function("searchable", 1, searchable, deterministic=True)


def read_leniently(connection: sqlite3.Connection) -> None:
    """Replace what is no UTF-8 in a text, as a flipped byte leaves it, instead of raising."""
    connection.text_factory = lambda content: content.decode("utf-8", "replace")


@contextlib.contextmanager
def stopped_when(connection: sqlite3.Connection, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Within it, a statement ends with SQLITE_INTERRUPT once `should_stop`, called in a thread, says so.

    A progress handler would not do: a check of a whole file is one instruction.
    """
    is_done = threading.Event()

    def watch() -> None:
        while not is_done.wait(_STOP_EVERY_S):
            if should_stop():
                connection.interrupt()

    watcher = threading.Thread(target=watch, name="samovar-check-stop", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_done.set()
        watcher.join()


def version_of(connection: sqlite3.Connection) -> int:
    """The schema's version, 0 for a new file; DamagedFile for one that no Samovar writes."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if not 0 <= version <= MAX_VERSION:
        raise DamagedFile(f"its format is {version}")
    if version == 0 and connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
        raise DamagedFile("its format is not known")
    return version


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """Bring the schema from `version` to the current one; within a transaction of the caller's."""
    try:
        for statements in schema.MIGRATIONS[version:]:
            for statement in statements:
                connection.execute(statement)
    except sqlite3.OperationalError as error:
        if trouble_of(error) is Trouble.OTHER:
            raise DamagedFile(f"it is not of format {version}: {error}") from error
        raise
    # Written each time: finds out now whether the file can be written.
    connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION}")


def has_our_columns(connection: sqlite3.Connection) -> bool:
    """Whether what the store selects is there. Reads the newest chat and message as well."""
    try:
        connection.execute(f"{schema.SELECT_SESSION} LIMIT 0").fetchall()
        connection.execute(f"SELECT {schema.MESSAGE_COLUMNS} FROM messages AS m LIMIT 0").fetchall()
        connection.execute(f"SELECT {schema.COMPACTION_COLUMNS} FROM compactions LIMIT 0").fetchall()
        connection.execute(
            "SELECT max(sessions.rowid), (SELECT max(id) FROM messages) FROM sessions"
        ).fetchall()
    except sqlite3.OperationalError as error:
        if trouble_of(error) is Trouble.OTHER:
            return False
        raise
    return True


def has_content(connection: sqlite3.Connection) -> bool:
    """Whether there is any chat in a file of any version above 0."""
    try:
        return bool(connection.execute("SELECT 1 FROM sessions LIMIT 1").fetchone())
    except sqlite3.OperationalError as error:
        if trouble_of(error) is Trouble.OTHER:
            raise DamagedFile(str(error)) from error
        raise

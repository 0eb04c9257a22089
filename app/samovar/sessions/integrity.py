"""Whether the file of chats is sound. A small file is checked whenever it is opened, a big one behind.

Damage that is found while the file is in use is noted in `chats.db.damaged`, so that the next start
repairs it.
"""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from samovar.sessions.connection import (
    COMPANIONS,
    DamagedFile,
    Trouble,
    connect,
    explained,
    stopped_when,
    trouble_of,
)

__all__ = [
    "CHECKED_AT_OPEN_BYTES",
    "DamagedFile",
    "check_integrity",
    "damage_in",
    "is_marked",
    "mark",
    "unmark",
]

CHECKED_AT_OPEN_BYTES: Final = 32 << 20


def check_integrity(path: Path, should_stop: Callable[[], bool] = lambda: False) -> str | None:
    """What is wrong with the file, after noting it for the next start; None if nothing is.

    For a thread beside the store: reads the whole file, on a connection of its own. None also if
    `should_stop` ended it. Raises SamovarError if the file cannot be read.
    """
    with explained(path):
        try:
            with (
                contextlib.closing(connect(path, mode="ro")) as connection,
                stopped_when(connection, should_stop),
            ):
                if should_stop():
                    return None
                damage = damage_in(connection)
        except sqlite3.DatabaseError as error:
            if should_stop():
                return None
            if trouble_of(error) is not Trouble.DAMAGE:
                raise
            damage = str(error)
    if damage:
        mark(path, damage)
    return damage or None


def damage_in(connection: sqlite3.Connection) -> str:
    """The first thing that SQLite finds wrong with a database, empty if there is none."""
    try:
        found = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.DatabaseError as error:
        if trouble_of(error) is not Trouble.DAMAGE:
            raise
        found = str(error)
    return "" if found == "ok" else " ".join(found.split())


def is_small(path: Path) -> bool:
    """Whether the file, its log included, is checked at once when it is opened."""
    return sum(_size(path.with_name(path.name + end)) for end in ("", *COMPANIONS)) < CHECKED_AT_OPEN_BYTES


def mark(path: Path, damage: str) -> None:
    """Have the file repaired at the next start; does nothing where that cannot be written."""
    with contextlib.suppress(OSError):
        _marker(path).write_text(f"{damage}\n")


def is_marked(path: Path) -> bool:
    return _marker(path).exists()


def unmark(path: Path) -> None:
    _marker(path).unlink(missing_ok=True)


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.damaged")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

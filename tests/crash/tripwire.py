"""A store whose process is killed at a chosen statement or commit, counted over all its connections."""

import itertools
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from samovar.sessions.connection import BUSY_TIMEOUT_S, register
from samovar.sessions.database import Database, open_database
from samovar.sessions.store import Store
from tests.crash.chats_lines import Trip


class Tripwire:
    """Kills this process at a statement or after a commit; counts over all threads."""

    def __init__(self, trip: Trip | None) -> None:
        self._trip = trip
        self._is_armed = trip is not None and trip.while_loading
        self._counts = itertools.count(1)
        self._opened: list[Database] = []

    def arm(self) -> None:
        self._is_armed = self._trip is not None

    def close(self) -> None:
        for database in self._opened:
            database.close()

    def pass_by(self, what: str) -> None:
        if not self._is_armed or self._trip is None or self._trip.what != what:
            return
        if next(self._counts) == self._trip.count:
            os.kill(os.getpid(), signal.SIGKILL)

    def open(self, file: Path, clock: Callable[[], float] = time.time) -> Store:
        """The store in this file over a connection that this wire watches."""
        wire = self

        class Wired(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:  # noqa: ANN401 - of sqlite3's own
                wire.pass_by("statement")
                cursor = super().execute(sql, *values)
                if sql == "COMMIT":
                    wire.pass_by("commit")
                return cursor

        self._opened.append(open_database(file))  # the usual way in, which also tells others that it is open
        connection = sqlite3.connect(
            file, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, factory=Wired
        )
        register(connection)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        return Store(Database(connection, file), clock)

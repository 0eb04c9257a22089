"""Searches while the user types, in whatever threads they are asked for, on a connection of their own."""

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from samovar.sessions.catalogue import Catalogue
from samovar.sessions.database import Interrupted, open_for_reading
from samovar.sessions.query import parse
from samovar.sessions.search import SearchResults, search

_CACHE_KIB: Final = 32 * 1024


class Searcher:
    """Thread-safe. A search takes the place of an earlier one that has not ended, which then finds nothing.

    The store must have opened the file before, since a searcher changes nothing.
    """

    def __init__(self, path: Path) -> None:
        """Raises SamovarError if the file cannot be opened."""
        self._db = open_for_reading(path)
        self._catalogue = Catalogue()
        self._state = threading.Lock()  # held briefly, for the two numbers below
        self._newest = 0
        self._running: int | None = None
        self._one_at_a_time = threading.Lock()
        self._db.rows(f"PRAGMA cache_size = -{_CACHE_KIB}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def search(self, text: str, limit: int = 50, now: float | None = None) -> SearchResults | None:
        """What the user's query finds; None if another search or `interrupt` came meanwhile.

        `now` is seconds since the epoch, the clock's time if left out. Raises SamovarError.
        """
        number = self._supersede()
        with self._one_at_a_time:
            with self._state:
                if number != self._newest:
                    return None
                self._running = number
            try:
                moment = time.time() if now is None else now
                return search(
                    self._db,
                    parse(text, moment),
                    now=moment,
                    limit=limit,
                    catalogue=self._catalogue,
                    check=lambda: self._check(number),
                )
            except Interrupted:
                return None
            finally:
                with self._state:
                    self._running = None

    def interrupt(self) -> None:
        """End what is being searched, and what waits to be."""
        self._supersede()

    def close(self) -> None:
        """End what is being searched and close the file."""
        self._supersede()
        with self._one_at_a_time:
            self._db.close()

    def _supersede(self) -> int:
        with self._state:
            self._newest += 1
            if self._running is not None:
                self._db.interrupt()
            return self._newest

    def _check(self, number: int) -> None:
        """Between two statements there is nothing that `Database.interrupt` could end."""
        if number != self._newest:
            raise Interrupted

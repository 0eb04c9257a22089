"""The disk tier's index: an SQLite table of blocks, who owns them, and what was last asked in each session.

Looked up by key, never read as a whole: opening it costs the same with no block and with a million. Several
hosts share one index. A row is `WRITING` before its file is there and `LEAVING` before its file goes, so
that after a crash the rows that say so are all that has to be looked at.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from samovar.kv.block_file import BlockHeader
from samovar.kv.tokens import TOKEN_BYTES

VERSION: Final = 1

WRITING: Final = 0
STORED: Final = 1
LEAVING: Final = 2

_BUSY_MS: Final = 10_000

_SCHEMA: Final = """
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    clock INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    tokens INTEGER NOT NULL,
    blocks INTEGER NOT NULL,
    totals BLOB NOT NULL
) STRICT;
INSERT INTO meta VALUES (0, 0, 0, 0, 0, x'');
CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    weights TEXT NOT NULL,
    build TEXT NOT NULL
) STRICT;
CREATE TABLE blocks (
    key BLOB NOT NULL PRIMARY KEY CHECK (length(key) = 16),
    model INTEGER NOT NULL,
    parent BLOB NOT NULL,
    start INTEGER NOT NULL,
    tokens BLOB NOT NULL,
    size INTEGER NOT NULL,
    held INTEGER NOT NULL,
    used INTEGER NOT NULL,
    state INTEGER NOT NULL,
    writer TEXT NOT NULL
) STRICT;
CREATE INDEX blocks_parent ON blocks (parent);
CREATE INDEX blocks_used ON blocks (used);
CREATE INDEX blocks_model ON blocks (model, held);
CREATE INDEX blocks_unsettled ON blocks (state) WHERE state != 1;
CREATE TRIGGER blocks_in AFTER INSERT ON blocks BEGIN
    UPDATE meta SET bytes = bytes + NEW.held, tokens = tokens + length(NEW.tokens) / 4, blocks = blocks + 1;
END;
CREATE TRIGGER blocks_out AFTER DELETE ON blocks BEGIN
    UPDATE meta SET bytes = bytes - OLD.held, tokens = tokens - length(OLD.tokens) / 4, blocks = blocks - 1;
    DELETE FROM owners WHERE key = OLD.key;
END;
CREATE TABLE owners (
    key BLOB NOT NULL,
    session TEXT NOT NULL,
    PRIMARY KEY (key, session)
) STRICT, WITHOUT ROWID;
CREATE INDEX owners_session ON owners (session);
CREATE TABLE sessions (
    session TEXT NOT NULL,
    model INTEGER NOT NULL,
    title TEXT NOT NULL,
    past BLOB NOT NULL,
    hits INTEGER NOT NULL,
    used REAL NOT NULL,
    pinned INTEGER NOT NULL,
    PRIMARY KEY (session, model)
) STRICT, WITHOUT ROWID;
"""

_PAST: Final = (str, str, bytes, int, float, int)

_PINNED: Final = """EXISTS (
    SELECT 1 FROM owners JOIN sessions USING (session) WHERE owners.key = blocks.key AND sessions.pinned
)"""
_IS_LEAF: Final = "NOT EXISTS (SELECT 1 FROM blocks AS child WHERE child.parent = blocks.key)"


# Result codes that speak of the disk or of other processes; all others speak of what is in the file.
_OUTSIDE: Final = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_READONLY,
    }
)


class NewerIndex(Exception):
    """The index was written by a newer release; it is left alone."""


class DamagedIndex(sqlite3.DatabaseError):
    """The index holds what was never written into it."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error means that the index itself cannot be used any more."""
    if isinstance(error, DamagedIndex):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF not in _OUTSIDE


@dataclass(frozen=True, slots=True)
class Row:
    """One block as the index knows it; `tokens` are little-endian int32."""

    key: bytes
    parent: bytes
    start: int
    tokens: bytes
    size: int
    held: int
    fingerprint: str

    @property
    def num_tokens(self) -> int:
        return len(self.tokens) // TOKEN_BYTES

    @property
    def end(self) -> int:
        return self.start + self.num_tokens

    def header(self) -> BlockHeader:
        return BlockHeader(self.fingerprint, self.key, self.parent, self.start, self.tokens, self.size)


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model under one set of settings, with what it holds on disk."""

    id: int
    fingerprint: str
    name: str
    path: str
    weights: str
    build: str
    blocks: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PastRow:
    """What a session asked last, for the table of prompts and for explanations after a restart."""

    session: str
    title: str
    past: bytes
    hits: int
    used: float
    pinned: bool


class DiskIndex:
    """One connection. Every method is one transaction; raises sqlite3.Error."""

    def __init__(self, file: Path) -> None:
        """Open or make the index; NewerIndex if it is of a newer release."""
        self._db = sqlite3.connect(file, isolation_level=None, timeout=_BUSY_MS / 1000)
        self._db.text_factory = lambda data: data.decode(errors="replace")
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA secure_delete = ON")  # what a deleted chat said leaves the file too
            with self._write():
                (version,) = self._db.execute("PRAGMA user_version").fetchone()
                if version > VERSION:
                    raise NewerIndex
                if version < VERSION:
                    for statement in _statements(_SCHEMA):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {VERSION}")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """One transaction around several methods."""
        with self._write():
            yield

    @contextmanager
    def _write(self) -> Iterator[None]:
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _select(self, sql: str, values: Sequence[object], *types: type) -> list[tuple[Any, ...]]:
        """Rows of these types; DamagedIndex for any other."""
        found = self._db.execute(sql, values).fetchall()
        for row in found:
            if not all(isinstance(value, kind) for value, kind in zip(row, types, strict=True)):
                raise DamagedIndex("a value of the wrong type")
        return found

    def _one(self, sql: str, values: Sequence[object], *types: type) -> tuple[Any, ...]:
        """The one row that must be there."""
        for row in self._select(sql, values, *types):
            return row
        raise DamagedIndex("a row is missing")

    def check(self) -> None:
        """Have SQLite look at every page; DamagedIndex if something is wrong."""
        found = self._db.execute("PRAGMA integrity_check(1)").fetchone()
        if found is None or found[0] != "ok":
            raise DamagedIndex("SQLite's check fails")
        self.usage()

    # ---- models

    def model_id(self, fingerprint: str, name: str, path: str, weights: str, build: str) -> int:
        """The id of a model, which is entered or brought up to date."""
        with self._write():
            self._db.execute(
                "INSERT INTO models (fingerprint, name, path, weights, build) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (fingerprint) DO UPDATE SET name = excluded.name, path = excluded.path",
                (fingerprint, name, path, weights, build),
            )
            found = self._one("SELECT id FROM models WHERE fingerprint = ?", (fingerprint,), int)
        return int(found[0])

    def models(self) -> list[ModelRow]:
        return [
            ModelRow(*row)
            for row in self._select(
                "SELECT id, fingerprint, name, path, weights, build,"
                " (SELECT count(*) FROM blocks WHERE model = models.id),"
                " (SELECT coalesce(sum(held), 0) FROM blocks WHERE model = models.id)"
                " FROM models ORDER BY name",
                (),
                *(int, str, str, str, str, str, int, int),
            )
        ]

    def drop_model(self, model: int) -> None:
        """Forget a model that has no blocks any more."""
        with self._write():
            self._db.execute("DELETE FROM sessions WHERE model = ?", (model,))
            self._db.execute("DELETE FROM models WHERE id = ?", (model,))

    # ---- looking up

    def get(self, key: bytes) -> Row | None:
        """A block that is stored whole."""
        rows = self._rows("blocks.key = ? AND state = ?", (key, STORED))
        return rows[0] if rows else None

    def children(self, parent: bytes) -> list[Row]:
        return self._rows("parent = ? AND state = ?", (parent, STORED))

    def state(self, key: bytes) -> int | None:
        """The state of an entry, None if there is none."""
        found = self._select("SELECT state FROM blocks WHERE key = ?", (key,), int)
        return int(found[0][0]) if found else None

    def keys(self) -> list[bytes]:
        """All keys: for `verify` alone."""
        return [row[0] for row in self._select("SELECT key FROM blocks", (), bytes)]

    def usage(self) -> tuple[int, int, int]:
        """(bytes, tokens, blocks), those that are being written or deleted included."""
        num_bytes, num_tokens, num_blocks = self._one(
            "SELECT bytes, tokens, blocks FROM meta", (), int, int, int
        )
        return num_bytes, num_tokens, num_blocks

    def _rows(self, where: str, values: Sequence[object]) -> list[Row]:
        found = self._select(
            "SELECT blocks.key, parent, start, tokens, size, held, fingerprint"
            f" FROM blocks JOIN models ON models.id = model WHERE {where}",
            values,
            *(bytes, bytes, int, bytes, int, int, str),
        )
        return [Row(*row) for row in found]

    # ---- blocks come and go

    def begin_write(self, header: BlockHeader, held: int, model: int, writer: str) -> bool:
        """Enter a block whose file is about to be written; False if there is an entry already."""
        with self._write():
            done = self._db.execute(
                "INSERT OR IGNORE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    header.key,
                    model,
                    header.parent,
                    header.start,
                    header.tokens,
                    header.size,
                    held,
                    self._tick(),
                    WRITING,
                    writer,
                ),
            )
            return done.rowcount == 1

    def end_write(self, key: bytes, owners: Iterable[str], writer: str) -> bool:
        """The file is there; False if somebody has taken the entry away meanwhile."""
        with self._write():
            done = self._db.execute(
                "UPDATE blocks SET state = ?, writer = '' WHERE key = ? AND state = ? AND writer = ?",
                (STORED, key, WRITING, writer),
            )
            self._own([key], owners)
            return done.rowcount == 1

    def begin_delete(self, keys: Iterable[bytes], writer: str) -> None:
        with self._write():
            self._db.executemany(
                "UPDATE blocks SET state = ?, writer = ? WHERE key = ?",
                [(LEAVING, writer, key) for key in keys],
            )

    def end_delete(self, keys: Iterable[bytes]) -> None:
        with self._write():
            self._db.executemany("DELETE FROM blocks WHERE key = ?", [(key,) for key in keys])

    def unsettled(self) -> list[tuple[bytes, str]]:
        """(key, writer) of all blocks that are being written or deleted."""
        found = self._select("SELECT key, writer FROM blocks WHERE state != 1", (), bytes, str)
        return [(key, writer) for key, writer in found]

    def victim(self) -> tuple[bytes, int] | None:
        """(key, bytes held) of the leaf that was not used for the longest time and is not pinned."""
        found = self._select(
            f"SELECT key, held FROM blocks WHERE state = 1 AND {_IS_LEAF} AND NOT {_PINNED}"
            " ORDER BY used LIMIT 1",
            (),
            *(bytes, int),
        )
        return (found[0][0], found[0][1]) if found else None

    def touch(self, keys: Sequence[bytes], owners: Iterable[str] = ()) -> None:
        """Mark a chain as just used, and note whose it is."""
        with self._write():
            clock = self._tick()
            self._db.executemany("UPDATE blocks SET used = ? WHERE key = ?", [(clock, key) for key in keys])
            self._own(keys, owners)

    def inherit(self, old: bytes, new: bytes) -> None:
        """Who owns the block `old` also owns `new`."""
        with self._write():
            self._db.execute(
                "INSERT OR IGNORE INTO owners SELECT ?, session FROM owners WHERE key = ?", (new, old)
            )

    def of_model(self, model: int) -> list[bytes]:
        """Keys of all blocks of a model, children before parents."""
        found = self._select("SELECT key FROM blocks WHERE model = ? ORDER BY start DESC", (model,), bytes)
        return [row[0] for row in found]

    def unpinned(self) -> list[bytes]:
        """Keys of all blocks that no pinned session owns, children before parents."""
        found = self._select(f"SELECT key FROM blocks WHERE NOT {_PINNED} ORDER BY start DESC", (), bytes)
        return [row[0] for row in found]

    def _own(self, keys: Iterable[bytes], owners: Iterable[str]) -> None:
        names = list(owners)
        self._db.executemany(
            "INSERT OR IGNORE INTO owners SELECT key, ? FROM blocks WHERE key = ?",
            [(name, key) for key in keys for name in names],
        )

    def _tick(self) -> int:
        """The index's clock: it orders uses, and no change of the system's time disturbs it."""
        found = self._one("UPDATE meta SET clock = clock + 1 RETURNING clock", (), int)
        return int(found[0])

    # ---- sessions

    def remember(self, model: int, past: PastRow, keep: int) -> None:
        """Note what a session asked last; of more than `keep` the oldest that are not pinned go."""
        with self._write():
            self._db.execute(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?)",
                (past.session, model, past.title, past.past, past.hits, past.used, past.pinned),
            )
            self._db.execute(
                "DELETE FROM sessions WHERE model = ?1 AND NOT pinned AND session NOT IN"
                " (SELECT session FROM sessions WHERE model = ?1 ORDER BY used DESC LIMIT ?2)",
                (model, keep),
            )

    def past(self, model: int) -> list[PastRow]:
        return [
            PastRow(session, title, past, hits, used, bool(pinned))
            for session, title, past, hits, used, pinned in self._select(
                "SELECT session, title, past, hits, used, pinned FROM sessions WHERE model = ? ORDER BY used",
                (model,),
                *_PAST,
            )
        ]

    def all_past(self) -> list[tuple[str, int, PastRow]]:
        """(model name, tokens of the session's longest chain, past) of all sessions of all models."""
        found = self._select(
            "SELECT models.name, coalesce((SELECT max(start + length(tokens) / 4)"
            " FROM owners JOIN blocks USING (key)"
            " WHERE owners.session = sessions.session AND blocks.model = sessions.model), 0),"
            " session, title, past, hits, used, pinned"
            " FROM sessions JOIN models ON models.id = sessions.model ORDER BY used DESC",
            (),
            *(str, int, *_PAST),
        )
        return [
            (name, num_tokens, PastRow(session, title, past, hits, used, bool(pinned)))
            for name, num_tokens, session, title, past, hits, used, pinned in found
        ]

    def pin(self, session: str, model: int, pinned: bool) -> None:
        with self._write():
            self._db.execute(
                "UPDATE sessions SET pinned = ? WHERE session = ? AND model = ?", (pinned, session, model)
            )

    def disown(self, session: str) -> list[bytes]:
        """Forget a session; the keys of the blocks that were its alone, children before parents."""
        with self._write():
            keys = [
                row[0]
                for row in self._select(
                    "SELECT key FROM owners AS mine JOIN blocks USING (key)"
                    " WHERE session = ?1 AND NOT EXISTS"
                    " (SELECT 1 FROM owners WHERE key = mine.key AND session != ?1) ORDER BY start DESC",
                    (session,),
                    bytes,
                )
            ]
            self._db.execute("DELETE FROM owners WHERE session = ?", (session,))
            self._db.execute("DELETE FROM sessions WHERE session = ?", (session,))
        return keys

    # ---- counters

    def totals(self) -> bytes:
        return bytes(self._one("SELECT totals FROM meta", (), bytes)[0])

    def set_totals(self, totals: bytes) -> None:
        with self._write():
            self._db.execute("UPDATE meta SET totals = ?", (totals,))

    def recount(self) -> None:
        """Set the counters to what the rows say."""
        with self._write():
            self._db.execute(
                "UPDATE meta SET bytes = (SELECT coalesce(sum(held), 0) FROM blocks),"
                " tokens = (SELECT coalesce(sum(length(tokens) / 4), 0) FROM blocks),"
                " blocks = (SELECT count(*) FROM blocks)"
            )


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one, so that all of them can be in one transaction."""
    statement = ""
    for line in script.strip().splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""

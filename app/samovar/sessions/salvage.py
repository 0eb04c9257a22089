"""Brings what can be read of a damaged database, and of a backup, into a new one. Pure SQL and values: the
files themselves are `repair.py`'s.

Whole rows of the damaged file come first, those of a backup fill what is missing and replace nothing, then
come rows of which only a part can be read. In the end every reference holds again:

    message without its parent    becomes a first message
    message without its chat      its chat is made anew, "recovered chat"
    chat without its head         shows its newest message
    summary without its message   goes
    import without its owner      is one that has been given up
"""

import contextlib
import itertools
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from samovar.core.chat import Role
from samovar.sessions.attachments import digest_of
from samovar.sessions.connection import in_memory, migrate, read_leniently
from samovar.sessions.pages import LeafRow, Value, leaf_rows
from samovar.sessions.settings import SessionSettings
from samovar.sessions.values import MessageState

RECOVERED: Final = "recovered chat"

# Behind it is no message, but a flipped bit; and SQLite would soon have no id left to give.
_MAX_ID: Final = 1 << 40

# So many show that a row that is not whole is a message: its id, chat, parent and role.
_MIN_COLUMNS: Final = 4

_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "TEXT": (str,),
    "INTEGER": (int,),
    "REAL": (float, int),
    "BLOB": (bytes,),
}
_EMPTY: Final[dict[str, Value]] = {"TEXT": "", "INTEGER": 0, "REAL": 0.0, "BLOB": b""}


class Salvaged(msgspec.Struct, frozen=True):
    """What came into the new database. A message is lost if something that was read speaks of it."""

    num_sessions: int
    num_messages: int
    num_from_backup: int  # chats and messages
    num_lost_messages: int
    num_lost_sessions: int  # made anew for messages that were read
    num_lost_files: int


def salvage(
    target: sqlite3.Connection, image: bytes | bytearray, backup: sqlite3.Connection | None
) -> Salvaged:
    """Fill an empty database from the image of a damaged one, and from a backup.

    One transaction; `target` must not enforce foreign keys meanwhile.
    """
    target.execute("BEGIN")
    migrate(target, 0)
    tables = {table.name: table for table in _tables(target)}
    for name in tables:
        target.execute(f"DELETE FROM {name}")
    target.execute("CREATE TEMP TABLE known (id INTEGER PRIMARY KEY)")
    target.execute("CREATE TEMP TABLE headless (id TEXT PRIMARY KEY)")
    doubtful: list[_Row] = []
    with contextlib.closing(_opened(image)) as source:
        for table in tables.values():
            _insert(target, table, _sure(_sql_rows(source, table), doubtful))
        ids = _until_damage(source, "SELECT id FROM messages INDEXED BY messages_of_parent")
        target.executemany("INSERT OR IGNORE INTO known VALUES (?)", (row for row in ids if _is_id(row[0])))
        last_id = _last_id(source)
    for table in (tables["sessions"], tables["messages"]):
        for row in _sure(_leaf_rows(image, table), doubtful):
            if not _is_there(target, row):
                _insert(target, table, [row])
    num_from_backup = 0
    if backup is not None:
        read_leniently(backup)
        target.execute("CREATE TEMP TABLE current AS SELECT id FROM sessions")
        for table in tables.values():
            before = target.total_changes
            _insert(target, table, _sql_rows(backup, table))
            if table.name in ("messages", "sessions"):
                num_from_backup += target.total_changes - before
        # A chat that comes from the backup may have grown since.
        target.execute("INSERT INTO headless SELECT id FROM sessions WHERE id NOT IN current")
        last_id = max(last_id, _last_id(backup))
    for row in doubtful:
        if not _is_there(target, row):
            _insert(target, row.table, [row])
    lost = _mend(target, last_id)
    target.execute(_FILL_SEARCH)
    (num_sessions,) = target.execute("SELECT count(*) FROM sessions").fetchone()
    (num_messages,) = target.execute("SELECT count(*) FROM messages").fetchone()
    target.execute("COMMIT")
    for name in ("known", "headless", "current"):
        target.execute(f"DROP TABLE IF EXISTS temp.{name}")
    assert not target.execute("PRAGMA foreign_key_check").fetchall()
    return Salvaged(num_sessions, num_messages, num_from_backup, *lost)


class _Column(msgspec.Struct, frozen=True):
    name: str
    kind: str
    not_null: bool
    default: Value
    has_default: bool

    def takes(self, value: Value) -> bool:
        if value is None:
            return not self.not_null
        return isinstance(value, _KINDS[self.kind])


class _Table(msgspec.Struct, frozen=True):
    name: str
    has_rowid: bool
    columns: tuple[_Column, ...]
    key: tuple[str, ...]

    @property
    def counts_rows(self) -> bool:
        """Whether the key is the rowid."""
        return self.has_rowid and len(self.key) == 1 and self.columns[0].kind == "INTEGER"

    def from_leaf(self, leaf: LeafRow) -> "_Row | None":
        """A row that a leaf page holds; None if it is not of this table."""
        values = leaf.values
        if self.counts_rows:
            if not values or values[0] is not None:
                return None
            values = (leaf.rowid, *values[1:])
        pairs = list(zip(self.columns, values, strict=False))
        fitting = list(itertools.takewhile(lambda pair: pair[0].takes(pair[1]), pairs))
        if leaf.is_whole and (len(values) > len(self.columns) or len(fitting) < len(values)):
            return None
        if not leaf.is_whole and self.counts_rows:
            if len(fitting) < _MIN_COLUMNS:
                return None
        elif any(column.not_null and not column.has_default for column in self.columns[len(fitting) :]):
            return None
        return self.row({column.name: value for column, value in fitting}, is_sure=leaf.is_whole)

    def row(self, found: dict[str, Value], *, is_sure: bool = True) -> "_Row | None":
        """The row as its table takes it, what makes no sense set to its default; None without a key."""
        clean: dict[str, Value] = {}
        for column in self.columns:
            value = found.get(column.name, column.default)
            if not column.takes(value):
                if column.name in self.key:
                    return None
                value, is_sure = column.default, False
            check = _CHECKS.get((self.name, column.name))
            if check is not None and value is not None and not check(value):
                value = _INSTEAD.get(column.name, column.default)
            clean[column.name] = float(value) if column.kind == "REAL" and isinstance(value, int) else value
        if self.counts_rows and not _is_id(clean[self.key[0]]):
            return None
        if self.name == "files" and digest_of(str(clean["text"])) != clean["digest"]:
            return None
        return _Row(self, clean, is_sure)


class _Row(msgspec.Struct, frozen=True):
    """A row of a table. One that is not sure has lost something, or stands where it does not belong."""

    table: _Table
    values: dict[str, Value]
    is_sure: bool

    @property
    def number(self) -> int:
        """The key of a table that counts its rows."""
        number = self.values[self.table.key[0]]
        assert isinstance(number, int)
        return number


def _is_json_of(kind: object) -> Callable[[Any], bool]:
    def check(text: Any) -> bool:  # noqa: ANN401 - a column's value
        try:
            msgspec.json.decode(text, type=kind)
        except (msgspec.MsgspecError, RecursionError):
            return False
        return True

    return check


_CHECKS: Final[dict[tuple[str, str], Callable[[Any], bool]]] = {
    ("messages", "role"): lambda text: text in {role.value for role in Role},
    ("messages", "state"): lambda text: text in {state.value for state in MessageState},
    ("messages", "tokens"): lambda blob: len(blob) % 4 == 0,
    ("messages", "attachments"): _is_json_of(list[dict[str, Any]]),
    ("messages", "extra"): _is_json_of(dict[str, Any]),
    ("sessions", "settings"): _is_json_of(SessionSettings),
    ("sessions", "extra"): _is_json_of(dict[str, Any]),
}
_INSTEAD: Final[dict[str, Value]] = {"role": Role.USER.value, "state": MessageState.STOPPED.value}


def _tables(target: sqlite3.Connection) -> list[_Table]:
    """The tables of the current schema; chats and messages first."""
    found = target.execute("SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table'")
    tables = []
    for name, without_rowid in found.fetchall():
        if name.startswith("sqlite_"):
            continue
        columns, key = [], []
        for _, column, kind, not_null, default, is_key in target.execute(f"PRAGMA table_info ({name})"):
            value = _EMPTY[kind] if not_null else None
            if default is not None:
                (value,) = target.execute(f"SELECT {default}").fetchone()
            must = bool(not_null or is_key)
            columns.append(_Column(column, kind, must, value, default is not None))
            if is_key:
                key.append(column)
        tables.append(_Table(name, not without_rowid, tuple(columns), tuple(key)))
    return sorted(tables, key=lambda table: table.name not in ("sessions", "messages"))


def _opened(image: bytes | bytearray) -> sqlite3.Connection:
    """The damaged database in memory, as lenient as SQLite can be."""
    connection = in_memory(image)
    read_leniently(connection)
    connection.execute("PRAGMA writable_schema = ON")  # a table that makes no sense does not hide the others
    return connection


def _sql_rows(source: sqlite3.Connection, table: _Table) -> Iterator[_Row]:
    """The rows from both ends of the table to where it is damaged."""
    there = {row[1] for row in _until_damage(source, f"PRAGMA table_info ({table.name})")}
    names = [column.name for column in table.columns if column.name in there]
    if not set(table.key) <= set(names):
        return
    order = ["rowid"] if table.has_rowid else list(table.key)
    for direction in (1, -1):
        keys = ", ".join(f"{key} {'ASC' if direction > 0 else 'DESC'}" for key in order)
        reading = _Reading()
        select = f"SELECT {', '.join(names)} FROM {table.name} NOT INDEXED ORDER BY {keys}"
        found = (
            row
            for values in _until_damage(source, select, reading)
            if (row := table.row(dict(zip(names, values, strict=True)))) is not None
        )
        yield from _in_order(found, direction) if table.counts_rows else found
        if reading.is_complete:
            return


def _leaf_rows(image: bytes | bytearray, table: _Table) -> Iterator[_Row]:
    """The rows of the leaf pages that look like this table's."""
    for _, leaves in itertools.groupby(leaf_rows(image), key=lambda leaf: leaf.page):
        found = (row for leaf in leaves if (row := table.from_leaf(leaf)) is not None)
        yield from _in_order(found, 1) if table.counts_rows else found


def _in_order(rows: Iterable[_Row], direction: int) -> Iterator[_Row]:
    """The rows, those with a number that does not fit between its neighbours' marked as not sure.

    Where only one number is free between the neighbours, it is this row's.
    """
    previous: int | None = None
    current: _Row | None = None
    for following in itertools.chain(rows, [None]):
        if current is not None:
            number = current.number
            after = None if following is None else following.number
            rises = previous is None or (number - previous) * direction > 0
            goes_on = after is None or (after - number) * direction > 0
            would_go_on = after is None or previous is None or (after - previous) * direction > 0
            if rises and (goes_on or not would_go_on):
                yield current
                previous = number
            elif previous is not None and after is not None and after == previous + 2 * direction:
                previous += direction
                values = current.values | {current.table.key[0]: previous}
                yield _Row(current.table, values, current.is_sure)
            else:
                yield _Row(current.table, current.values, is_sure=False)
        current = following


def _sure(rows: Iterable[_Row], doubtful: list[_Row]) -> Iterator[_Row]:
    """The rows that are sure; the others are put aside."""
    for row in rows:
        if row.is_sure:
            yield row
        else:
            doubtful.append(row)


def _is_there(target: sqlite3.Connection, row: _Row) -> bool:
    """Whether there is such a message already, be it under another number."""
    if row.table.name != "messages":
        return False
    same = "SELECT 1 FROM messages WHERE session_id = ? AND created_at = ? AND role = ? AND content = ?"
    values = [row.values[name] for name in ("session_id", "created_at", "role", "content")]
    return target.execute(f"{same} LIMIT 1", values).fetchone() is not None


class _Reading:
    """Whether a query came to its end."""

    is_complete = False


def _until_damage(
    source: sqlite3.Connection, sql: str, reading: _Reading | None = None
) -> Iterator[tuple[Any, ...]]:
    """The rows that a query finds before it meets damage."""
    try:
        yield from source.execute(sql)
    # A damaged length may ask for any amount of memory, and a message quote what is no UTF-8.
    except (sqlite3.Error, MemoryError, UnicodeDecodeError):
        return
    if reading is not None:
        reading.is_complete = True


def _insert(target: sqlite3.Connection, table: _Table, rows: Iterable[_Row]) -> None:
    """Add the rows whose keys are not there yet."""
    names = ", ".join(column.name for column in table.columns)
    marks = ", ".join("?" * len(table.columns))
    target.executemany(
        f"INSERT OR IGNORE INTO {table.name} ({names}) VALUES ({marks})",
        (tuple(row.values.values()) for row in rows),
    )


def _is_id(number: Value) -> bool:
    """Whether a message may have this id."""
    return isinstance(number, int) and 0 < number < _MAX_ID


def _last_id(source: sqlite3.Connection) -> int:
    """The greatest id that a message ever had, as far as it is known."""
    found = [0]
    for sql in (
        "SELECT seq FROM sqlite_sequence WHERE name = 'messages'",
        "SELECT max(id) FROM messages",
    ):
        found += [number for (number,) in _until_damage(source, sql) if _is_id(number)]
    return max(found)


def _mend(target: sqlite3.Connection, last_id: int) -> tuple[int, int, int]:
    """Make every reference hold; the numbers of lost messages, chats and files."""
    target.execute("INSERT OR IGNORE INTO known SELECT parent_id FROM messages WHERE parent_id > 0")
    target.execute("INSERT OR IGNORE INTO known SELECT head_id FROM sessions WHERE head_id > 0")
    (num_messages,) = target.execute(
        "SELECT count(*) FROM known WHERE id <= ? AND id NOT IN (SELECT id FROM messages)", (last_id,)
    ).fetchone()
    gone = "SELECT DISTINCT session_id FROM messages WHERE session_id NOT IN (SELECT id FROM sessions)"
    target.execute(f"INSERT OR IGNORE INTO headless {gone}")
    num_sessions = target.execute(
        "INSERT INTO sessions (id, title, system_prompt, created_at, updated_at)"
        " SELECT session_id, ?, '', min(created_at), max(created_at) FROM messages"
        f" WHERE session_id IN ({gone}) GROUP BY session_id",
        (RECOVERED,),
    ).rowcount
    target.execute(
        "UPDATE messages SET parent_id = NULL WHERE parent_id IS NOT NULL AND (parent_id >= id OR NOT EXISTS"
        " (SELECT 1 FROM messages AS p WHERE p.id = messages.parent_id"
        "  AND p.session_id = messages.session_id))"
    )
    target.execute(
        "INSERT OR IGNORE INTO headless SELECT id FROM sessions WHERE head_id IS NOT NULL AND NOT EXISTS"
        " (SELECT 1 FROM messages WHERE id = head_id AND session_id = sessions.id)"
    )
    for (session,) in target.execute("SELECT id FROM headless").fetchall():
        target.execute(_SET_HEAD, (session,))
    target.execute("DELETE FROM tags WHERE session_id NOT IN (SELECT id FROM sessions)")
    target.execute(
        "DELETE FROM compactions WHERE NOT EXISTS (SELECT 1 FROM messages AS m"
        " WHERE m.id = upto_id AND m.session_id = compactions.session_id)"
    )
    have = {digest for (digest,) in target.execute("SELECT digest FROM files")}
    num_files = len(_attached(target) - have)
    # An import that nobody goes on with; the next start drops it.
    target.execute(
        "INSERT INTO imports (id, owner_pid, owner_started) SELECT DISTINCT import_id, 0, 0 FROM sessions"
        " WHERE import_id IS NOT NULL AND import_id NOT IN (SELECT id FROM imports)"
    )
    target.execute("DELETE FROM sqlite_sequence WHERE name = 'messages'")
    target.execute(
        "INSERT INTO sqlite_sequence (name, seq)"
        " SELECT 'messages', max(?, coalesce(max(id), 0)) FROM messages",
        (last_id,),
    )
    target.execute(
        "INSERT INTO counters SELECT 'revision', coalesce(max(revision), 0) FROM sessions WHERE true"
        " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)"
    )
    return num_messages, num_sessions, num_files


def _attached(target: sqlite3.Connection) -> set[str]:
    """The digests of all files that a message carries."""
    digests = set()
    for (text,) in target.execute("SELECT attachments FROM messages WHERE attachments <> '[]'"):
        for attachment in msgspec.json.decode(text, type=list[dict[str, Any]]):
            digest = attachment.get("digest")
            if isinstance(digest, str):
                digests.add(digest)
    return digests


_FILL_SEARCH: Final = """
    INSERT INTO messages_fts (rowid, text)
    SELECT id, searchable(content) FROM messages WHERE state <> 'streaming' AND content <> ''
"""

# The newest message that no deleted one hides.
_SET_HEAD: Final = """
    UPDATE sessions SET head_id = (
        WITH RECURSIVE visible (id) AS (
            SELECT id FROM messages
            WHERE session_id = sessions.id AND parent_id IS NULL AND deleted_at IS NULL
            UNION ALL
            SELECT m.id FROM visible JOIN messages AS m ON m.parent_id = visible.id
            WHERE m.deleted_at IS NULL
        )
        SELECT max(id) FROM visible
    ) WHERE id = ?
"""

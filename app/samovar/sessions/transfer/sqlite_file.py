"""Another program's SQLite file, read without trusting it and without changing it.

Only plain tables are looked at, never views or virtual tables, and nothing in the schema is run.
"""

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from samovar.core.errors import SamovarError

HEADER: Final = b"SQLite format 3\0"
MAX_ROWS: Final = 20_000_000
"""The most rows that are read of one file."""
_BUSY_TIMEOUT_S: Final = 2.0
_MAX_VALUE_BYTES: Final = 64 << 20
_WAL_VERSION: Final = 2
_ASIDE: Final = ("-wal", "-journal")
"""What SQLite writes beside a file while changes of it are not in it yet."""

Row = dict[str, Any]


class SqliteFile:
    """An open file. `tables` are its plain tables with their columns."""

    def __init__(self, connection: sqlite3.Connection, cleanup: contextlib.ExitStack) -> None:
        """`open_sqlite` is the way in."""
        self._connection = connection
        self._cleanup = cleanup
        self._num_rows = 0
        self.tables = self._tables()

    def close(self) -> None:
        """Close the file, and remove the copy if one was made."""
        self._cleanup.close()

    def has(self, table: str, *columns: str) -> bool:
        """Whether there is such a table with all these columns."""
        return table in self.tables and set(columns) <= set(self.tables[table])

    def rows(
        self, table: str, rest: str = "", *values: object, without: tuple[str, ...] = ()
    ) -> Iterator[Row]:
        """Rows of a plain table as values by column; `rest` is what stands behind FROM in the query."""
        columns = [column for column in self.tables.get(table, ()) if column not in without]
        if not columns:
            return
        names = ", ".join(map(quoted, columns))
        for row in self.query(f"SELECT {names} FROM {quoted(table)} {rest}", *values):
            yield dict(zip(columns, row, strict=True))

    def row_at(self, table: str, rowid: int, *, without: tuple[str, ...] = ()) -> Row:
        """The row that `places` told."""
        for row in self.rows(table, "WHERE rowid = ?", rowid, without=without):
            return row
        raise SamovarError(f"the database is damaged (a row of {table} is gone)")

    def places(self, table: str, column: str, order: str = "rowid") -> dict[object, list[int]]:
        """Where the rows are that have the same value in a column, in order; empty without such a table.

        One pass over the table, so that nothing is slow where the file has no index.
        """
        found: dict[object, list[int]] = {}
        if self.has(table, column):
            order = quoted(order) if order in self.tables[table] else "rowid"
            sql = f"SELECT rowid, {quoted(column)} FROM {quoted(table)} ORDER BY {order}, rowid"
            for rowid, value in self.query(sql):
                found.setdefault(value, []).append(rowid)
        return found

    def query(self, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, one at a time; SamovarError if the file is damaged or too large."""
        with explained():
            cursor = self._connection.execute(sql, values)
        while True:
            with explained():
                row = cursor.fetchone()
            if row is None:
                return
            self._num_rows += 1
            if self._num_rows > MAX_ROWS:
                raise SamovarError(f"it has more than {MAX_ROWS:,} rows")
            yield row

    def _tables(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for name, sql in self.query("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
            if not isinstance(name, str) or not isinstance(sql, str) or name in found:
                continue
            if sql.lstrip().upper().startswith("CREATE TABLE"):
                columns = self.query(f"PRAGMA table_info({quoted(name)})")  # leaves computed columns out
                found[name] = tuple(str(column[1]) for column in columns)
        return found


def open_sqlite(path: Path) -> SqliteFile:
    """The file, read where it lies, or as a copy where its newest changes can only be read by writing."""
    with contextlib.ExitStack() as cleanup:
        try:
            connection = _connected(path, cleanup)
        except SamovarError as error:
            if not isinstance(error.__cause__, sqlite3.OperationalError):
                raise
            folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="samovar-import-"))
            connection = _connected(_copied(path, Path(folder)), cleanup, is_copy=True)
        return SqliteFile(connection, cleanup.pop_all())


def quoted(name: str) -> str:
    """The name as an identifier of SQL."""
    return '"' + name.replace('"', '""') + '"'


def text(value: object) -> str:
    """A column as a text, whatever type it was stored with; NULL is an empty one."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return "" if value is None else str(value)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn SQLite's errors into the end of a sentence."""
    try:
        yield
    except UnicodeDecodeError as error:  # of SQLite's own message, which names a part of the file
        raise SamovarError("the database is damaged") from error
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
            reason = f"the database is damaged ({error})"
        elif name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            reason = "another program keeps it locked"
        elif name.startswith("SQLITE_TOOBIG"):
            reason = "a value in it is too large"
        else:
            reason = f"the database cannot be read ({error})"
        raise SamovarError(reason) from error


def _connected(path: Path, cleanup: contextlib.ExitStack, *, is_copy: bool = False) -> sqlite3.Connection:
    how = "mode=rw" if is_copy else "mode=ro"
    if not is_copy and _is_wal_at_rest(path):
        how = "immutable=1"  # reading it in another way would make files beside it
    with explained():
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?{how}", uri=True, timeout=_BUSY_TIMEOUT_S, check_same_thread=False
        )
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            connection.text_factory = lambda data: data.decode(errors="replace")
            for setting in (
                "trusted_schema = OFF",
                "cell_size_check = ON",
                "mmap_size = 0",
                "query_only = ON",
            ):
                connection.execute(f"PRAGMA {setting}").fetchall()
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except BaseException:
            connection.close()
            raise
    cleanup.callback(connection.close)
    return connection


def _is_wal_at_rest(path: Path) -> bool:
    """Whether the file is in WAL mode and no other program has it open or left changes beside it."""
    with open(path, "rb") as file:
        header = file.read(20)
    wal = path.with_name(path.name + "-wal")
    return len(header) == 20 and header[19] == _WAL_VERSION and not (wal.exists() and wal.stat().st_size)


def _copied(path: Path, folder: Path) -> Path:
    copy = folder / "copy.db"
    shutil.copyfile(path, copy)
    for suffix in _ASIDE:
        beside = path.with_name(path.name + suffix)
        if beside.is_file():
            shutil.copyfile(beside, folder / f"copy.db{suffix}")
    return copy

"""Files of chats of any version, and what happens to them: made with plain SQL, beside the store."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from samovar.sessions import schema
from samovar.sessions.attachments import digest_of
from samovar.sessions.connection import register

ROW: Final = "SELECT id, session_id, parent_id, role, content, created_at, state FROM messages"
NOON: Final = 1_795_000_000.0

Row = tuple[Any, ...]


def plain(path: Path) -> "contextlib.closing[sqlite3.Connection]":
    """A connection that knows the functions of the schema and nothing else."""
    connection = sqlite3.connect(path, isolation_level=None)
    register(connection)
    return contextlib.closing(connection)


def make_file(path: Path, num_chats: int = 50, version: int = schema.SCHEMA_VERSION, words: int = 40) -> None:
    """Chats of 2 to 13 messages, some with a branch, some so long that they need pages of their own."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with plain(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN")
        for statements in schema.MIGRATIONS[:version]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {version}")
        add_chats(connection, 0, num_chats, words)
        if version > 1:
            _add_newer_rows(connection, num_chats)
        if version > 2:
            connection.execute(
                "INSERT INTO compactions (session_id, upto_id, created_at, summary, num_messages,"
                " tokens_before, tokens_after) SELECT session_id, min(id) + 1, created_at, 'They talked.',"
                " 2, 300, 20 FROM messages GROUP BY session_id"
            )
        connection.execute("COMMIT")
    path.chmod(0o600)


def add_chats(connection: sqlite3.Connection, first: int, num_chats: int, words: int = 40) -> None:
    """Chats number `first` and following."""
    for number in range(first, first + num_chats):
        chat = f"chat-{number:04}"
        connection.execute(
            "INSERT INTO sessions (id, title, system_prompt, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
            (chat, f"title {number}", "Be brief." * (number % 3), NOON + number, NOON + number + 0.5),
        )
        parent = None
        for index in range(2 + number % 12):
            text = f"{chat} message {index}: " + " ".join(f"word{number * index + n}" for n in range(words))
            parent = connection.execute(
                "INSERT INTO messages (session_id, parent_id, role, content, created_at, state, tokens)"
                " VALUES (?, ?, ?, ?, ?, 'complete', ?)",
                (
                    chat,
                    parent,
                    ("user", "assistant")[index % 2],
                    text * (30 if number % 10 == 9 and index == 1 else 1),
                    NOON + number + index / 100,
                    bytes(4 * index),
                ),
            ).lastrowid
        connection.execute("UPDATE sessions SET head_id = ? WHERE id = ?", (parent, chat))


def _add_newer_rows(connection: sqlite3.Connection, num_chats: int) -> None:
    for number in range(num_chats):
        chat = f"chat-{number:04}"
        connection.execute("INSERT INTO tags VALUES (?, ?)", (chat, f"tag{number % 5}"))
        connection.execute("UPDATE sessions SET revision = ? WHERE id = ?", (number + 1, chat))
        if number % 4 == 0:
            text = f"file of {chat}\n" * 20
            connection.execute("INSERT INTO files VALUES (?, ?)", (digest_of(text), text))
            connection.execute(
                "UPDATE messages SET attachments = ? WHERE session_id = ? AND parent_id IS NULL",
                (f'[{{"name":"a.txt","digest":"{digest_of(text)}"}}]', chat),
            )
    connection.execute("INSERT INTO drafts VALUES ('chat-0001', 1, 2.0, 'half a sentence', ?)", (NOON,))
    connection.execute("UPDATE counters SET value = ?", (num_chats,))
    connection.execute(schema.MIGRATIONS[1][-1])


def rows(path: Path, sql: str = f"{ROW} ORDER BY id") -> list[Row]:
    with plain(path) as connection:
        return connection.execute(sql).fetchall()


def is_sound(path: Path) -> bool:
    """Whether SQLite, its search index included, and all references are in order."""
    with plain(path) as connection:
        connection.execute("INSERT INTO messages_fts (messages_fts) VALUES ('integrity-check')")
        (result,) = connection.execute("PRAGMA integrity_check").fetchone()
        return bool(result == "ok") and not connection.execute("PRAGMA foreign_key_check").fetchall()


def overwrite(path: Path, pos: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(pos)
        file.write(content)


def files_of(folder: Path, pattern: str = "*") -> list[str]:
    return sorted(file.name for file in folder.glob(pattern))


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that runs this code, with `Path`, `open_database` and the like at hand."""
    head = """
        import os, signal, sys, time
        from pathlib import Path
        from samovar.core.errors import SamovarError
        from samovar.sessions import backup, repair
        from samovar.sessions.database import open_database
    """
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            textwrap.dedent(head) + textwrap.dedent(code),
            *(str(argument) for argument in arguments),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@contextlib.contextmanager
def mounted(folder: Path, *arguments: str) -> Iterator[Path]:
    """Something mounted on a folder; skips the test where nothing may be mounted."""
    folder.mkdir(exist_ok=True)
    command = ["mount", *arguments, str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def without_write_access(folder: Path) -> Iterator[Path]:
    """The same folder at another place, where nothing can be written, not even by root."""
    other = folder.with_name(f"{folder.name}-read-only")
    with mounted(other, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(other)], check=True, capture_output=True)
        yield other

"""All that a file of chats holds, as a value, and what must be true of it whatever has happened."""

import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from samovar.sessions.settings import SessionSettings
from samovar.sessions.words import searchable

STREAMING: Final = "streaming"


class SessionRow(msgspec.Struct, frozen=True):
    """A row of `sessions` with its tags."""

    id: str
    title: str
    system_prompt: str
    settings: SessionSettings
    tags: tuple[str, ...]
    is_favourite: bool
    is_archived: bool
    is_deleted: bool
    head: int | None
    source: str


class MessageRow(msgspec.Struct, frozen=True):
    """A row of `messages`."""

    id: int
    session: str
    parent: int | None
    role: str
    content: str
    state: str
    is_deleted: bool


@dataclass(slots=True)
class Picture:
    """All chats but those of imports that have not ended."""

    sessions: dict[str, SessionRow] = field(default_factory=dict)
    messages: dict[int, MessageRow] = field(default_factory=dict)


def connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def check_file(db: sqlite3.Connection) -> None:
    """The file is sound, and nothing of an import that has not ended can be seen. Holds at any moment."""
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    seen = "SELECT count(*) FROM sessions WHERE import_id IS NOT NULL AND deleted_at IS NULL"
    assert db.execute(seen).fetchall() == [(0,)], "a part of an import can be seen"


def read(db: sqlite3.Connection) -> Picture:
    """The picture of a store that all imports have left; what is wrong by itself is found here."""
    assert db.execute("SELECT count(*) FROM imports").fetchall() == [(0,)], "a dead import is still there"
    assert db.execute("SELECT count(*) FROM sessions WHERE import_id IS NOT NULL").fetchall() == [(0,)]
    picture = Picture()
    for session, settings, tags, *rest in db.execute(
        "SELECT id, settings, (SELECT group_concat(tag, char(10)) FROM tags WHERE session_id = sessions.id),"
        " title, system_prompt, is_favourite, is_archived, deleted_at IS NOT NULL, head_id, source"
        " FROM sessions"
    ):
        title, system_prompt, favourite, archived, deleted, head, source = rest
        picture.sessions[session] = SessionRow(
            *(session, title, system_prompt, msgspec.json.decode(settings, type=SessionSettings)),
            *(tuple(sorted(tags.split("\n"))) if tags else (), bool(favourite), bool(archived)),
            *(bool(deleted), head, source),
        )
    for message, session, parent, role, content, state, deleted in db.execute(
        "SELECT id, session_id, parent_id, role, content, state, deleted_at IS NOT NULL FROM messages"
    ):
        picture.messages[message] = MessageRow(message, session, parent, role, content, state, bool(deleted))
    _check_trees(picture)
    _check_index(db, picture)
    return picture


def _check_trees(picture: Picture) -> None:
    for message in picture.messages.values():
        assert message.state != STREAMING, f"{message} is being written by nobody"
        if message.parent is not None:
            parent = picture.messages[message.parent]
            assert parent.id < message.id
            assert parent.session == message.session
    for session in picture.sessions.values():
        here = session.head
        while here is not None:
            message = picture.messages[here]
            assert message.session == session.id
            assert not message.is_deleted, f"{session} shows {message}, which is deleted"
            here = message.parent


def _check_index(db: sqlite3.Connection, picture: Picture) -> None:
    """The search knows the words of every message that has ended, and of no other."""
    db.execute("INSERT INTO messages_fts (messages_fts) VALUES ('integrity-check')")
    sizes = {
        message_id: _first_varint(blob)
        for message_id, blob in db.execute("SELECT id, sz FROM messages_fts_docsize")
    }
    wanted = {m.id: len(searchable(m.content).split()) for m in picture.messages.values() if m.content}
    assert sizes == wanted, "the search knows other messages than there are"


def check_words(db: sqlite3.Connection, picture: Picture) -> None:
    """As many messages have each word in the index as in the texts. Takes seconds in a large store."""
    db.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab (main, messages_fts, row)")
    found = {word: (docs, total) for word, docs, total in db.execute("SELECT * FROM temp.vocabulary")}
    db.execute("DROP TABLE temp.vocabulary")
    docs, total = Counter[str](), Counter[str]()
    for message in picture.messages.values():
        words = [word.lower() for word in searchable(message.content).split()]
        total.update(words)
        docs.update(set(words))
    assert found == {word: (docs[word], total[word]) for word in docs}


def _first_varint(blob: bytes) -> int:
    value = 0
    for byte in blob:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            break
    return value

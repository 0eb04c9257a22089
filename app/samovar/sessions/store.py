"""The store of chats. Whatever a method has stored when it returns survives a kill or a power cut.

Synchronous; one thread at a time uses a Store (the TUI's worker, or a command). Several processes may have
the same file open. Chats are this module's, their messages `messages`', their summaries
`compactions`', drafts `drafts`', whole chats in and out `exchange`'s.
"""

import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from samovar.core.errors import SamovarError
from samovar.sessions import schema
from samovar.sessions.compactions import Compactions
from samovar.sessions.database import Database, open_database
from samovar.sessions.drafts import Drafts
from samovar.sessions.encoding import storable
from samovar.sessions.exchange import Exchange
from samovar.sessions.lookup import MIN_ID_PREFIX, ChatName
from samovar.sessions.messages import Messages, no_chat
from samovar.sessions.query import parse
from samovar.sessions.rows import encode_settings, keep_files, session_of
from samovar.sessions.search import SearchResults, search
from samovar.sessions.settings import SessionSettings
from samovar.sessions.tags import tag_of
from samovar.sessions.values import Attachment, MessageState, Session, StoredMessage

__all__ = ["MessageState", "Session", "Store", "StoredMessage"]

KEEP_DELETED_S: Final = 30 * 86_400.0
_NO_SETTINGS: Final = SessionSettings()


def wall_clock() -> float:
    """Seconds since the epoch in whole milliseconds, which every format of a file can hold as a date."""
    return round(time.time(), 3)


class Store:
    """All chats of a user. Every method raises SamovarError when the database cannot do it."""

    def __init__(self, database: Database, clock: Callable[[], float] = wall_clock) -> None:
        """`open` is the usual way in. `clock` gives seconds since the epoch."""
        self._db = database
        self._clock = clock
        self.messages = Messages(database, clock, self._touch)
        self.compactions = Compactions(database, clock, self._touch)
        self.drafts = Drafts(database, clock)
        self.exchange = Exchange(database, clock, self._touch)

    @classmethod
    def open(cls, path: Path, clock: Callable[[], float] = wall_clock) -> "Store":
        """The store in this file, made (0600) if it is new and brought up to date if it is older."""
        return cls(open_database(path), clock)

    @property
    def file(self) -> Path:
        """Where it lies."""
        return self._db.path

    @property
    def read_only(self) -> str:
        """Why nothing can be stored; empty if something can."""
        return self._db.read_only

    @property
    def trouble(self) -> str:
        """What the user has to know of the opening: damage repaired, or why nothing can be stored."""
        repaired = self._db.repaired
        return " ".join(filter(None, (repaired.sentence if repaired else "", self._db.read_only)))

    @property
    def needs_check(self) -> bool:
        """Whether the file was too big to be checked on opening."""
        return self._db.needs_check

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._db.close()

    def transaction(self) -> AbstractContextManager[None]:
        """What is stored within is there as a whole or not at all. Nobody else can write meanwhile."""
        return self._db.transaction()

    # Chats

    def sessions(self) -> list[Session]:
        """All chats that are not deleted, the most recently updated first."""
        return self._select("WHERE deleted_at IS NULL ORDER BY updated_at DESC, rowid DESC")

    def changed_since(self, revision: int) -> list[Session]:
        """The chats that have changed since this revision, deleted ones too."""
        return self._select("WHERE revision > ? AND import_id IS NULL ORDER BY revision", revision)

    def session(self, session_id: str) -> Session:
        """The chat with this id; raises SamovarError if there is none or it is deleted."""
        found = self._select("WHERE deleted_at IS NULL AND id = ?", storable(session_id))
        if not found:
            raise no_chat(session_id)
        return found[0]

    def find(self, name: str) -> Session | None:
        """The chat that a user means: by id, by title (the latest of several), or by the beginning of an id.

        A beginning has at least `MIN_ID_PREFIX` characters and fits one chat only.
        """
        name = storable(name)
        if not name:
            return None
        for condition in ("id = ?", "title = ? ORDER BY updated_at DESC, rowid DESC LIMIT 1"):
            found = self._select(f"WHERE deleted_at IS NULL AND {condition}", name)
            if found:
                return found[0]
        if len(name) < MIN_ID_PREFIX:
            return None
        found = self._select("WHERE deleted_at IS NULL AND substr(id, 1, ?) = ? LIMIT 2", len(name), name)
        return found[0] if len(found) == 1 else None

    def names(self, *, deleted: bool = False) -> list[ChatName]:
        """All chats by id and title, or those that are deleted and can be brought back; the latest first."""
        condition, order = (
            ("IS NOT NULL", "deleted_at DESC, revision") if deleted else ("IS NULL", "updated_at DESC, rowid")
        )
        rows = self._db.rows(
            f"SELECT id, title FROM sessions WHERE deleted_at {condition} AND import_id IS NULL"
            f" ORDER BY {order} DESC"
        )
        return [ChatName(session_id, title) for session_id, title in rows]

    def search(self, text: str, limit: int = 50) -> SearchResults:
        """What the user's query finds, at most `limit`. While one types, a `Searcher` does it beside."""
        now = self._clock()
        return search(self._db, parse(text, now), now=now, limit=limit)

    def create_session(
        self,
        title: str = "",
        system_prompt: str = "",
        session_id: str | None = None,
        settings: SessionSettings | None = None,
    ) -> Session:
        """A new, empty chat. A `session_id` that is taken, also by a deleted chat, raises SamovarError."""
        new_id = uuid.uuid4().hex if session_id is None else storable(session_id)
        if not new_id:
            raise SamovarError("A chat's id cannot be empty. Leave it out to get a new one.")
        with self._db.transaction():
            return self._insert(new_id, title, system_prompt, settings or _NO_SETTINGS)

    def find_or_create(self, name: str, system_prompt: str = "") -> Session:
        """The chat that `find` finds, else a new one of that title; two processes get the same one."""
        with self._db.transaction():
            return self.find(name) or self._insert(uuid.uuid4().hex, name, system_prompt, _NO_SETTINGS)

    def rename(self, session_id: str, title: str, *, instead_of: str | None = None) -> None:
        """Give a chat another title; with `instead_of`, only while that is its title."""
        with self._db.transaction():
            now = self._db.rows("SELECT title FROM sessions WHERE id = ?", storable(session_id))
            if instead_of is None or now == [(storable(instead_of),)]:
                self._update(session_id, "title", storable(title))

    def set_system_prompt(self, session_id: str, text: str) -> None:
        self._update(session_id, "system_prompt", storable(text))

    def set_settings(self, session_id: str, settings: SessionSettings) -> None:
        self._update(session_id, "settings", encode_settings(settings))

    def set_favourite(self, session_id: str, *, is_favourite: bool) -> None:
        self._update(session_id, "is_favourite", int(is_favourite))

    def set_archived(self, session_id: str, *, is_archived: bool) -> None:
        self._update(session_id, "is_archived", int(is_archived))

    def set_tags(self, session_id: str, tags: Iterable[str]) -> None:
        """Make these the chat's tags (see `tag_of`)."""
        with self._db.transaction():
            self._db.change("DELETE FROM tags WHERE session_id = ?", session_id)
            for tag in sorted({tag_of(tag) for tag in tags}):
                self._db.insert("INSERT INTO tags (session_id, tag) VALUES (?, ?)", session_id, tag)
            self._touch(session_id)

    def path(self, session_id: str) -> list[StoredMessage]:
        """The messages that are shown: from the first one to the head."""
        return self.messages.path_to(self.session(session_id).head_id)

    def delete(self, session_id: str) -> None:
        """Take the chat from the list; `restore` brings it back as it was."""
        self._update(session_id, "deleted_at", self._clock())

    def restore(self, session_id: str) -> None:
        self._update(session_id, "deleted_at", None)

    def purge(self, should_stop: Callable[[], bool] = lambda: False) -> int:
        """Remove what was deleted more than 30 days ago for good, chats and branches; returns how many.

        Texts of files go with the last message or draft that names them. What is left when `should_stop` says
        so goes another time.
        """
        before = self._clock() - KEEP_DELETED_S
        rows = self._db.rows(
            "SELECT id FROM sessions WHERE deleted_at < ? AND import_id IS NULL LIMIT 1000", before
        )
        num_removed = 0
        for (session_id,) in rows:
            if should_stop():
                return num_removed
            self.exchange.remove(session_id)
            num_removed += 1
        num_removed += self.exchange.remove_branches(before, should_stop)
        if not should_stop():
            self.exchange.remove_files()
        return num_removed

    def fork(self, session_id: str, message_id: int, title: str) -> Session:
        """A new chat that begins as this one does, up to and with this message."""
        with self._db.transaction():
            origin = self.session(session_id)
            fork = self._insert(uuid.uuid4().hex, title, origin.system_prompt, origin.settings)
            for tag in origin.tags:
                self._db.insert("INSERT INTO tags (session_id, tag) VALUES (?, ?)", fork.id, tag)
            self.messages.copy_path(message_id, fork.id)
            return self.session(fork.id)

    def keep_pastes(self, pastes: Iterable[Attachment]) -> None:
        """Keep the texts of pastes that a draft names, so that the draft is whole after a restart."""
        with self._db.transaction():
            keep_files(self._db, pastes)

    def paste(self, digest_prefix: str) -> tuple[str, str] | None:
        """The text kept under a digest that begins so, as (digest, text); None unless it is one."""
        rows = self._db.rows(
            "SELECT digest, text FROM files WHERE digest >= ? AND digest < ? LIMIT 2",
            *(digest_prefix, digest_prefix + "\uffff"),
        )
        return rows[0] if len(rows) == 1 and digest_prefix else None

    def outside_version(self) -> int:
        """A number that is another one after another connection has changed the store; nearly free."""
        return int(self._db.rows("PRAGMA data_version")[0][0])

    def recover(self) -> int:
        """Settle what processes that no longer live have left: replies (how many is returned), imports."""
        self.exchange.drop_dead_imports()
        return self.messages.recover()

    # Inside

    def _select(self, rest: str, *values: object) -> list[Session]:
        return [session_of(row) for row in self._db.rows(f"{schema.SELECT_SESSION} {rest}", *values)]

    def _insert(self, session_id: str, title: str, system_prompt: str, settings: SessionSettings) -> Session:
        """Within a transaction."""
        if self._db.rows("SELECT 1 FROM sessions WHERE id = ?", session_id):
            raise SamovarError(f'A chat with the id "{session_id}" is there already. Choose another id.')
        now = self._clock()
        self._db.insert(
            "INSERT INTO sessions (id, title, system_prompt, created_at, updated_at, settings)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            *(session_id, storable(title), storable(system_prompt), now, now, encode_settings(settings)),
        )
        self._touch(session_id)
        return self.session(session_id)

    def _update(self, session_id: str, column: str, value: object) -> None:
        """Set one column of a chat, deleted ones included."""
        session_id = storable(session_id)
        with self._db.transaction():
            if self._db.change(f"UPDATE sessions SET {column} = ? WHERE id = ?", value, session_id) == 0:
                raise no_chat(session_id)
            self._touch(session_id)

    def _touch(self, session_id: str) -> None:
        """Within a transaction: give the chat the next revision."""
        self._db.change("UPDATE counters SET value = value + 1 WHERE name = 'revision'")
        self._db.change(
            "UPDATE sessions SET revision = (SELECT value FROM counters WHERE name = 'revision')"
            " WHERE id = ?",
            session_id,
        )

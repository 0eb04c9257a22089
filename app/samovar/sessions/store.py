"""The store of chats. Whatever a method has stored when it returns survives a kill or a power cut.

Synchronous; one thread at a time uses a Store (the TUI's worker, or a command). Several processes may have
the same file open.
"""

import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.request import RequestStats
from samovar.sessions import schema
from samovar.sessions.database import Database, damaged, open_database
from samovar.sessions.encoding import decode_stats, encode_stats, pack_tokens, storable, unpack_tokens
from samovar.sessions.owner import Owner, this_process
from samovar.sessions.values import MessageState, Session, StoredMessage

__all__ = ["MessageState", "Session", "Store", "StoredMessage"]

MIN_ID_PREFIX: Final = 4  # shorter ones would take a title for the start of an id


class Store:
    """All chats of a user. Every method raises SamovarError when the database cannot do it."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        """`open` is the usual way in. `clock` gives seconds since the epoch."""
        self._db = database
        self._clock = clock

    @classmethod
    def open(cls, path: Path, clock: Callable[[], float] = time.time) -> "Store":
        """The store in this file, made (0600) if it is new and brought up to date if it is older."""
        return cls(open_database(path), clock)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._db.close()

    # Sessions

    def sessions(self) -> list[Session]:
        """All chats that are not deleted, the most recently updated first."""
        return self._select_sessions("ORDER BY updated_at DESC, rowid DESC")

    def session(self, session_id: str) -> Session:
        """The chat with this id; raises SamovarError if there is none or it is deleted."""
        found = self._select_sessions("AND id = ?", storable(session_id))
        if not found:
            raise SamovarError(
                f'There is no chat "{storable(session_id)}" (any more). Choose another one from the list.'
            )
        return found[0]

    def find(self, name: str) -> Session | None:
        """The chat that a user means: by id, by title (the latest of several), or by the beginning of an id.

        A beginning has at least `MIN_ID_PREFIX` characters and fits one chat only.
        """
        name = storable(name)
        if not name:
            return None
        for condition in ("AND id = ?", "AND title = ? ORDER BY updated_at DESC, rowid DESC LIMIT 1"):
            found = self._select_sessions(condition, name)
            if found:
                return found[0]
        if len(name) < MIN_ID_PREFIX:
            return None
        found = self._select_sessions("AND substr(id, 1, ?) = ? LIMIT 2", len(name), name)
        return found[0] if len(found) == 1 else None

    def create_session(
        self, title: str = "", system_prompt: str = "", session_id: str | None = None
    ) -> Session:
        """A new, empty chat. A `session_id` that is taken, also by a deleted chat, raises SamovarError."""
        new_id = uuid.uuid4().hex if session_id is None else storable(session_id)
        if not new_id:
            raise SamovarError("A chat's id cannot be empty. Leave it out to get a new one.")
        with self._db.transaction():
            return self._insert_session(new_id, title, system_prompt)

    def find_or_create(self, name: str, system_prompt: str = "") -> Session:
        """The chat that `find` finds, else a new one of that title; two processes get the same one."""
        with self._db.transaction():
            return self.find(name) or self._insert_session(uuid.uuid4().hex, name, system_prompt)

    def rename(self, session_id: str, title: str) -> None:
        self._update_session(session_id, "title", storable(title))

    def set_system_prompt(self, session_id: str, text: str) -> None:
        self._update_session(session_id, "system_prompt", storable(text))

    def delete(self, session_id: str) -> None:
        """Take the chat from the list; `restore` brings it back as it was."""
        self._update_session(session_id, "deleted_at", self._clock())

    def restore(self, session_id: str) -> None:
        self._update_session(session_id, "deleted_at", None)

    # Messages

    def path(self, session_id: str) -> list[StoredMessage]:
        """The messages that are shown: from the first one to the head."""
        return self.path_to(self.session(session_id).head_id)

    def path_to(self, message_id: int | None) -> list[StoredMessage]:
        """The messages from the first one to this one; none for None."""
        return [self._message(row) for row in self._db.rows(schema.SELECT_PATH, message_id)]

    def add_message(
        self,
        session_id: str,
        role: Role,
        content: str,
        *,
        state: MessageState = MessageState.COMPLETE,
        parent_id: int | UnsetType | None = UNSET,
    ) -> StoredMessage:
        """Add a message below `parent_id` (None: as a first message; left out: below the head).

        It becomes the head. It is on disk when this returns. A STREAMING message belongs to this process
        until `finish_reply`.
        """
        with self._db.transaction():
            return self._insert_message(session_id, role, content, state, parent_id)

    def add_turn(self, session_id: str, content: str) -> tuple[StoredMessage, StoredMessage]:
        """Add a user's message below the head, and below it an empty STREAMING reply: both or neither.

        Since nobody can come between the two, what others add meanwhile hangs below the reply.
        """
        with self._db.transaction():
            message = self._insert_message(session_id, Role.USER, content, MessageState.COMPLETE, UNSET)
            reply = self._insert_message(session_id, Role.ASSISTANT, "", MessageState.STREAMING, message.id)
            return message, reply

    def add_reply(self, session_id: str, parent_id: int, head_id: int | None) -> StoredMessage | None:
        """Add an empty STREAMING reply below `parent_id`; None if `head_id` is no longer the chat's head."""
        with self._db.transaction():
            if self.session(session_id).head_id != head_id:
                return None
            return self._insert_message(session_id, Role.ASSISTANT, "", MessageState.STREAMING, parent_id)

    def update_reply(self, message_id: int, content: str) -> None:
        """Store what has arrived so far of a reply that is streaming."""
        with self._db.transaction():
            self._update_message(message_id, {"content": storable(content)})

    def finish_reply(
        self,
        message_id: int,
        content: str,
        state: MessageState,
        *,
        tokens: Iterable[int] = (),
        tokenizer: str = "",
        stats: RequestStats | None = None,
        error: str = "",
    ) -> None:
        """Store a reply as it ended, with the generated token ids and what it cost."""
        assert state is not MessageState.STREAMING
        with self._db.transaction():
            self._update_message(
                message_id,
                {
                    "content": storable(content),
                    "state": state.value,
                    "tokens": pack_tokens(tokens),
                    "tokenizer": storable(tokenizer),
                    "stats": None if stats is None else encode_stats(stats),
                    "error": storable(error),
                    "owner_pid": None,
                    "owner_started": None,
                },
            )
            self._db.change(
                "UPDATE sessions SET updated_at = ?"
                " WHERE id = (SELECT session_id FROM messages WHERE id = ?)",
                *(self._clock(), message_id),
            )

    def recover(self) -> int:
        """Mark as STOPPED what processes that no longer live were writing; returns how many replies."""
        streaming = "SELECT DISTINCT owner_pid, owner_started FROM messages WHERE state = 'streaming'"
        num_recovered = 0
        with self._db.transaction():
            for pid, started in self._db.rows(streaming):
                if pid is not None and Owner(pid=pid, started=started or 0.0).is_alive():
                    continue
                num_recovered += self._db.change(
                    "UPDATE messages SET state = 'stopped', owner_pid = NULL, owner_started = NULL"
                    " WHERE state = 'streaming' AND owner_pid IS ? AND owner_started IS ?",
                    *(pid, started),
                )
        return num_recovered

    def outside_version(self) -> int:
        """A number that is another one after another connection has changed the store; nearly free."""
        return int(self._db.rows("PRAGMA data_version")[0][0])

    # Inside

    def _select_sessions(self, rest: str, *values: object) -> list[Session]:
        return [Session(*row) for row in self._db.rows(f"{schema.SELECT_SESSION} {rest}", *values)]

    def _insert_session(self, session_id: str, title: str, system_prompt: str) -> Session:
        """Within a transaction."""
        if self._db.rows("SELECT 1 FROM sessions WHERE id = ?", session_id):
            raise SamovarError(f'A chat with the id "{session_id}" is there already. Choose another id.')
        now = self._clock()
        self._db.insert(
            "INSERT INTO sessions (id, title, system_prompt, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
            *(session_id, storable(title), storable(system_prompt), now, now),
        )
        return self.session(session_id)

    def _insert_message(
        self,
        session_id: str,
        role: Role,
        content: str,
        state: MessageState,
        parent_id: int | UnsetType | None,
    ) -> StoredMessage:
        """Within a transaction; the message becomes the head."""
        owner = this_process() if state is MessageState.STREAMING else None
        now = self._clock()
        session = self.session(session_id)
        parent = session.head_id if parent_id is UNSET else parent_id
        if parent is not None and self._message_by_id(parent).session_id != session.id:
            raise SamovarError("The message to answer belongs to another chat. Open that chat first.")
        message_id = self._db.insert(
            "INSERT INTO messages"
            " (session_id, parent_id, role, content, created_at, state, owner_pid, owner_started)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *(session.id, parent, role.value, storable(content), now, state.value),
            *((owner.pid, owner.started) if owner else (None, None)),
        )
        self._db.change(
            "UPDATE sessions SET head_id = ?, updated_at = ? WHERE id = ?", message_id, now, session.id
        )
        return self._message_by_id(message_id)

    def _update_session(self, session_id: str, column: str, value: object) -> None:
        """Set one column of a chat, deleted ones included."""
        with self._db.transaction():
            update = f"UPDATE sessions SET {column} = ? WHERE id = ?"
            if self._db.change(update, value, storable(session_id)) == 0:
                self.session(session_id)  # raises

    def _message_by_id(self, message_id: int) -> StoredMessage:
        rows = self._db.rows(f"SELECT {schema.MESSAGE_COLUMNS} FROM messages AS m WHERE m.id = ?", message_id)
        if not rows:
            raise _no_message(message_id)
        return self._message(rows[0])

    def _update_message(self, message_id: int, values: dict[str, object]) -> None:
        assignments = ", ".join(f"{column} = ?" for column in values)
        update = f"UPDATE messages SET {assignments} WHERE id = ?"
        if self._db.change(update, *values.values(), message_id) == 0:
            raise _no_message(message_id)

    def _message(self, row: tuple[Any, ...]) -> StoredMessage:
        values = dict(zip(StoredMessage.__struct_fields__, row, strict=True))
        values["tokens"] = unpack_tokens(values["tokens"])
        values["stats"] = decode_stats(values["stats"])
        try:
            return msgspec.convert(values, StoredMessage)
        except msgspec.ValidationError as error:
            raise damaged(self._db.path, str(error)) from error


def _no_message(message_id: int) -> SamovarError:
    return SamovarError(f"There is no message {message_id} (any more). Open the chat again.")

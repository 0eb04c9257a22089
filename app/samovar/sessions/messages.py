"""Messages of one chat's tree: read, added, changed, taken away. A part of `Store`.

    m1 ─ r1 ─ m2 ─ r2 ─ m3 ─ r3     the shown path ends at the head
          └── m2'─ r2'              an edited m2, with its reply: the other branch stays
                └─ r2"              the same question answered again

Nothing is ever overwritten but a reply that still streams: an edit adds a sibling, a deletion marks.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from msgspec import UNSET, UnsetType

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.request import RequestStats
from samovar.sessions import schema
from samovar.sessions.database import Database
from samovar.sessions.encoding import encode_stats, pack_tokens, storable
from samovar.sessions.owner import Owner, this_process
from samovar.sessions.rows import encode_attachments, keep_files, messages_of
from samovar.sessions.search import index_message, unindex_message
from samovar.sessions.values import Attachment, MessageState, StoredMessage

_CHUNK: Final = 256  # messages read at once on the way up
_ID: Final = re.compile("[0-9a-f]{32}")


class Messages:
    """Every method raises SamovarError when the database cannot do it."""

    def __init__(self, database: Database, clock: Callable[[], float], touch: Callable[[str], None]) -> None:
        """`touch` says, within a transaction, that a chat has changed."""
        self._db = database
        self._clock = clock
        self._touch = touch

    # Reading

    def path_to(self, message_id: int | None) -> list[StoredMessage]:
        """The messages from the first one to this one; none for None."""
        return messages_of(self._db, self._db.rows(schema.SELECT_PATH, message_id))

    def end_of_path(self, message_id: int | None, num_messages: int) -> list[StoredMessage]:
        """The last `num_messages` of `path_to`, for a first look at a long chat."""
        return messages_of(self._db, self._db.rows(schema.SELECT_PATH_END, message_id, num_messages))

    def path_from(
        self, message_id: int | None, known: Sequence[StoredMessage]
    ) -> tuple[int, list[StoredMessage]]:
        """What differs from a path read earlier: how many of its messages still stand, and those after them.

        A known message that was still streaming is read again, and what follows it; so is one at the end that
        another window has gone on with. Costs what is new, not what is long.
        """
        streaming = (i for i, message in enumerate(known) if message.state is MessageState.STREAMING)
        num_final = next(streaming, len(known))
        places = {message.id: place for place, message in enumerate(known[:num_final])}
        found: list[StoredMessage] = []
        here = message_id
        num_wanted = 2
        while here is not None:
            for message in reversed(self.end_of_path(here, num_wanted)):
                place = places.get(message.id)
                if place is not None and _stands(known[place], message):
                    return place + 1, found[::-1]
                found.append(message)
                here = message.parent_id
            if not found:  # a damaged file names a message that is not there
                break
            num_wanted = _CHUNK
        return 0, found[::-1]

    def message(self, message_id: int) -> StoredMessage:
        """Raises SamovarError if there is no such message."""
        rows = self._db.rows(f"SELECT {schema.MESSAGE_COLUMNS} FROM messages AS m WHERE m.id = ?", message_id)
        if not rows:
            raise _no_message(message_id)
        return messages_of(self._db, rows)[0]

    def siblings(self, message_id: int) -> list[int]:
        """The ids of all messages below the same parent, this one among them, the oldest first.

        Raises SamovarError if it has been deleted.
        """
        rows = self._db.rows(
            "SELECT s.id FROM messages AS m JOIN messages AS s"
            " ON s.session_id = m.session_id AND s.parent_id IS m.parent_id"
            " WHERE m.id = ? AND s.deleted_at IS NULL ORDER BY s.id",
            message_id,
        )
        ids = [found for (found,) in rows]
        if message_id not in ids:
            raise _deleted_message()
        return ids

    def newest_leaf(self, message_id: int) -> int:
        """Where the newest branch below a message ends; the message itself if nothing follows it."""
        return int(self._db.rows(schema.SELECT_NEWEST_LEAF, message_id)[0][0])

    # Adding

    def add(
        self,
        session_id: str,
        role: Role,
        content: str,
        *,
        state: MessageState = MessageState.COMPLETE,
        parent_id: int | UnsetType | None = UNSET,
        attachments: Sequence[Attachment] = (),
    ) -> StoredMessage:
        """Add a message below `parent_id` (None: as a first message; left out: below the head).

        It becomes the head. It is on disk when this returns. A STREAMING message belongs to this process
        until `finish`. Raises SamovarError if the parent has been deleted.
        """
        with self._db.transaction():
            self._check_stands(parent_id)
            return self._insert(session_id, role, content, state, parent_id, attachments)

    def add_turn(
        self,
        session_id: str,
        content: str,
        *,
        parent_id: int | UnsetType | None = UNSET,
        attachments: Sequence[Attachment] = (),
    ) -> tuple[StoredMessage, StoredMessage]:
        """Add a user's message and below it an empty STREAMING reply: both or neither.

        Since nobody can come between the two, what others add meanwhile hangs below the reply. With a
        `parent_id` that has other messages below it, this begins another branch: an edit. Raises SamovarError
        if the parent has been deleted.
        """
        with self._db.transaction():
            self._check_stands(parent_id)
            message = self._insert(
                session_id, Role.USER, content, MessageState.COMPLETE, parent_id, attachments
            )
            reply = self._insert(session_id, Role.ASSISTANT, "", MessageState.STREAMING, message.id)
            return message, reply

    def add_reply(self, session_id: str, parent_id: int, head_id: int | None) -> StoredMessage | None:
        """Add an empty STREAMING reply below `parent_id`; None if `head_id` is no longer the chat's head.

        Raises SamovarError if the parent has been deleted.
        """
        with self._db.transaction():
            if self._head(session_id) != head_id:
                return None
            self._check_stands(parent_id)
            return self._insert(session_id, Role.ASSISTANT, "", MessageState.STREAMING, parent_id)

    def set_attachments(self, message_id: int, attachments: Sequence[Attachment]) -> None:
        """Store what has become known of a message's files, but for their texts."""
        with self._db.transaction():
            self._update(message_id, {"attachments": encode_attachments(attachments)})

    # Replies

    def update_reply(self, message_id: int, content: str) -> None:
        """Store what has arrived so far of a reply that is streaming."""
        with self._db.transaction():
            self._update(message_id, {"content": storable(content)})

    def reopen(self, message_id: int) -> StoredMessage:
        """Make a reply that has ended a STREAMING one of this process, to go on with it.

        Raises SamovarError if it is no reply, has been deleted, or is being written already.
        """
        with self._db.transaction():
            self._check_stands(message_id)
            message = self.message(message_id)
            if message.role is not Role.ASSISTANT:
                raise SamovarError("only a reply can be gone on with")
            if message.state is MessageState.STREAMING:
                raise SamovarError("the reply is being written in another window")
            unindex_message(self._db, message_id, message.content)
            owner = this_process()
            self._update(
                message_id,
                {"state": "streaming", "owner_pid": owner.pid, "owner_started": owner.started, "error": ""},
            )
            self._set_head(message.session_id, message_id)
            return self.message(message_id)

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
        model: str = "",
    ) -> None:
        """Store a reply as it ended, with the generated token ids and what it cost."""
        assert state is not MessageState.STREAMING
        content = storable(content)
        with self._db.transaction():
            message = self.message(message_id)
            if message.state is not MessageState.STREAMING:
                unindex_message(self._db, message_id, message.content)
            self._update(
                message_id,
                {
                    "content": content,
                    "state": state.value,
                    "tokens": pack_tokens(tokens),
                    "tokenizer": storable(tokenizer),
                    "stats": None if stats is None else encode_stats(stats),
                    "error": storable(error),
                    "model": storable(model),
                    "owner_pid": None,
                    "owner_started": None,
                },
            )
            index_message(self._db, message_id, content)
            self._db.change(
                "UPDATE sessions SET updated_at = ? WHERE id = ?", self._clock(), message.session_id
            )
            self._touch(message.session_id)

    def recover(self) -> int:
        """Mark as STOPPED what processes that no longer live were writing; returns how many replies."""
        streaming = (
            "SELECT id, session_id, content, owner_pid, owner_started FROM messages WHERE state = 'streaming'"
        )
        if not self._db.rows(f"{streaming} LIMIT 1"):
            return 0
        num_recovered = 0
        with self._db.transaction():
            for message_id, session_id, content, pid, started in self._db.rows(streaming):
                if pid is not None and Owner(pid=pid, started=started or 0.0).is_alive():
                    continue
                self._update(message_id, {"state": "stopped", "owner_pid": None, "owner_started": None})
                index_message(self._db, message_id, content)
                self._touch(session_id)
                num_recovered += 1
        return num_recovered

    # Branches

    def show(self, session_id: str, message_id: int) -> None:
        """Make the newest branch through this message the one that is shown.

        Raises SamovarError if it has been deleted.
        """
        with self._db.transaction():
            self._check_stands(message_id)
            self._set_head(session_id, self.newest_leaf(message_id))

    def delete_branch(self, message_id: int) -> int | None:
        """Take a message and all that follows it out of sight; returns the head that was shown before.

        What is shown then is the newest branch of a sibling, or what ends in the parent. Raises SamovarError
        if it has been deleted already.
        """
        with self._db.transaction():
            message = self.message(message_id)
            head = self._head(message.session_id)
            siblings = self.siblings(message_id)
            self._update(message_id, {"deleted_at": self._clock()})
            if head is None or message_id in (
                found for (found,) in self._db.rows(schema.SELECT_IDS_UP, head)
            ):
                place = siblings.index(message_id)
                others = siblings[:place] + siblings[place + 1 :]
                near = others[min(max(place - 1, 0), len(others) - 1)] if others else None
                self._set_head(
                    message.session_id, message.parent_id if near is None else self.newest_leaf(near)
                )
            self._touch(message.session_id)
            return head

    def last_deleted(self, session_id: str) -> int | None:
        """Where the branch of a chat begins that was deleted last; None if there is none."""
        rows = self._db.rows(
            "SELECT id FROM messages WHERE session_id = ? AND deleted_at IS NOT NULL AND content <> ''"
            " ORDER BY deleted_at DESC, id DESC LIMIT 1",
            session_id,
        )
        return rows[0][0] if rows else None

    def restore_branch(self, message_id: int, head_id: int | None) -> None:
        """Undo `delete_branch`, which returned `head_id`.

        What stands above the message comes back with it if it has been deleted since. If what was shown has
        been deleted, the newest branch through the message is shown.
        """
        with self._db.transaction():
            session_id = self.message(message_id).session_id
            self._db.change(
                f"UPDATE messages SET deleted_at = NULL WHERE id IN ({schema.SELECT_IDS_UP})", message_id
            )
            if head_id is None or self._is_deleted(head_id):
                head_id = self.newest_leaf(message_id)
            self._set_head(session_id, head_id)

    def copy_path(self, message_id: int, session_id: str) -> None:
        """Within a transaction: copy the messages up to this one, and their summaries, into an empty chat."""
        parent, origin = None, ""
        copies: dict[int, int] = {}
        for message in self.path_to(message_id):
            if message.state is MessageState.STREAMING:
                state = MessageState.STOPPED
            else:
                state = message.state
            columns = "role, content, created_at, tokens, tokenizer, stats, error, model, attachments, extra"
            parent = self._db.insert(
                f"INSERT INTO messages (session_id, parent_id, state, {columns})"
                f" SELECT ?, ?, ?, {columns} FROM messages WHERE id = ?",
                *(session_id, parent, state.value, message.id),
            )
            index_message(self._db, parent, message.content)
            copies[message.id] = parent
            origin = message.session_id
        columns = "summary, created_at, num_messages, tokens_before, tokens_after, is_undone, model"
        summaries = "SELECT id, upto_id FROM compactions WHERE session_id = ? ORDER BY id"
        for compaction_id, upto_id in self._db.rows(summaries, origin):
            if upto_id in copies:
                self._db.insert(
                    f"INSERT INTO compactions (session_id, upto_id, {columns})"
                    f" SELECT ?, ?, {columns} FROM compactions WHERE id = ?",
                    *(session_id, copies[upto_id], compaction_id),
                )
        self._set_head(session_id, parent)

    # Inside

    def _head(self, session_id: str) -> int | None:
        rows = self._db.rows(
            "SELECT head_id FROM sessions WHERE id = ? AND deleted_at IS NULL", storable(session_id)
        )
        if not rows:
            raise no_chat(session_id)
        head: int | None = rows[0][0]
        return head

    def _is_deleted(self, message_id: int) -> bool:
        """Whether it, or a message above it, has been deleted."""
        return bool(self._db.rows(schema.SELECT_DELETED_UP, message_id))

    def _check_stands(self, message_id: int | UnsetType | None) -> None:
        """Raises SamovarError if this message has been deleted: in another window, since nobody sees it."""
        if isinstance(message_id, int) and self._is_deleted(message_id):
            raise _deleted_message()

    def _set_head(self, session_id: str, head_id: int | None) -> None:
        self._db.change("UPDATE sessions SET head_id = ? WHERE id = ?", head_id, session_id)
        self._touch(session_id)

    def _insert(
        self,
        session_id: str,
        role: Role,
        content: str,
        state: MessageState,
        parent_id: int | UnsetType | None,
        attachments: Sequence[Attachment] = (),
    ) -> StoredMessage:
        """Within a transaction; the message becomes the head."""
        owner = this_process() if state is MessageState.STREAMING else None
        now = self._clock()
        head = self._head(session_id)
        parent = head if parent_id is UNSET else parent_id
        if parent is not None and self.message(parent).session_id != session_id:
            raise SamovarError("The message to answer belongs to another chat. Open that chat first.")
        content = storable(content)
        keep_files(self._db, attachments)
        message_id = self._db.insert(
            "INSERT INTO messages (session_id, parent_id, role, content, created_at, state, owner_pid,"
            " owner_started, attachments)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(session_id, parent, role.value, content, now, state.value),
            *((owner.pid, owner.started) if owner else (None, None)),
            encode_attachments(attachments),
        )
        if owner is None:
            index_message(self._db, message_id, content)
        self._db.change(
            "UPDATE sessions SET head_id = ?, updated_at = ? WHERE id = ?", message_id, now, session_id
        )
        self._touch(session_id)
        return self.message(message_id)

    def _update(self, message_id: int, values: dict[str, object]) -> None:
        assignments = ", ".join(f"{column} = ?" for column in values)
        update = f"UPDATE messages SET {assignments} WHERE id = ?"
        if self._db.change(update, *values.values(), message_id) == 0:
            raise _no_message(message_id)


def _stands(known: StoredMessage, stored: StoredMessage) -> bool:
    """Whether a message that had ended reads as before.

    The end of a reply of this window's may not have been stored (a full disk): then more of it is known.
    """
    if stored.num_siblings != known.num_siblings:
        return False
    if stored.state is MessageState.STREAMING and len(stored.content) < len(known.content):
        return known.content.startswith(stored.content)
    return (stored.state, stored.content) == (known.state, known.content)


def no_chat(session_id: str) -> SamovarError:
    """The error for a chat that is not there."""
    if _ID.fullmatch(session_id):  # nobody has typed it
        return SamovarError(
            "There is no chat like this any more: it has been deleted. Copy your text into another one, or "
            f"bring it back: samovar sessions restore {session_id[:8]}"
        )
    return SamovarError(
        f'There is no chat "{storable(session_id)}" (any more). Choose another one from the list.'
    )


def _deleted_message() -> SamovarError:
    return SamovarError("this message has been deleted in another window")


def _no_message(message_id: int) -> SamovarError:
    return SamovarError(f"There is no message {message_id} (any more). Open the chat again.")

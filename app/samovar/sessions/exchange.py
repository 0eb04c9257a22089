"""Whole chats in and out of the store, and out for good. A part of `Store`.

An import writes its chats in many transactions, so that it holds up nobody's messages; they carry its number
and are invisible until the last one takes the number off all of them at once. What an import that died has
left is dropped by the next start.
"""

import contextlib
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from samovar.core.errors import SamovarError
from samovar.sessions import schema
from samovar.sessions.attachments import PASTE_DIGITS
from samovar.sessions.compactions import Compactions
from samovar.sessions.database import Database
from samovar.sessions.encoding import encode_stats, pack_tokens, storable
from samovar.sessions.messages import no_chat
from samovar.sessions.owner import Owner, this_process
from samovar.sessions.rows import encode_attachments, encode_settings, keep_files, messages_of, session_of
from samovar.sessions.search import index_message, unindex_message
from samovar.sessions.tags import cut_tag
from samovar.sessions.transfer.document import (
    ChatDocument,
    CompactionDocument,
    MessageDocument,
    check,
)
from samovar.sessions.values import MessageState

_BATCH_S: Final = 0.1  # the longest that an import keeps others from writing
_DIGEST: Final = re.compile(r'"digest":"([0-9a-f]+)"')
_PAUSE_S: Final = 0.02  # who waits for the lock only looks now and then


class Exchange:
    """Every method raises SamovarError when the database cannot do it."""

    def __init__(self, database: Database, clock: Callable[[], float], touch: Callable[[str], None]) -> None:
        """`touch` says, within a transaction, that a chat has changed."""
        self._db = database
        self._clock = clock
        self._touch = touch
        self._compactions = Compactions(database, clock, touch)

    # Out

    def document(self, session_id: str) -> ChatDocument:
        """A chat with its whole tree. Message ids count from 1 on in the order of writing."""
        rows = self._db.rows(
            f"{schema.SELECT_SESSION} WHERE id = ? AND deleted_at IS NULL", storable(session_id)
        )
        if not rows:
            raise no_chat(session_id)
        session = session_of(rows[0])
        source, extra = self._db.rows("SELECT source, extra FROM sessions WHERE id = ?", session.id)[0]
        stored = messages_of(
            self._db,
            self._db.rows(
                f"SELECT {schema.COLUMNS_ALONE} FROM messages AS m"
                " WHERE m.session_id = ? AND m.deleted_at IS NULL ORDER BY m.id",
                session.id,
            ),
        )
        extras = dict(
            self._db.rows("SELECT id, extra FROM messages WHERE session_id = ? AND extra <> '{}'", session.id)
        )
        numbers: dict[int, int] = {}
        messages: list[MessageDocument] = []
        for message in stored:
            if message.parent_id is not None and message.parent_id not in numbers:
                continue  # below a deleted message
            numbers[message.id] = len(numbers) + 1
            is_streaming = message.state is MessageState.STREAMING
            messages.append(
                MessageDocument(
                    id=numbers[message.id],
                    parent=None if message.parent_id is None else numbers[message.parent_id],
                    role=message.role,
                    content=message.content,
                    created_at=message.created_at,
                    state=MessageState.STOPPED if is_streaming else message.state,
                    model=message.model,
                    error=message.error,
                    attachments=message.attachments,
                    tokens=message.tokens,
                    tokenizer=message.tokenizer,
                    stats=message.stats,
                    extra=_decoded(extras.get(message.id, "{}")),
                )
            )
        return ChatDocument(
            title=session.title,
            system_prompt=session.system_prompt,
            created_at=session.created_at,
            updated_at=session.updated_at,
            settings=session.settings,
            tags=session.tags,
            is_favourite=session.is_favourite,
            is_archived=session.is_archived,
            head=numbers.get(session.head_id) if session.head_id is not None else None,
            messages=tuple(messages),
            compactions=tuple(
                CompactionDocument(
                    upto=numbers[one.upto_id],
                    summary=one.summary,
                    created_at=one.created_at,
                    num_messages=one.num_messages,
                    tokens_before=one.tokens_before,
                    tokens_after=one.tokens_after,
                    is_undone=one.is_undone,
                    model=one.model,
                )
                for one in self._compactions.of(session.id)
                if one.upto_id in numbers
            ),
            source=source,
            extra=_decoded(extra),
        )

    # In

    def take_in(
        self, documents: Iterable[ChatDocument], progress: Callable[[int], None] = lambda _: None
    ) -> list[str]:
        """Store these as new chats, all of them or none; returns their ids. `progress` hears how many so far.

        Whatever the iterator raises ends the import, and nothing of it stays.
        """
        with self._db.transaction():
            owner = this_process()
            import_id = self._db.insert(
                "INSERT INTO imports (owner_pid, owner_started) VALUES (?, ?)", owner.pid, owner.started
            )
        ids: list[str] = []
        try:
            waiting = iter(documents)
            # Read before a transaction begins: a slow source must not hold the lock.
            while batch := _next_batch(waiting):
                self._in_short_transactions(self._take_chats(batch, import_id, ids))
                progress(len(ids))
            with self._db.transaction():
                for session_id in ids:
                    self._touch(session_id)
                self._db.change(
                    "UPDATE sessions SET import_id = NULL, deleted_at = NULL WHERE import_id = ?", import_id
                )
                self._db.change("DELETE FROM imports WHERE id = ?", import_id)
        except BaseException:
            with contextlib.suppress(SamovarError):  # the next start does it
                self._drop_import(import_id)
            raise
        return ids

    def drop_dead_imports(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Remove what imports whose process is gone have written; nobody sees it in any case."""
        for import_id, pid, started in self._db.rows("SELECT id, owner_pid, owner_started FROM imports"):
            if not Owner(pid=pid, started=started).is_alive():
                self._drop_import(import_id, should_stop)

    # Out for good

    def remove(self, session_id: str) -> None:
        """Remove a chat and all its messages for good."""
        with self._db.transaction():
            self._remove(session_id)

    def remove_branches(self, before: float, should_stop: Callable[[], bool] = lambda: False) -> int:
        """Remove branches deleted before this time for good; returns how many."""
        tops = self._db.rows("SELECT id FROM messages WHERE deleted_at < ? LIMIT 1000", before)
        num_removed = 0
        for (top,) in tops:
            if should_stop():
                break
            num_removed += 1
            with self._db.transaction():
                below = self._db.rows(
                    "WITH RECURSIVE down (id) AS (SELECT CAST(? AS INTEGER) UNION ALL"
                    " SELECT m.id FROM down JOIN messages AS m ON m.parent_id = down.id)"
                    " SELECT m.id, m.content, m.state FROM down JOIN messages AS m ON m.id = down.id"
                    " ORDER BY m.id DESC",
                    top,
                )
                for message_id, content, state in below:
                    if state != MessageState.STREAMING.value:
                        unindex_message(self._db, message_id, content)
                    self._db.change("DELETE FROM messages WHERE id = ?", message_id)
        return num_removed

    def remove_files(self) -> None:
        """Remove the texts of files that no message and no draft names any more."""
        with self._db.transaction():
            named = {
                digest
                for (listed,) in self._db.rows("SELECT attachments FROM messages WHERE attachments <> '[]'")
                for digest in _DIGEST.findall(listed)
            }
            drafts = " ".join(text for (text,) in self._db.rows("SELECT text FROM drafts"))
            for (digest,) in self._db.rows("SELECT digest FROM files"):
                if digest not in named and digest[:PASTE_DIGITS] not in drafts:
                    self._db.change("DELETE FROM files WHERE digest = ?", digest)

    # Inside

    def _in_short_transactions(self, steps: Iterator[None]) -> None:
        """Do the steps, and let others write in between."""
        is_done = False
        while not is_done:
            until = time.monotonic() + _BATCH_S
            with self._db.transaction():
                is_done = True
                for _ in steps:
                    if time.monotonic() >= until:
                        is_done = False
                        break
            if not is_done:
                time.sleep(_PAUSE_S)

    def _take_chats(
        self, documents: Iterable[ChatDocument], import_id: int, ids: list[str]
    ) -> Iterator[None]:
        """Within transactions: chats of an import, invisible, message by message. Adds to `ids`."""
        for document in documents:
            session_id = uuid.uuid4().hex
            yield from self._take_chat(check(document), session_id, import_id)
            ids.append(session_id)

    def _take_chat(self, document: ChatDocument, session_id: str, import_id: int) -> Iterator[None]:
        now = self._clock()
        times = [message.created_at for message in document.messages if message.created_at is not None]
        created = document.created_at if document.created_at is not None else min(times, default=now)
        updated = document.updated_at if document.updated_at is not None else max(times, default=created)
        self._db.insert(
            "INSERT INTO sessions (id, title, system_prompt, created_at, updated_at, settings, is_favourite,"
            " is_archived, source, extra, deleted_at, import_id)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(session_id, storable(document.title), storable(document.system_prompt), created, updated),
            *(encode_settings(document.settings), document.is_favourite, document.is_archived),
            *(storable(document.source), _encoded(document.extra), now, import_id),
        )
        for tag in filter(None, map(cut_tag, document.tags)):
            self._db.change("INSERT OR IGNORE INTO tags (session_id, tag) VALUES (?, ?)", session_id, tag)
        ids: dict[int, int] = {}
        for message in document.messages:
            keep_files(self._db, message.attachments)
            content = storable(message.content)
            ids[message.id] = self._db.insert(
                "INSERT INTO messages (session_id, parent_id, role, content, created_at, state, tokens,"
                " tokenizer, stats, error, model, attachments, extra)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(session_id, None if message.parent is None else ids[message.parent], message.role.value),
                *(content, created if message.created_at is None else message.created_at),
                *(message.state.value, pack_tokens(message.tokens), storable(message.tokenizer)),
                None if message.stats is None else encode_stats(message.stats),
                *(storable(message.error), storable(message.model)),
                *(encode_attachments(message.attachments), _encoded(message.extra)),
            )
            index_message(self._db, ids[message.id], content)
            yield
        for compaction in document.compactions:
            self._db.insert(
                "INSERT INTO compactions (session_id, upto_id, summary, created_at, num_messages,"
                " tokens_before, tokens_after, is_undone, model) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                *(session_id, ids[compaction.upto], storable(compaction.summary)),
                created if compaction.created_at is None else compaction.created_at,
                *(compaction.num_messages, compaction.tokens_before, compaction.tokens_after),
                *(compaction.is_undone, storable(compaction.model)),
            )
        last = document.messages[-1].id if document.messages else None
        head = document.head if document.head is not None else last
        self._db.change(
            "UPDATE sessions SET head_id = ? WHERE id = ?", None if head is None else ids[head], session_id
        )
        yield

    def _drop_import(self, import_id: int, should_stop: Callable[[], bool] = lambda: False) -> None:
        def steps() -> Iterator[None]:
            for (session_id,) in self._db.rows("SELECT id FROM sessions WHERE import_id = ?", import_id):
                if should_stop():
                    return
                self._remove(session_id)
                yield
            self._db.change("DELETE FROM imports WHERE id = ?", import_id)

        self._in_short_transactions(steps())

    def _remove(self, session_id: str) -> None:
        """Within a transaction."""
        messages = self._db.rows("SELECT id, content, state FROM messages WHERE session_id = ?", session_id)
        for message_id, content, state in messages:
            if state != MessageState.STREAMING.value:
                unindex_message(self._db, message_id, content)
        self._db.change("UPDATE sessions SET head_id = NULL WHERE id = ?", session_id)
        self._db.change("UPDATE messages SET parent_id = NULL WHERE session_id = ?", session_id)
        self._db.change("DELETE FROM sessions WHERE id = ?", session_id)
        self._db.change("DELETE FROM drafts WHERE session_id = ?", session_id)


def _next_batch(waiting: Iterator[ChatDocument]) -> list[ChatDocument]:
    """What can be read in a moment, one document at least; empty at the end."""
    until = time.monotonic() + _BATCH_S
    batch: list[ChatDocument] = []
    for document in waiting:
        batch.append(document)
        if time.monotonic() >= until:
            break
    return batch


def _encoded(extra: dict[str, Any]) -> str:
    return storable(msgspec.json.encode(extra).decode())


def _decoded(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError):
        return {}

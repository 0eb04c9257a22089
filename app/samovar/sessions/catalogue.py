"""The chats as a search sees them, kept in memory between searches. Used by one thread at a time."""

from typing import Any, Final

import msgspec

from samovar.sessions.database import Database
from samovar.sessions.query import Phrase, SearchQuery, haystack

_SELECT: Final = """
    SELECT id, title, updated_at, head_id, is_favourite, is_archived, deleted_at IS NOT NULL, revision
    FROM sessions WHERE import_id IS NULL
"""


class ChatEntry(msgspec.Struct, frozen=True):
    """A chat. `words` is its title as a `haystack`."""

    id: str
    title: str
    updated_at: float
    head_id: int | None
    is_favourite: bool
    is_archived: bool
    is_deleted: bool
    words: str


class Catalogue:
    """All chats of one database. The first `refresh` reads them all, later ones what has changed."""

    def __init__(self) -> None:
        self._chats: dict[str, ChatEntry] = {}
        self._revision = 0
        self._content: tuple[Any, ...] = ()

    def refresh(self, db: Database) -> None:
        """Read what has changed. That an import ended, or a chat is gone for good, changes no revision."""
        known_chats = self._chats
        content = db.rows("SELECT count(*), sum(rowid) FROM sessions WHERE import_id IS NULL")[0]
        if content != self._content:
            rows = db.rows(_SELECT)
            self._chats = {}
        else:
            rows = db.rows(f"{_SELECT} AND revision > ?", self._revision)
        for session_id, title, updated_at, head_id, favourite, archived, deleted, revision in rows:
            known = known_chats.get(session_id)
            self._chats[session_id] = ChatEntry(
                *(session_id, title, updated_at, head_id, bool(favourite), bool(archived), bool(deleted)),
                known.words if known and known.title == title else haystack(title),
            )
            self._revision = max(self._revision, revision)
        self._content = content

    def get(self, session_id: str) -> ChatEntry | None:
        """The chat, unless it is deleted or unknown."""
        chat = self._chats.get(session_id)
        return None if chat is None or chat.is_deleted else chat

    def deleted(self) -> list[str]:
        """The ids of chats that are deleted and can still come back."""
        return [chat.id for chat in self._chats.values() if chat.is_deleted]

    def matching(self, db: Database, query: SearchQuery) -> list[ChatEntry]:
        """The chats that the filters of chats let through."""
        chats = [chat for chat in self._chats.values() if not chat.is_deleted]
        if query.marks:
            chats = [
                chat
                for chat in chats
                if ("favourite" not in query.marks or chat.is_favourite)
                and ("archived" not in query.marks or chat.is_archived)
            ]
        for phrase in query.titles:
            needle = phrase.needle()
            chats = [chat for chat in chats if needle in chat.words]
        for phrase in query.tags:
            tagged = self._tagged(db, phrase)
            chats = [chat for chat in chats if chat.id in tagged]
        return chats

    def _tagged(self, db: Database, phrase: Phrase) -> set[str]:
        """The chats with a tag of these words; with one that begins so while it is being typed."""
        tags = {tag: haystack(tag) for (tag,) in db.rows("SELECT DISTINCT tag FROM tags")}
        needle = phrase.needle()
        found = [tag for tag, words in tags.items() if words == needle]
        if not found and phrase.is_open:
            found = [tag for tag, words in tags.items() if words.startswith(needle)]
        rows = db.rows(
            "SELECT session_id FROM tags WHERE tag IN (SELECT value FROM json_each(?))",
            msgspec.json.encode(found).decode(),
        )
        return {session_id for (session_id,) in rows}

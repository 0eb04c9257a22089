"""Full-text search over all chats.

`messages_fts` is a contentless FTS5 table: it holds for every message that has ended the words of
`searchable(content)`, and nothing else of it.

What is bounded, so that every answer comes while the user types: of the messages that match, the newest
`MAX_CANDIDATES` are read and ranked, and no older one is shown. "Newest" is the order in which they were
stored. A search that fewer messages match is complete. Candidates that turn out to stand below a deleted
message are left out and not made up for.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from samovar.core.chat import Role
from samovar.sessions.catalogue import Catalogue, ChatEntry
from samovar.sessions.database import Database
from samovar.sessions.query import Phrase, SearchQuery, haystack
from samovar.sessions.snippet import Part, make_snippet
from samovar.sessions.words import searchable

MAX_CANDIDATES: Final = 500
_WINDOW: Final = 5000  # newest matches whose filters are tried one by one
_COUNTED: Final = 1000  # matches of a word that tell how frequent it is
_MAX_COUNTED_WORDS: Final = 8  # of a phrase
_MAX_RANKED_CHARS: Final = 50_000  # of a message
_K1: Final = 1.2
_B: Final = 0.75
_HALF_LIFE_S: Final = 90 * 86_400.0
_RECENCY_SHARE: Final = 0.3  # of the score of something that was written just now
_TITLE_BOOST: Final = 1.5


class Hit(msgspec.Struct, frozen=True):
    """A message that was found, or a chat by its title (`is_title`; the message is then its head, if any).

    `created_at` is seconds since the epoch, of a chat when it last changed. Text comes as it is stored.
    """

    session_id: str
    title: str
    message_id: int | None
    role: Role | None
    created_at: float
    model: str
    snippet: tuple[Part, ...]
    is_title: bool = False
    is_archived: bool = False


class SearchResults(msgspec.Struct, frozen=True):
    """The best first, or the newest where nothing but filters was asked for.

    `num_more` matches are not shown; there may be yet more unless `is_complete`.
    """

    hits: tuple[Hit, ...] = ()
    num_more: int = 0
    is_complete: bool = True
    problems: tuple[str, ...] = ()


def index_message(db: Database, message_id: int, content: str) -> None:
    """Within a transaction: make a message that has ended findable."""
    if content:
        db.insert("INSERT INTO messages_fts (rowid, text) VALUES (?, ?)", message_id, searchable(content))


def unindex_message(db: Database, message_id: int, content: str) -> None:
    """Within a transaction: take a message out of the index; `content` is what was indexed."""
    if content:
        db.change(
            "INSERT INTO messages_fts (messages_fts, rowid, text) VALUES ('delete', ?, ?)",
            *(message_id, searchable(content)),
        )


def search(
    db: Database,
    query: SearchQuery,
    *,
    now: float,
    limit: int = 50,
    catalogue: Catalogue | None = None,
    check: Callable[[], None] = lambda: None,
) -> SearchResults:
    """The chats and messages that match, at most `limit`; `now` is seconds since the epoch.

    A `catalogue` that is kept saves reading all titles. `check` is called between steps and may raise.
    """
    catalogue = catalogue or Catalogue()
    catalogue.refresh(db)
    check()
    if query.is_empty():
        return SearchResults(problems=query.problems)
    return _Search(db, query, catalogue, now, limit, check).results()


class _Message(msgspec.Struct, frozen=True):
    """A candidate. `words` is its content as a `haystack`."""

    id: int
    chat: ChatEntry
    role: str
    created_at: float
    model: str
    content: str
    words: str


class _Search:
    """One search."""

    def __init__(
        self,
        db: Database,
        query: SearchQuery,
        catalogue: Catalogue,
        now: float,
        limit: int,
        check: Callable[[], None],
    ) -> None:
        self._db = db
        self._query = query
        self._catalogue = catalogue
        self._now = now
        self._limit = limit
        self._check = check

    def results(self) -> SearchResults:
        query = self._query
        chats = self._catalogue.matching(self._db, query)
        self._check()
        if not query.phrases and not query.excluded and not query.filters_messages():
            chats.sort(key=lambda chat: chat.updated_at, reverse=True)
            return self._answer([self._chat_hit(chat) for chat in chats[: self._limit]], len(chats))
        messages, is_complete = self._messages(chats)
        if not query.phrases:
            messages.sort(key=lambda message: message.created_at, reverse=True)
            hits = [self._message_hit(message) for message in messages[: self._limit]]
            return self._answer(hits, len(messages), is_complete=is_complete)
        titles = self._titles(chats)
        scored: list[tuple[float, float, ChatEntry | _Message]] = []
        scored += [(score, chat.updated_at, chat) for score, chat in self._ranked_titles(titles)]
        scored += [(score, message.created_at, message) for score, message in self._ranked(messages)]
        scored.sort(key=lambda item: item[:2], reverse=True)
        hits = [
            self._chat_hit(found) if isinstance(found, ChatEntry) else self._message_hit(found)
            for _, _, found in scored[: self._limit]
        ]
        return self._answer(hits, len(titles) + len(messages), is_complete=is_complete)

    def _answer(self, hits: list[Hit], num_found: int, *, is_complete: bool = True) -> SearchResults:
        return SearchResults(tuple(hits), num_found - len(hits), is_complete, self._query.problems)

    # Finding

    def _messages(self, chats: list[ChatEntry]) -> tuple[list[_Message], bool]:
        """The newest messages that match, and whether they are all."""
        found = self._candidates(chats)
        self._check()
        rows = self._db.rows(
            "SELECT id, session_id, role, created_at, model, content FROM messages"
            " WHERE id IN (SELECT value FROM json_each(?)) AND deleted_at IS NULL",
            _json(found),
        )
        hidden = self._hidden({row[1] for row in rows})
        self._check()
        messages: list[_Message] = []
        for message_id, session_id, role, created_at, model, content in rows:
            chat = self._catalogue.get(session_id)
            if chat is not None and message_id not in hidden:
                words = haystack(content[:_MAX_RANKED_CHARS])
                messages.append(_Message(message_id, chat, role, created_at, model, content, words))
        if not self._query.phrases:  # otherwise the index has seen to it
            without = [phrase.needle() for phrase in self._query.excluded]
            messages = [m for m in messages if not any(needle in m.words for needle in without)]
        return messages, len(found) < MAX_CANDIDATES

    def _candidates(self, chats: list[ChatEntry]) -> list[int]:
        """Ids of the newest messages that match.

        First the filters are tried on the newest matches. If that does not give enough of them, little passes
        the filters: all of that is found first, and only that is looked for among the matches.
        """
        query = self._query
        tests, test_values = self._tests(chats)
        if query.phrases:
            source = "SELECT rowid FROM messages_fts WHERE messages_fts MATCH ? ORDER BY rowid DESC LIMIT ?"
            values: list[object] = [query.fts()]
        else:
            source = (
                "SELECT id FROM messages INDEXED BY messages_of_time WHERE created_at >= ? AND created_at < ?"
                " AND state <> 'streaming' AND content <> '' ORDER BY created_at DESC LIMIT ?"
            )
            values = self._times()
        num_tried = _WINDOW if self._is_filtered() else MAX_CANDIDATES
        newest = self._ids(source, *values, num_tried)
        self._check()
        passed = set(
            self._ids(
                f"SELECT m.id FROM messages AS m WHERE m.id IN (SELECT value FROM json_each(?)) AND {tests}",
                *(_json(newest), *test_values),
            )
        )
        found = [message_id for message_id in newest if message_id in passed][:MAX_CANDIDATES]
        if len(found) >= MAX_CANDIDATES or len(newest) < num_tried or not self._is_filtered():
            return found
        self._check()
        allowed, allowed_values = self._allowed(chats)
        if query.phrases:
            # The `+` keeps SQLite from asking the full-text index anew for each message of the set.
            return self._ids(
                "SELECT m.id FROM messages_fts AS f CROSS JOIN messages AS m ON m.id = f.rowid"
                f" WHERE messages_fts MATCH ? AND {allowed.format('+f.rowid')} AND {tests}"
                f" ORDER BY f.rowid DESC LIMIT {MAX_CANDIDATES}",
                *(*values, *allowed_values, *test_values),
            )
        return self._ids(
            f"SELECT m.id FROM messages AS m WHERE {allowed.format('m.id')}"
            f" AND m.state <> 'streaming' AND m.content <> '' AND {tests}"
            f" ORDER BY m.created_at DESC LIMIT {MAX_CANDIDATES}",
            *(*allowed_values, *test_values),
        )

    def _is_filtered(self) -> bool:
        """Whether not every message that has the words is one to find."""
        query = self._query
        hides_chats = bool(self._catalogue.deleted()) or self._is_importing
        return query.filters_chats() or query.filters_messages() or hides_chats

    @functools.cached_property
    def _is_importing(self) -> bool:
        """Whether there are chats of an import that has not ended, which nobody may see yet."""
        return bool(self._db.rows("SELECT 1 FROM imports LIMIT 1"))

    def _times(self) -> list[object]:
        """From when on and before when, as numbers in any case."""
        before, after = self._query.before, self._query.after
        return [-math.inf if after is None else after, math.inf if before is None else before]

    def _tests(self, chats: list[ChatEntry]) -> tuple[str, list[object]]:
        """SQL that says of one message `m` whether the filters let it through."""
        query = self._query
        tests = ["m.deleted_at IS NULL"]
        values: list[object] = []
        if query.filters_chats():
            tests.append("m.session_id IN (SELECT value FROM json_each(?))")
            values.append(_json(chat.id for chat in chats))
        elif deleted := self._catalogue.deleted():
            tests.append("m.session_id NOT IN (SELECT value FROM json_each(?))")
            values.append(_json(deleted))
        if self._is_importing:
            tests.append("m.session_id NOT IN (SELECT id FROM sessions WHERE import_id IS NOT NULL)")
        if query.filters_times():
            tests.append("m.created_at >= ? AND m.created_at < ?")
            values += self._times()
        if query.models:
            tests.append("m.model IN (SELECT value FROM json_each(?))")
            values.append(_json(self._models))
        if query.roles:
            tests.append("m.role IN (SELECT value FROM json_each(?))")
            values.append(_json(role.value for role in query.roles))
        return " AND ".join(tests), values

    def _allowed(self, chats: list[ChatEntry]) -> tuple[str, list[object]]:
        """SQL for a set that holds all messages the filters let through, made from one index alone."""
        query = self._query
        inside = "SELECT value FROM json_each(?)"
        if query.filters_chats():
            source = f"messages_tree WHERE session_id IN ({inside})"
            return f"{{0}} IN (SELECT id FROM messages INDEXED BY {source})", [_json(c.id for c in chats)]
        if query.models:
            source = f"messages_of_model WHERE model IN ({inside})"
            return f"{{0}} IN (SELECT id FROM messages INDEXED BY {source})", [_json(self._models)]
        if query.filters_times():
            source = "messages_of_time WHERE created_at >= ? AND created_at < ?"
            return f"{{0}} IN (SELECT id FROM messages INDEXED BY {source})", self._times()
        return "true", []

    @functools.cached_property
    def _models(self) -> list[str]:
        """The models that `model:` may mean. Walks from one to the next through their index."""
        names = self._db.rows(
            "WITH RECURSIVE names (name) AS (SELECT min(model) FROM messages UNION ALL"
            " SELECT (SELECT min(model) FROM messages WHERE model > name) FROM names WHERE name IS NOT NULL)"
            " SELECT name FROM names WHERE name <> ''"
        )
        needles = [phrase.needle() for phrase in self._query.models]
        return [name for (name,) in names if any(needle in haystack(name) for needle in needles)]

    def _hidden(self, session_ids: Iterable[str]) -> set[int]:
        """The messages of these chats that are deleted or stand below a deleted one."""
        rows = self._db.rows(
            "WITH RECURSIVE hidden (id) AS ("
            " SELECT id FROM messages INDEXED BY messages_deleted"
            " WHERE deleted_at IS NOT NULL AND session_id IN (SELECT value FROM json_each(?))"
            " UNION SELECT m.id FROM hidden JOIN messages AS m ON m.parent_id = hidden.id)"
            " SELECT id FROM hidden",
            _json(session_ids),
        )
        return {message_id for (message_id,) in rows}

    def _titles(self, chats: list[ChatEntry]) -> list[ChatEntry]:
        """The chats whose titles match. A filter that asks for messages leaves none."""
        query = self._query
        if query.roles or query.models:
            return []
        for phrase in query.phrases:
            needle = phrase.needle()
            chats = [chat for chat in chats if needle in chat.words]
        for phrase in query.excluded:
            needle = phrase.needle()
            chats = [chat for chat in chats if needle not in chat.words]
        return [
            chat
            for chat in chats
            if (query.before is None or chat.updated_at < query.before)
            and (query.after is None or chat.updated_at >= query.after)
        ]

    def _ids(self, sql: str, *values: object) -> list[int]:
        return [row[0] for row in self._db.rows(sql, *values)]

    # Ranking

    @functools.cached_property
    def _weights(self) -> list[tuple[str, float]]:
        """What to look for and how much it says: a phrase as much as its words together."""
        phrases = self._query.phrases
        if len(phrases) == 1:
            return [(phrases[0].needle(), 1.0)]
        (num_messages,) = self._db.rows("SELECT max(id) FROM messages")[0]
        return [(phrase.needle(), self._idf(phrase, num_messages or 1)) for phrase in phrases]

    def _idf(self, phrase: Phrase, num_messages: int) -> float:
        """From an estimate of how many messages have the words: how dense they are among the newest."""
        idf = 0.0
        for word in phrase.words[:_MAX_COUNTED_WORDS]:
            count, oldest = self._db.rows(
                "SELECT count(*), min(rowid) FROM (SELECT rowid FROM messages_fts WHERE messages_fts MATCH ?"
                f" ORDER BY rowid DESC LIMIT {_COUNTED})",
                Phrase((word,), is_open=phrase.is_open and word == phrase.words[-1]).fts(),
            )[0]
            if count >= _COUNTED:
                count = min(num_messages, count * num_messages / (num_messages - oldest + 1))
            idf += math.log(1 + (max(0.0, num_messages - count) + 0.5) / (count + 0.5))
        return idf

    def _ranked(self, messages: Sequence[_Message]) -> list[tuple[float, _Message]]:
        mean_length = sum(len(message.words) for message in messages) / max(1, len(messages))
        needles = [needle for needle, _ in self._weights]
        scored: list[tuple[float, _Message]] = []
        for message in messages:
            score = self._score(message.words, mean_length, message.created_at)
            in_title = sum(needle in message.chat.words for needle in needles) / len(needles)
            scored.append((score * (1 + (_TITLE_BOOST - 1) * in_title), message))
        return scored

    def _ranked_titles(self, chats: Sequence[ChatEntry]) -> list[tuple[float, ChatEntry]]:
        """The newest of these chats: where very many match, they leave room for messages."""
        chats = sorted(chats, key=lambda chat: chat.updated_at, reverse=True)[: max(3, self._limit // 5)]
        mean_length = sum(len(chat.words) for chat in chats) / max(1, len(chats))
        return [
            (_TITLE_BOOST**2 * self._score(chat.words, mean_length, chat.updated_at), chat) for chat in chats
        ]

    def _score(self, words: str, mean_length: float, moment: float) -> float:
        """BM25, made less the older it is."""
        norm = _K1 * (1 - _B + _B * len(words) / mean_length)
        relevance = 0.0
        for needle, idf in self._weights:
            count = words.count(needle)
            relevance += idf * count * (_K1 + 1) / (count + norm)
        recency: float = 0.5 ** (max(0.0, self._now - moment) / _HALF_LIFE_S)
        return relevance * (1 - _RECENCY_SHARE + _RECENCY_SHARE * recency)

    # Showing

    def _message_hit(self, message: _Message) -> Hit:
        return Hit(
            session_id=message.chat.id,
            title=message.chat.title,
            message_id=message.id,
            role=Role(message.role),
            created_at=message.created_at,
            model=message.model,
            snippet=make_snippet(message.content, self._query.phrases),
            is_archived=message.chat.is_archived,
        )

    def _chat_hit(self, chat: ChatEntry) -> Hit:
        """The chat, with the beginning or the match of its newest message."""
        rows = self._db.rows("SELECT role, model, content FROM messages WHERE id = ?", chat.head_id)
        role, model, content = rows[0] if rows else (None, "", "")
        return Hit(
            session_id=chat.id,
            title=chat.title,
            message_id=chat.head_id,
            role=None if role is None else Role(role),
            created_at=chat.updated_at,
            model=model,
            snippet=make_snippet(content, self._query.phrases),
            is_title=True,
            is_archived=chat.is_archived,
        )


def _json(values: Iterable[object]) -> str:
    return msgspec.json.encode(list(values)).decode()

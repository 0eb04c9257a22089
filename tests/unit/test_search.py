"""Words, queries, snippets, and searching a small store written with plain SQL."""

import datetime
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from samovar.bench import library
from samovar.bench.search import measure
from samovar.core.chat import Role
from samovar.sessions.catalogue import Catalogue
from samovar.sessions.database import Interrupted, open_database
from samovar.sessions.query import MAX_PHRASES, MAX_WORDS, Phrase, SearchQuery, haystack, parse
from samovar.sessions.search import MAX_CANDIDATES, Hit, SearchResults, index_message, search, unindex_message
from samovar.sessions.searcher import Searcher
from samovar.sessions.snippet import MAX_CHARS, make_snippet
from samovar.sessions.words import searchable, words_of

DAY = 86_400.0
NOW = datetime.datetime(2026, 11, 22, 12).timestamp()


def moment(year: int, month: int = 1, day: int = 1) -> float:
    return datetime.datetime(year, month, day).timestamp()


# Words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World", "hello world"),
        ("foo_bar C++ a-b", "foo bar c a b"),
        ("Straße ÆGIR ﬁne", "strasse ægir fine"),
        ("Café cafe\u0301 CAFÉ", "cafe cafe cafe"),
        ("Łódź İstanbul ısı", "lodz istanbul isi"),
        ("Ελλάδα ΟΔΟΣ", "ελλαδα οδοσ"),
        ("كِتَاب كــتاب أحمد", "كتاب كتاب احمد"),
        ("שָׁלוֹם", "שלום"),
        ("日本語 text", "日 本 語 text"),
        ("ไทย", "ไ ท ย"),
        ("👍🏽 👩‍💻!", "👍 👩 💻"),
        ("❤️", "❤"),
        ("٣ x² ½", "3 x2 1 2"),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
        ("\x00\x1b[31mred \ud800", "31mred"),
        ("हिन्दी", "हिनदी"),
        ("", ""),
    ],
)
def test_text_is_cut_into_folded_words(text: str, words: str) -> None:
    assert searchable(text).split() == words.split()


@given(st.text(st.characters()))
def test_words_with_places_are_those_of_the_index(text: str) -> None:
    words = list(words_of(text))
    assert [word.text for word in words] == searchable(text).split()
    assert all(word.text in searchable(text[word.start : word.end]).split() for word in words)
    assert all(one.end <= two.end for one, two in itertools.pairwise(words))


def test_a_word_takes_its_marks_along() -> None:
    text = "cafe\u0301 👍🏽 x"
    assert [text[word.start : word.end] for word in words_of(text)] == ["cafe\u0301", "👍🏽", "x"]


# Queries


def phrase(text: str, is_open: bool = False) -> Phrase:
    return Phrase(tuple(text.split()), is_open)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("", SearchQuery()),
        ("   ", SearchQuery()),
        ('- " "" : ', SearchQuery()),
        ("kafka", SearchQuery(phrases=(phrase("kafka", True),))),
        ("kafka ", SearchQuery(phrases=(phrase("kafka"),))),
        ("Kafka cafe", SearchQuery(phrases=(phrase("kafka"), phrase("cafe", True)))),
        ('"exact words"', SearchQuery(phrases=(phrase("exact words"),))),
        ('"exact wor', SearchQuery(phrases=(phrase("exact wor", True),))),
        ('"exact ', SearchQuery(phrases=(phrase("exact"),))),
        ("foo_bar ", SearchQuery(phrases=(phrase("foo bar"),))),
        ("foo_", SearchQuery(phrases=(phrase("foo"),))),
        ("日本", SearchQuery(phrases=(phrase("日 本"),))),
        ("http://x.y/z ", SearchQuery(phrases=(phrase("http x y z"),))),
        ("a AND NOT b* ", SearchQuery(phrases=tuple(map(phrase, ("a", "and", "not", "b"))))),
        ("a a ", SearchQuery(phrases=(phrase("a"),))),
        ("a -b", SearchQuery(phrases=(phrase("a"),), excluded=(phrase("b"),))),
        ('-"b c"', SearchQuery(excluded=(phrase("b c"),))),
        ("tag:work ", SearchQuery(tags=(phrase("work"),))),
        ('TAG:"two words" a ', SearchQuery(phrases=(phrase("a"),), tags=(phrase("two words"),))),
        ("tag:", SearchQuery()),
        ("title:plan x ", SearchQuery(phrases=(phrase("x"),), titles=(phrase("plan"),))),
        ("model:Gemma ", SearchQuery(models=(phrase("gemma", True),))),
        ("role:me ", SearchQuery(roles=frozenset({Role.USER}))),
        ("role:user role:assistant", SearchQuery(roles=frozenset({Role.USER, Role.ASSISTANT}))),
        ("role:you ", SearchQuery(roles=frozenset({Role.USER}))),
        ("role:reply ", SearchQuery(roles=frozenset({Role.ASSISTANT}))),
        ("role:a", SearchQuery(roles=frozenset({Role.ASSISTANT}))),
        ("is:favourite is:archived", SearchQuery(marks=frozenset({"favourite", "archived"}))),
        ("before:2026", SearchQuery(before=moment(2026))),
        ("before:2026-11 before:2026-12", SearchQuery(before=moment(2026, 11))),
        ("after:2026-11-01 after:2026-10", SearchQuery(after=moment(2026, 11))),
        ("after:today", SearchQuery(after=moment(2026, 11, 22))),
        ("before:Yesterday", SearchQuery(before=moment(2026, 11, 21))),
        ("after:7d before:1w", SearchQuery(after=NOW - 7 * DAY, before=NOW - 7 * DAY)),
    ],
)
def test_a_query_is_read(text: str, query: SearchQuery) -> None:
    assert parse(text, NOW) == query


@pytest.mark.parametrize(
    "text",
    [
        "before:2026-13",
        "after:soon",
        "before:2026-02-30",
        "after:0000",
        "role:boss",
        "is:blue",
        "tag:...",
        "-tag:x",
        "before:٢٠٢٦",
    ],
)
def test_a_filter_that_means_nothing_is_told_and_left_out(text: str) -> None:
    query = parse(f"kafka {text}", NOW)
    assert query == SearchQuery(phrases=(phrase("kafka"),), problems=query.problems)
    assert len(query.problems) == 1
    assert text.partition(":")[2] in query.problems[0]


def test_a_long_query_is_cut_and_told() -> None:
    many = parse(" ".join(f"w{number}" for number in range(100)), NOW)
    assert len(many.phrases) == MAX_PHRASES
    assert len(many.problems) == 1
    assert len(parse("x_" * 500, NOW).phrases[0].words) == MAX_WORDS
    assert len(parse("x " * 5000, NOW).problems) == 1


_SIGNS = "\"'-+*:^(){}[]\\\x00\n\t "
_PIECES = """
AND OR NOT NEAR NEAR( a the 日本 👍 tag: before: after:2026 role: role:me model: title: is: is:fav today text:
"""
PIECES = st.sampled_from([*_SIGNS, "\ud800", *_PIECES.split()])
TYPED = st.text(st.characters()) | st.lists(PIECES, max_size=12).map("".join)


# Snippets


def shown(content: str, query: str) -> str:
    """The snippet with its matches in brackets."""
    parts = make_snippet(content, parse(query, NOW).phrases)
    return "".join(f"[{part.text}]" if part.is_match else part.text for part in parts)


@pytest.mark.parametrize(
    ("content", "query", "snippet"),
    [
        ("Go to the Café\n\n  now", "cafe ", "Go to the [Café] now"),
        ("kafka kafkaesque", "kaf", "[kafka] [kafkaesque]"),
        ("kafka kafkaesque", "kafka ", "[kafka] kafkaesque"),
        ("of the of", '"of the"', "[of the] of"),
        ("a b c", '"a b" "b c"', "[a b c]"),
        ("call foo_bar()", "foo_bar ", "call [foo_bar]()"),
        ("私は日本語を話す", "日本", "私は[日本]語を話す"),
        ("אני אוהב שָׁלוֹם", "שלום", "אני אוהב [שָׁלוֹם]"),
        ("nothing here", "kafka", "nothing here"),
        ("", "kafka", ""),
    ],
)
def test_a_snippet_marks_what_was_found(content: str, query: str, snippet: str) -> None:
    assert shown(content, query) == snippet


def test_a_snippet_shows_where_most_of_the_words_stand() -> None:
    filler = "lorem ipsum " * 1000
    content = f"alpha {filler} beta {filler} alpha gamma beta {filler}"
    text = shown(content, "alpha beta gamma ")
    assert "[alpha] [gamma] [beta]" in text
    assert text.startswith("…")
    assert text.endswith("…")


WORDS = st.sampled_from(
    ["alpha", "Café", "be", "b", "日本語", "ß", "𝔘", "x" * 30, "👍🏽", "e\u0301", "½", "foo_bar"]
)
CONTENTS = st.lists(st.tuples(WORDS, st.sampled_from([" ", "\n\n", ", ", "-", ""])), max_size=400).map(
    lambda pairs: "".join(word + gap for word, gap in pairs)
)


@given(CONTENTS, st.lists(WORDS, min_size=1, max_size=3).map(" ".join) | st.text())
def test_snippets_are_short_and_mark_only_matches(content: str, query: str) -> None:
    phrases = parse(query, NOW).phrases
    parts = make_snippet(content, phrases)
    text = "".join(part.text for part in parts)
    assert len(text) <= MAX_CHARS + 2
    assert text.strip("…") in " ".join(content.split())
    assert all(part.text for part in parts)
    assert "  " not in text
    for part in parts:
        if part.is_match:
            assert any(one.needle() in haystack(part.text) for one in phrases)
    if len(content) < 1000 and any(one.needle() in haystack(content) for one in phrases):
        assert any(part.is_match for part in parts)


def test_a_word_that_is_cut_where_a_long_message_is_looked_at_in_pieces_is_no_match() -> None:
    content = "hay " * 1000
    for pos in (897, 1194):  # the second piece begins, and the first one ends, within a word
        content = f"{content[: pos - 1]} concatalog {content[pos + 11 :]}"
    assert "[" not in shown(content, "cat ")
    assert "[" not in shown(content, "catalog ")
    assert "[" not in shown(content, "concat ")
    assert "[concatalog]" in shown(content, "concatalog ")


def test_a_huge_message_has_a_snippet() -> None:
    assert "[needle]" in shown("é" * 5000 + " hay " * 20_000 + "needle" + " hay" * 100_000, "needle")


# Searching


class Shelf:
    """A small store."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.db = open_database(path)
        self.catalogue = Catalogue()
        self._revision = 0

    def chat(self, chat: str, title: str = "", *, at: float = NOW, tags: str = "", **flags: object) -> None:
        self.db.change(
            "INSERT INTO sessions (id, title, system_prompt, created_at, updated_at) VALUES (?, ?, '', ?, ?)",
            *(chat, title or chat, at, at),
        )
        for tag in filter(None, tags.split(",")):
            self.db.change("INSERT INTO tags VALUES (?, ?)", chat, tag)
        self.change(chat, **flags)

    def change(self, chat: str, **values: object) -> None:
        self._revision += 1
        for column, value in (values | {"revision": self._revision}).items():
            self.db.change(f"UPDATE sessions SET {column} = ? WHERE id = ?", value, chat)

    def say(
        self,
        chat: str,
        content: str,
        *,
        role: str = "user",
        at: float = NOW,
        model: str = "",
        parent: int | None = None,
    ) -> int:
        message = self.db.insert(
            "INSERT INTO messages (session_id, parent_id, role, content, created_at, state, model)"
            " VALUES (?, ?, ?, ?, ?, 'complete', ?)",
            *(chat, parent, role, content, at, model),
        )
        index_message(self.db, message, content)
        self.change(chat, head_id=message)
        return message

    def find(self, text: str, limit: int = 50) -> SearchResults:
        query = parse(text, NOW)
        results = search(self.db, query, now=NOW, limit=limit, catalogue=self.catalogue)
        assert results == search(self.db, query, now=NOW, limit=limit)  # what is kept is up to date
        return results

    def hits(self, text: str) -> list[Hit]:
        return list(self.find(text).hits)

    def messages(self, text: str) -> list[int | None]:
        return [hit.message_id for hit in self.hits(text) if not hit.is_title]


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "chats.db")
    yield shelf
    shelf.db.close()


@pytest.fixture(scope="module")
def library_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("library") / "chats.db"
    library.make(path, 300, 9000)
    return path


def test_a_message_is_found_with_all_it_needs(shelf: Shelf) -> None:
    shelf.chat("c", "Brokers", is_archived=1)
    message = shelf.say("c", "Kafka keeps a log.", role="assistant", at=NOW - DAY, model="Gemma 3")
    (hit,) = shelf.hits("kafka")
    assert "".join(part.text for part in hit.snippet) == "Kafka keeps a log."
    assert [part.text for part in hit.snippet if part.is_match] == ["Kafka"]
    assert hit == Hit(
        session_id="c",
        title="Brokers",
        message_id=message,
        role=Role.ASSISTANT,
        created_at=NOW - DAY,
        model="Gemma 3",
        snippet=hit.snippet,
        is_archived=True,
    )


@pytest.mark.parametrize(
    ("query", "is_found"),
    [
        ("blue", True),
        ("BLU", True),
        ("blu ", False),
        ("elephant blue", True),
        ('"blue elephant"', True),
        ('"elephant blue"', False),
        ('"blue ele', True),
        ("blue -elephant", False),
        ("blue -ele", True),
        ("blue -mouse", True),
        ("blue mouse", False),
        ("naive", True),
        ("NAÏVE", True),
        ("nai\u0308ve", True),
        ("本語", True),
        ("語本", False),
        ("เป็น", True),
        ("كتاب", True),
        ("كِتَابٌ", True),
        ("שלום", True),
        ("👩", True),
        ("👍", True),
        ("🎉", False),
        ("привет", True),
        ("foo_bar", True),
        ("bar_foo", False),
    ],
)
def test_messages_are_found_by_their_words(shelf: Shelf, query: str, is_found: bool) -> None:
    shelf.chat("c")
    message = shelf.say(
        "c", "A blue elephant, naïve. 日本語 ฉันเป็น كِتَاب שָׁלוֹם 👩‍💻 👍🏽 ПРИВЕТ x.foo_bar(\x00)"
    )
    shelf.say("c", "something else")
    assert shelf.messages(query) == ([message] if is_found else [])


def test_filters_of_chats(shelf: Shelf) -> None:
    shelf.chat("a", "Plan for June", tags="work,two words", is_favourite=1, at=NOW - DAY)
    shelf.chat("b", "Plan for July", tags="work", is_archived=1)
    shelf.chat("c", "Other")
    ids = {shelf.say(chat, f"apple in {chat}"): chat for chat in "abc"}

    def chats(query: str) -> list[str]:
        return [ids[message] for message in shelf.messages(query) if message is not None]

    assert sorted(chats("apple ")) == ["a", "b", "c"]
    assert sorted(chats("apple tag:WORK ")) == ["a", "b"]
    assert sorted(chats("tag:wor apple ")) == []
    assert sorted(chats("apple tag:wor")) == ["a", "b"]  # it is being typed
    assert chats('apple tag:"Two Words"') == ["a"]
    assert chats("apple tag:work is:fav") == ["a"]
    assert chats("apple is:archived") == ["b"]
    assert sorted(chats("apple title:plan ")) == ["a", "b"]
    assert chats("apple title:july") == ["b"]
    assert chats("apple tag:work tag:nothing") == []
    # Alone they list chats, the one that changed last first.
    alone = shelf.hits("tag:work ")
    assert [(hit.session_id, hit.is_title) for hit in alone] == [("b", True), ("a", True)]
    assert alone[0].snippet[0].text == "apple in b"
    assert alone[0].is_archived


def test_filters_of_messages(shelf: Shelf) -> None:
    shelf.chat("c")
    old = shelf.say("c", "pear one", at=moment(2025, 5, 5))
    new = shelf.say("c", "pear two", role="assistant", model="Gemma 3 270M", at=moment(2026, 11, 1))
    now = shelf.say("c", "pear three", role="assistant", model="SmolLM2 135M", at=NOW)
    assert shelf.messages("pear before:2026 ") == [old]
    assert shelf.messages("pear after:2026-11 before:2026-11-02") == [new]
    assert shelf.messages("pear after:today") == [now]
    assert shelf.messages("pear role:me") == [old]
    assert shelf.messages("pear model:gemma") == [new]
    assert shelf.messages("pear model:nothing") == []
    # Alone they list messages, the newest first.
    assert shelf.messages("role:assistant") == [now, new]
    assert shelf.messages("after:2025") == [now, new, old]
    assert shelf.messages("model:gemma model:smol before:today") == [new]
    assert shelf.messages("-three") == [new, old]
    assert shelf.messages("before:2020") == []


def test_titles_are_found_first(shelf: Shelf) -> None:
    shelf.chat("a", "Kafka at home")
    message = shelf.say("a", "unrelated")
    shelf.chat("b", "Empty talk of Kafka")
    shelf.chat("c", "Other")
    shelf.say("c", "kafka " + "and other words " * 20)
    hits = shelf.hits("kafka")
    assert {hit.session_id for hit in hits[:2]} == {"a", "b"}
    assert all(hit.is_title for hit in hits[:2])
    assert {hit.message_id for hit in hits[:2]} == {message, None}
    assert hits[2].session_id == "c"
    assert [hit.session_id for hit in shelf.hits("kafka role:me")] == ["c"]
    assert [hit.session_id for hit in shelf.hits("kafka -home")] == ["b", "c"]
    shelf.change("a", title="Renamed")
    assert [hit.session_id for hit in shelf.hits("kafka")] == ["b", "c"]


def test_ranking_prefers_what_is_dense_new_and_in_a_chat_of_that_title(shelf: Shelf) -> None:
    filler = " filler" * 60
    shelf.chat("c", "Chat")
    sparse = shelf.say("c", "zebra" + filler)
    dense = shelf.say("c", "zebra zebra" + filler)
    assert shelf.messages("zebra") == [dense, sparse]
    old = shelf.say("c", "walrus" + filler, at=NOW - 1000 * DAY)
    new = shelf.say("c", "walrus" + filler + " and a little more")  # by its words alone it would be second
    assert shelf.messages("walrus") == [new, old]
    shelf.chat("t", "About the ibex")
    inside = shelf.say("t", "ibex" + filler, at=NOW - DAY)
    outside = shelf.say("c", "ibex" + filler)
    assert shelf.messages("ibex") == [inside, outside]
    common = shelf.say("c", "elk gnu elk" + filler)
    rare = shelf.say("c", "gnu elk gnu" + filler)
    for _ in range(50):
        shelf.say("c", "elk talk")
    assert shelf.messages("gnu elk ") == [rare, common]


def test_what_is_deleted_is_not_found(shelf: Shelf) -> None:
    shelf.chat("c", "Tulip", tags="work")
    top = shelf.say("c", "tulip top")
    branch = shelf.say("c", "tulip branch", parent=top)
    below = shelf.say("c", "tulip below", parent=branch)
    other = shelf.say("c", "tulip other", parent=top)
    shelf.chat("d", "Tulip too")
    gone = shelf.say("d", "tulip gone")
    assert set(shelf.messages("tulip")) == {top, branch, below, other, gone}
    shelf.db.change("UPDATE messages SET deleted_at = ? WHERE id = ?", NOW, branch)
    shelf.change("d", deleted_at=NOW)
    for query in ("tulip", "role:me", "tulip tag:work", "-nothing"):
        assert set(shelf.messages(query)) == {top, other}
    assert [hit.session_id for hit in shelf.hits("tulip") if hit.is_title] == ["c"]
    assert shelf.messages("below") == []
    shelf.change("d", deleted_at=None)
    assert gone in shelf.messages("tulip")


def test_what_is_deleted_does_not_hide_what_is_not(shelf: Shelf) -> None:
    shelf.chat("c")
    kept = shelf.say("c", "tulip")
    shelf.chat("d", deleted_at=NOW)
    with shelf.db.transaction():
        for _ in range(MAX_CANDIDATES + 1):
            shelf.say("d", "tulip")
    assert shelf.messages("tulip") == [kept]


def test_a_message_leaves_the_index(shelf: Shelf) -> None:
    shelf.chat("c")
    message = shelf.say("c", "Ünïque 日本 \x00 words")
    assert shelf.messages("unique") == [message]
    unindex_message(shelf.db, message, "Ünïque 日本 \x00 words")
    for query in ("unique", "日", "w", "wo", "words"):
        assert shelf.messages(query) == []
    shelf.db.change("INSERT INTO messages_fts (messages_fts) VALUES ('integrity-check')")


def test_a_chat_that_is_being_imported_is_not_found_until_it_is_whole(shelf: Shelf) -> None:
    imported = shelf.db.insert("INSERT INTO imports (owner_pid, owner_started) VALUES (1, 1.0)")
    shelf.chat("c", "Import", import_id=imported, deleted_at=NOW)
    shelf.say("c", "import")
    assert shelf.hits("import") == []
    shelf.db.change("UPDATE sessions SET import_id = NULL, deleted_at = NULL")  # no new revision
    assert len(shelf.hits("import")) == 2
    shelf.db.change("UPDATE sessions SET head_id = NULL")
    shelf.db.change("DELETE FROM messages")
    shelf.db.change("DELETE FROM sessions")
    assert shelf.hits("import") == []


def test_more_matches_than_are_shown_are_counted(shelf: Shelf) -> None:
    shelf.chat("c", "Chat")
    for _ in range(30):
        shelf.say("c", "plum")
    some = shelf.find("plum", limit=20)
    assert (len(some.hits), some.num_more, some.is_complete) == (20, 10, True)
    with shelf.db.transaction():
        for _ in range(600):
            shelf.say("c", "plum")
    many = shelf.find("plum", limit=20)
    assert len(many.hits) == 20
    assert many.num_more > 100
    assert not many.is_complete


def test_an_empty_store_and_an_empty_query_find_nothing(shelf: Shelf) -> None:
    for query in ("x", "a b", "-x", "tag:x", "model:x", "before:2020", ""):
        assert shelf.find(query) == SearchResults()
    assert shelf.find("before:soon").problems


def test_rare_filters_reach_beyond_the_newest_matches(library_path: Path) -> None:
    """More messages match than the filters are tried on one by one."""
    with Searcher(library_path) as searcher:
        database = open_database(library_path)
        for query, where in (
            ("the tag:rare ", "session_id IN (SELECT session_id FROM tags WHERE tag = 'rare')"),
            ("the before:2024-02 ", f"created_at < {moment(2024, 2)}"),
            ("tag:rare before:2026 role:me", "session_id IN (SELECT session_id FROM tags WHERE tag = 'rare')"
             f" AND created_at < {moment(2026)} AND role = 'user'"),
            ("the model:qwen is:favourite ", "model LIKE 'qwen%' AND session_id IN"
             " (SELECT id FROM sessions WHERE is_favourite)"),
        ):  # fmt: skip
            rows = database.rows(f"SELECT id, content FROM messages WHERE {where}")
            expected = {row[0] for row in rows if "the" not in query or " the " in haystack(row[1])}
            assert 0 < len(expected) < 500, query
            found = searcher.search(query, limit=1000, now=library.NOW)
            assert found is not None
            assert {hit.message_id for hit in found.hits if not hit.is_title} == expected, query
        database.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(TYPED)
def test_whatever_is_typed_is_a_query(library_path: Path, text: str) -> None:
    with Searcher(library_path) as searcher:
        results = searcher.search(text, now=NOW)
    assert results is not None
    for hit in results.hits:
        assert sum(len(part.text) for part in hit.snippet) <= MAX_CHARS + 2


# Searchers


def test_a_searcher_sees_what_others_write(shelf: Shelf) -> None:
    shelf.chat("c")
    with Searcher(shelf.path) as searcher:
        assert searcher.search("later", now=NOW) == SearchResults()
        shelf.say("c", "later")
        found = searcher.search("later", now=NOW)
        assert found is not None
        assert len(found.hits) == 1
        shelf.chat("later", "Later")
        found = searcher.search("later", now=NOW)
        assert found is not None
        assert len(found.hits) == 2


def test_a_statement_is_interrupted(shelf: Shelf) -> None:
    errors: list[BaseException] = []

    def endless() -> None:
        try:
            shelf.db.rows(
                "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
            )
        except Interrupted as error:
            errors.append(error)

    thread = threading.Thread(target=endless)
    thread.start()
    while thread.is_alive():
        shelf.db.interrupt()
        thread.join(0.001)
    assert len(errors) == 1
    assert shelf.db.rows("SELECT 1") == [(1,)]


def test_a_search_is_abandoned_between_its_steps(shelf: Shelf) -> None:
    shelf.chat("c")
    shelf.say("c", "word")

    def check() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        search(shelf.db, parse("word", NOW), now=NOW, check=check)


def test_only_the_newest_of_many_searches_answers_for_sure(library_path: Path) -> None:
    with Searcher(library_path) as searcher:
        expected = searcher.search("the of", now=library.NOW)
        results: list[SearchResults | None] = []
        threads = [
            threading.Thread(target=lambda: results.append(searcher.search("the of", now=library.NOW)))
            for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert expected is not None
        assert all(result in (None, expected) for result in results)
        assert expected in results
        searcher.interrupt()
        assert searcher.search("the of", now=library.NOW) == expected


def test_a_search_that_waits_is_dropped_when_another_comes(library_path: Path) -> None:
    with Searcher(library_path) as searcher:
        results: dict[str, SearchResults | None] = {}

        def find(text: str) -> None:
            results[text] = searcher.search(text, now=library.NOW)

        threads = [threading.Thread(target=find, args=(text,)) for text in ("the", "of", "and")]
        with searcher._one_at_a_time:  # as a search that takes long holds it
            for number, thread in enumerate(threads, start=1):
                thread.start()
                while searcher._newest < number:
                    thread.join(0.001)
        for thread in threads:
            thread.join()
        assert results["the"] is results["of"] is None
        assert results["and"] is not None


def test_the_bench_measures_every_query(library_path: Path) -> None:
    result = measure(library_path, repeats=1, keys_per_s=1000)
    assert (result.chats, result.messages) == (300, 9000)
    assert result.queries["the most frequent word"].hits == 50
    assert result.typing.keys > result.typing.superseded


def test_the_library_is_the_same_every_time(tmp_path: Path) -> None:
    def contents(name: str) -> list[tuple[object, ...]]:
        library.make(tmp_path / name, 5, 50)
        database = open_database(tmp_path / name)
        rows = database.rows("SELECT content, created_at FROM messages")
        database.close()
        return rows

    assert contents("one") == contents("two")
    assert len(contents("three")) == 50

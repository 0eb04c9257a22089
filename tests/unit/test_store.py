"""The store of chats: durable, shared by processes, and plain about what it cannot do."""

import contextlib
import itertools
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovar.core.chat import Role
from samovar.core.errors import SamovarError
from samovar.core.request import Mismatch, MismatchReason, RequestStats, TierTokens
from samovar.sessions.attachments import PASTE_DIGITS, digest_of
from samovar.sessions.database import Database
from samovar.sessions.encoding import pack_tokens, storable, unpack_tokens
from samovar.sessions.store import MessageState, Session, Store, StoredMessage
from samovar.sessions.values import Attachment

USER, ASSISTANT = Role.USER, Role.ASSISTANT


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chats.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    ticks = itertools.count(1000)
    with contextlib.closing(Store.open(file, clock=lambda: float(next(ticks)))) as opened:
        yield opened


def reopened(file: Path) -> "contextlib.closing[Store]":
    return contextlib.closing(Store.open(file))


def contents(messages: list[StoredMessage]) -> list[str]:
    return [message.content for message in messages]


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that runs `code` with the store's names imported and talks through pipes."""
    prelude = """
        import sys
        from pathlib import Path
        from samovar.core.chat import Role
        from samovar.sessions.store import MessageState, Store
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(prelude) + textwrap.dedent(code), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# Sessions


def test_a_new_store_is_empty_and_private(store: Store, file: Path) -> None:
    assert store.sessions() == []
    store.create_session()
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in file.parent.iterdir()}
    assert modes == dict.fromkeys(("chats.db", "chats.db-wal", "chats.db-shm", "chats.lock"), 0o600)
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(store: Store, file: Path) -> None:
    store.close()
    file.chmod(0o644)
    with reopened(file):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_sessions_come_most_recently_updated_first(store: Store) -> None:
    first, second, third = (store.create_session(title) for title in ("one", "two", "three"))
    store.messages.add(first.id, USER, "hello")
    store.rename(second.id, "renaming does not reorder")
    assert [session.id for session in store.sessions()] == [first.id, third.id, second.id]


def test_a_session_keeps_what_is_set(store: Store, file: Path) -> None:
    created = store.create_session("title", "be brief")
    store.rename(created.id, "other")
    store.set_system_prompt(created.id, "be long")
    message = store.messages.add(created.id, USER, "hello")
    store.close()
    with reopened(file) as again:
        session = again.session(created.id)
    assert (session.title, session.system_prompt) == ("other", "be long")
    assert (session.head_id, session.num_messages) == (message.id, 1)
    assert session.created_at < session.updated_at


def test_deleting_hides_a_session_and_restoring_brings_all_back(store: Store) -> None:
    session = store.create_session("kept")
    store.messages.add(session.id, USER, "hello")
    before = store.session(session.id)
    store.delete(session.id)
    assert store.sessions() == []
    assert store.find("kept") is None
    for attempt in (store.session, store.path):
        with pytest.raises(SamovarError, match="There is no chat"):
            attempt(session.id)
    with pytest.raises(SamovarError, match="There is no chat"):
        store.messages.add(session.id, USER, "too late")
    store.restore(session.id)
    restored = store.session(session.id)
    assert restored.revision > before.revision
    assert msgspec.structs.replace(restored, revision=before.revision) == before
    assert contents(store.path(session.id)) == ["hello"]


def test_a_reply_still_ends_well_when_its_session_was_deleted(store: Store) -> None:
    session = store.create_session()
    reply = store.messages.add(session.id, ASSISTANT, "", state=MessageState.STREAMING)
    store.delete(session.id)
    store.messages.update_reply(reply.id, "half")
    store.messages.finish_reply(reply.id, "whole", MessageState.COMPLETE)
    store.restore(session.id)
    assert contents(store.path(session.id)) == ["whole"]


def test_finding_by_id_title_or_beginning_of_an_id(store: Store) -> None:
    one = store.create_session("same title", session_id="abcd1111")
    two = store.create_session("same title", session_id="abcd2222")
    named = store.create_session("abcd", session_id="ffff")

    def found(name: str) -> Session | None:
        return store.find(name)

    assert found("abcd1111") == one
    assert found("abcd1") == one
    assert found("abcd") == named, "a title goes before the beginning of an id"
    assert found("same title") == two, "the latest of several"
    assert found("abc") is None, "too short for the beginning of an id"
    store.delete(named.id)
    assert found("abcd") is None, "two ids begin like this"
    assert found("") is None
    assert found("%") is None
    assert found("\ud800\0") is None


def test_what_is_unknown_gives_one_sentence(store: Store) -> None:
    session = store.create_session(session_id="taken")
    for attempt in (
        lambda: store.session("no"),
        lambda: store.path("no"),
        lambda: store.rename("no", "x"),
        lambda: store.set_system_prompt("no", "x"),
        lambda: store.delete("no"),
        lambda: store.restore("no"),
        lambda: store.messages.add("no", USER, "x"),
        lambda: store.messages.add(session.id, USER, "x", parent_id=77),
        lambda: store.messages.update_reply(77, "x"),
        lambda: store.messages.finish_reply(77, "x", MessageState.COMPLETE),
    ):
        with pytest.raises(SamovarError, match="There is no"):
            attempt()
    with pytest.raises(SamovarError, match="is there already"):
        store.create_session(session_id="taken")
    assert store.path(session.id) == []


# Messages


def test_messages_follow_the_head(store: Store) -> None:
    session = store.create_session()
    question = store.messages.add(session.id, USER, "question")
    answer = store.messages.add(session.id, ASSISTANT, "answer")
    assert question.parent_id is None
    assert answer.parent_id == question.id
    assert store.path(session.id) == [question, answer]


def test_an_edited_message_starts_a_branch_and_the_old_one_stays(store: Store) -> None:
    session = store.create_session()
    store.messages.add(session.id, USER, "hello")
    reply = store.messages.add(session.id, ASSISTANT, "hi")
    store.messages.add(session.id, USER, "old")
    store.messages.add(session.id, USER, "new", parent_id=reply.id)
    assert contents(store.path(session.id)) == ["hello", "hi", "new"]
    store.messages.add(session.id, USER, "other beginning", parent_id=None)
    assert contents(store.path(session.id)) == ["other beginning"]
    assert store.session(session.id).num_messages == 5


def test_a_parent_in_another_session_is_refused(store: Store) -> None:
    one, two = store.create_session(), store.create_session()
    message = store.messages.add(one.id, USER, "hello")
    with pytest.raises(SamovarError, match="belongs to another chat"):
        store.messages.add(two.id, USER, "hm", parent_id=message.id)


def test_a_reply_is_stored_while_it_streams_and_when_it_ends(store: Store, file: Path) -> None:
    session = store.create_session()
    reply = store.messages.add(session.id, ASSISTANT, "", state=MessageState.STREAMING)
    store.messages.update_reply(reply.id, "Once up")
    with reopened(file) as other:
        (seen,) = other.path(session.id)
        assert (seen.content, seen.state) == ("Once up", MessageState.STREAMING)
    stats = RequestStats(
        prompt_tokens=5,
        reused=TierTokens(host=3),
        mismatch=Mismatch(pos=3, reason=MismatchReason.MESSAGE_EDITED, asked=("a",)),
    )
    store.messages.finish_reply(
        reply.id,
        "Once upon",
        MessageState.FAILED,
        tokens=(1, 2**32 - 1),
        tokenizer="t",
        stats=stats,
        error="why",
    )
    store.close()
    with reopened(file) as other:
        (seen,) = other.path(session.id)
    assert (seen.content, seen.state, seen.tokens) == ("Once upon", MessageState.FAILED, (1, 2**32 - 1))
    assert (seen.tokenizer, seen.stats, seen.error) == ("t", stats, "why")


def test_a_long_chat_reads_back_in_order(store: Store) -> None:
    session = store.create_session()
    for number in range(300):
        store.messages.add(session.id, USER, str(number))
    assert contents(store.path(session.id)) == [str(number) for number in range(300)]


@pytest.mark.parametrize(
    ("given_text", "stored"),
    [
        ("nul \0 inside", "nul \0 inside"),
        ("lone \ud83d surrogate", "lone \ufffd surrogate"),
        ("pair \ud83d\ude00", "pair \U0001f600"),
        ("\udce9", "\ufffd"),
        ("", ""),
        ("line\r\nline\x1b[31m", "line\r\nline\x1b[31m"),
    ],
)
def test_any_text_is_stored(store: Store, given_text: str, stored: str) -> None:
    session = store.create_session(given_text, given_text)
    message = store.messages.add(session.id, USER, given_text, state=MessageState.STREAMING)
    store.messages.update_reply(message.id, given_text)
    stats = RequestStats(
        mismatch=Mismatch(pos=0, reason=MismatchReason.NEW_CHAT, asked=(given_text, "\ud800"))
    )
    store.messages.finish_reply(
        message.id, given_text, MessageState.STOPPED, error=given_text, tokenizer=given_text, stats=stats
    )
    found = store.session(session.id)
    assert (found.title, found.system_prompt) == (stored, stored)
    (read,) = store.path(session.id)
    assert (read.content, read.error, read.tokenizer) == (stored, stored, stored)
    assert read.stats == RequestStats()


@given(st.text(st.characters(exclude_categories=())))
def test_storable_text_is_unicode_and_keeps_what_is(text: str) -> None:
    stored = storable(text)
    stored.encode()
    assert storable(stored) == stored
    if not any(0xD800 <= ord(char) < 0xE000 for char in text):
        assert stored == text


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_tokens_read_back(tokens: list[int]) -> None:
    assert unpack_tokens(pack_tokens(tokens)) == tuple(tokens)
    assert len(pack_tokens(tokens)) == 4 * len(tokens)


# Several processes, and processes that die


def test_two_processes_open_a_new_store_and_write_at_once(file: Path) -> None:
    file.parent.mkdir()
    code = """
        name = sys.argv[2]
        sys.stdin.readline()
        store = Store.open(Path(sys.argv[1]))
        for number in range(40):
            try:
                session = store.create_session(session_id="shared")
            except Exception as error:
                assert "is there already" in str(error), error
            store.messages.add("shared", Role.USER, f"{name}{number}")
        print("done")
    """
    writers = [start_python(code, file, name) for name in "ab"]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.communicate()[0] for writer in writers] == ["done\n", "done\n"]
    with reopened(file) as store:
        path = contents(store.path("shared"))
    assert len(path) == 80, "each message found the other process's last one as its parent"
    for name in "ab":
        assert [text for text in path if text.startswith(name)] == [f"{name}{number}" for number in range(40)]


@pytest.mark.parametrize("num_seen", [1, 7, 30])
def test_what_was_acknowledged_survives_a_kill_in_mid_write(file: Path, num_seen: int) -> None:
    code = """
        store = Store.open(Path(sys.argv[1]))
        store.create_session(session_id="s")
        reply = store.messages.add("s", Role.ASSISTANT, "", state=MessageState.STREAMING)
        for number in range(100_000):
            store.messages.add("s", Role.USER, f"{number} " + "x" * 5000)
            store.messages.update_reply(reply.id, f"{number}")
            print(number, flush=True)
    """
    writer = start_python(code, file)
    assert writer.stdout is not None
    for _ in range(num_seen):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    rest = writer.communicate()[0]
    last = int(rest.split()[-1]) if rest.endswith("\n") and rest else num_seen - 1

    with reopened(file) as store:
        assert store.recover() == 1
        reply, *messages = store.path("s")
    assert reply.state is MessageState.STOPPED
    assert int(reply.content) >= last
    assert [int(message.content.split()[0]) for message in messages][: last + 1] == list(range(last + 1))
    with contextlib.closing(sqlite3.connect(file)) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert plain.execute("PRAGMA foreign_key_check").fetchall() == []


def test_only_replies_of_dead_processes_are_recovered(store: Store, file: Path) -> None:
    session = store.create_session()
    mine = store.messages.add(session.id, ASSISTANT, "mine", state=MessageState.STREAMING)
    code = """
        store = Store.open(Path(sys.argv[1]))
        for _ in range(2):
            store.messages.add(sys.argv[2], Role.ASSISTANT, "theirs", state=MessageState.STREAMING)
        print("stored", flush=True)
        sys.stdin.readline()
    """
    other = start_python(code, file, session.id)
    assert other.stdout is not None
    other.stdout.readline()
    assert store.recover() == 0
    other.kill()
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the table of processes
    assert store.recover() == 2
    other.communicate()
    assert store.recover() == 0
    states = {message.content: message.state for message in store.path(session.id)}
    assert states == {"mine": MessageState.STREAMING, "theirs": MessageState.STOPPED}
    store.messages.finish_reply(mine.id, "mine", MessageState.COMPLETE)


def test_a_pid_that_came_again_does_not_count_as_alive(store: Store, file: Path) -> None:
    session = store.create_session()
    store.messages.add(session.id, ASSISTANT, "half", state=MessageState.STREAMING)
    with contextlib.closing(sqlite3.connect(file)) as plain, plain:
        plain.execute("UPDATE messages SET owner_started = owner_started - 3600")
    assert store.recover() == 1


# Files that cannot be used


def test_a_damaged_row_gives_one_sentence(store: Store, file: Path) -> None:
    session = store.create_session()
    store.messages.add(session.id, USER, "hello")
    with contextlib.closing(sqlite3.connect(file)) as plain, plain:
        plain.execute("UPDATE messages SET state = 'dancing', stats = '{'")
    with pytest.raises(SamovarError, match="cannot be read"):
        store.path(session.id)


def test_a_file_that_may_only_be_read_gives_one_sentence(store: Store, file: Path) -> None:
    session = store.create_session("before")
    read_only = sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None)
    with contextlib.closing(Store(Database(read_only, file))) as limited:
        with pytest.raises(SamovarError, match=r"Cannot write .*chats.db"):
            limited.messages.add(session.id, USER, "x")
        assert limited.session(session.id).title == "before"


def test_a_full_disk_loses_nothing_and_writing_goes_on_when_there_is_room(store: Store, file: Path) -> None:
    session = store.create_session()
    store.messages.add(session.id, USER, "before")
    small = sqlite3.connect(file, isolation_level=None)
    small.execute("PRAGMA max_page_count = 1")  # clamped to the present size: no page more
    with contextlib.closing(Store(Database(small, file))) as limited:
        with pytest.raises(SamovarError, match="The disk is full"):
            limited.messages.add(session.id, USER, "x" * 100_000)
        assert contents(limited.path(session.id)) == ["before"]
        small.execute("PRAGMA max_page_count = 1000")
        limited.messages.add(session.id, USER, "after")
    assert contents(store.path(session.id)) == ["before", "after"]


def test_a_lock_that_stays_gives_one_sentence(store: Store, file: Path) -> None:
    session = store.create_session()
    impatient = sqlite3.connect(file, isolation_level=None, timeout=0)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with contextlib.closing(Store(Database(impatient, file))) as limited:
            with pytest.raises(SamovarError, match="Another program keeps"):
                limited.rename(session.id, "x")
            assert limited.session(session.id).title == "", "reading needs no lock"


def test_closing_twice_is_fine_and_using_a_closed_store_is_explained(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(SamovarError, match="failed"):
        store.sessions()


def test_a_turn_goes_below_the_head_with_its_reply(store: Store, file: Path) -> None:
    session = store.find_or_create("teas", "Be brief.")
    with reopened(file) as other:
        assert other.find_or_create("teas").id == session.id
        first, first_reply = store.messages.add_turn(session.id, "one")
        second, second_reply = other.messages.add_turn(session.id, "two")
    assert first.parent_id is None
    assert (first_reply.parent_id, first_reply.state) == (first.id, MessageState.STREAMING)
    assert second.parent_id == first_reply.id
    store.messages.finish_reply(first_reply.id, "reply one", MessageState.COMPLETE)
    assert contents(store.path(session.id)) == ["one", "reply one", "two", ""]
    assert contents(store.messages.path_to(first_reply.id)) == ["one", "reply one"]
    assert store.messages.path_to(None) == []
    assert store.messages.add_reply(session.id, first.id, first_reply.id) is None, "the chat has gone on"
    again = store.messages.add_reply(session.id, second.id, second_reply.id)
    assert again is not None
    assert store.session(session.id).head_id == again.id


def test_the_version_tells_what_others_have_changed(store: Store, file: Path) -> None:
    session = store.create_session("one")
    before = store.outside_version()
    store.rename(session.id, "two")
    assert store.outside_version() == before
    with reopened(file) as other:
        other.rename(session.id, "three")
    assert store.outside_version() != before


def test_removing_a_chat_for_good_does_not_look_at_all_others(store: Store) -> None:
    """SQLite looks for whoever names a message that goes; with 20,000 chats that took a second a turn."""
    for sql in (
        "SELECT 1 FROM sessions WHERE head_id = 1",
        "SELECT 1 FROM messages WHERE parent_id = 1",
        "SELECT attachments FROM messages WHERE attachments <> '[]'",
    ):
        plan = [row[-1] for row in store._db.rows(f"EXPLAIN QUERY PLAN {sql}")]
        assert all("INDEX" in step for step in plan), plan


def test_a_purge_that_is_stopped_goes_on_another_time(store: Store) -> None:
    for number in range(3):
        store.delete(store.create_session(str(number)).id)
    store._db.change("UPDATE sessions SET deleted_at = -1e9")
    answers = iter([False, True, True, True])
    assert store.purge(lambda: next(answers)) == 1
    assert store.purge() == 2


# What is deleted


def two_turns(store: Store) -> tuple[str, list[StoredMessage]]:
    """A chat of two messages with a reply each; the first reply brought nothing."""
    session = store.create_session("chat").id
    for text in ("one", "two"):
        _, reply = store.messages.add_turn(session, text)
        store.messages.finish_reply(reply.id, "" if text == "one" else "second", MessageState.COMPLETE)
    return session, store.path(session)


def test_a_branch_that_comes_back_is_shown_also_if_its_parent_was_deleted_meanwhile(store: Store) -> None:
    session, path = two_turns(store)
    head = store.messages.delete_branch(path[2].id)
    store.messages.add_reply(session, path[0].id, path[1].id)
    store.messages.delete_branch(path[1].id)  # as answering again does with a reply that brought nothing
    store.messages.restore_branch(path[2].id, head)
    assert contents(store.path(session)) == ["one", "", "two", "second"]
    document = store.exchange.document(session)
    assert document.head is not None
    assert [message.content for message in document.messages] == ["one", "", "two", "second", ""]


def test_a_branch_that_comes_back_shows_its_end_where_what_was_shown_is_deleted(store: Store) -> None:
    session, path = two_turns(store)
    other = store.messages.add(session, USER, "two, edited", parent_id=path[1].id)
    head = store.messages.delete_branch(path[2].id)
    assert head == other.id
    store.messages.delete_branch(other.id)
    store.messages.restore_branch(path[2].id, head)
    assert contents(store.path(session)) == ["one", "", "two", "second"]


def test_nothing_is_written_below_a_message_that_is_deleted(store: Store) -> None:
    """Another window has deleted it: what came there would be out of sight from the start."""
    session, path = two_turns(store)
    store.messages.delete_branch(path[0].id)
    works: list[Callable[[], object]] = [
        lambda: store.messages.add_turn(session, "edited", parent_id=path[1].id),
        lambda: store.messages.add(session, USER, "edited", parent_id=path[1].id),
        lambda: store.messages.add_reply(session, path[2].id, None),
        lambda: store.messages.reopen(path[3].id),
        lambda: store.messages.show(session, path[3].id),
        lambda: store.messages.siblings(path[0].id),
        lambda: store.messages.delete_branch(path[0].id),
    ]
    for work in works:
        with pytest.raises(SamovarError, match="has been deleted"):
            work()
    assert store.path(session) == []


# Transactions


def test_a_transaction_within_another_is_a_part_of_it(store: Store, file: Path) -> None:
    def fail() -> None:
        with store.transaction():
            session = store.create_session("chat")
            store.messages.add_turn(session.id, "one")
            store.rename("unknown", "title")

    with pytest.raises(SamovarError, match="no chat"):
        fail()
    assert store.sessions() == []
    with reopened(file) as other:
        with store.transaction():
            session = store.create_session("chat")
            assert other.sessions() == []
        assert [one.id for one in other.sessions()] == [session.id]


# Drafts, and the texts of files


def test_the_draft_of_a_window_that_lives_is_its_own(store: Store, file: Path) -> None:
    store.drafts.save("a chat", "half a thought")
    with reopened(file) as other:
        assert other.drafts.adopt() == {}, "this process lives"
        other._db.change("UPDATE drafts SET owner_started = 1")
        assert other.drafts.adopt() == {"a chat": "half a thought"}
        assert other.drafts.adopt() == {}


def test_the_text_of_a_file_stays_while_a_message_or_a_draft_names_it(store: Store) -> None:
    files = [Attachment(f"{name}.md", name, digest_of(name)) for name in ("sent", "drafted", "left over")]
    session = store.create_session("files").id
    store.messages.add(session, USER, "see it", attachments=files[:1])
    store.keep_pastes(files[1:])
    store.drafts.save(session, f"see @pasted-{files[1].digest[:PASTE_DIGITS]}")
    store.purge()
    kept = {text for (text,) in store._db.rows("SELECT text FROM files")}
    assert kept == {"sent", "drafted"}
    assert store.path(session)[0].attachments[0].text == "sent"
